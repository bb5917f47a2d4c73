"""The double, put together."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from windfall.servicekit.clock import Clock, SystemClock
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.testing.kube_api.authorizing import Tokens
from windfall.servicekit.testing.kube_api.certificates import loaded
from windfall.servicekit.testing.kube_api.collecting import Collector
from windfall.servicekit.testing.kube_api.faults import Faults
from windfall.servicekit.testing.kube_api.registry import Registry
from windfall.servicekit.testing.kube_api.resources import Catalogue
from windfall.servicekit.testing.kube_api.serving import Server
from windfall.servicekit.testing.kube_api.store import Store

LOG: Final = "objects.jsonl"
_SOON: Final = timedelta(seconds=1)


class KubeApi:
    """Enter it to serve.

    Args:
        port: 0 takes a free one.
        state: folder of its log; without one it forgets all when it ends.
        history: changes that it remembers for watches.
    """

    def __init__(
        self, port: int = 0, state: Path | None = None, clock: Clock | None = None, history: int = 20_000
    ) -> None:
        self.faults = Faults()
        self.tokens = Tokens()
        self.store = Store(state / LOG if state else None, history)
        clock = clock or SystemClock()
        catalogue = Catalogue()
        registry = Registry(self.store, catalogue, clock)
        self._server = Server(self.store, catalogue, registry, self.tokens, self.faults, clock)
        self._collector = Collector(self.store, catalogue, registry)
        self._tls, self.authority = loaded(state)
        self._port = port

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}"

    @property
    def bookmark_every(self) -> timedelta:
        return self._server.bookmark_every

    @bookmark_every.setter
    def bookmark_every(self, interval: timedelta) -> None:
        self._server.bookmark_every = interval

    async def __aenter__(self) -> Self:
        """
        Raises:
            Mistake: the port is in use.
        """
        self._runner = web.AppRunner(
            self._server.application(),
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=_SOON.total_seconds(),
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            cause = f"cannot listen on port {self._port}: {error.strerror}"
            raise Mistake(cause, "Choose a free port", ExitCode.RESOURCE) from error
        self._port = self._runner.addresses[0][1]
        self._collecting = asyncio.create_task(self._collector.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._collecting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._collecting
        await self._runner.cleanup()
        self.store.close()

    def kubeconfig(self, token: str = "admintoken") -> str:  # noqa: S107 - the double's own, known to everybody
        """The text of a kubeconfig file."""
        return kubeconfig_text(self.url, self.authority, {"token": token})


def kubeconfig_text(url: str, authority: bytes, user: dict[str, str]) -> str:
    """For one cluster and one user.

    Args:
        authority: in PEM.
    """
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(authority).decode()}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "double",
        "clusters": [{"name": "double", "cluster": cluster}],
        "contexts": [{"name": "double", "context": {"cluster": "double", "user": "admin"}}],
        "users": [{"name": "admin", "user": user}],
    }
    return json.dumps(config, indent=1)


@asynccontextmanager
async def kube_api(folder: Path, state: Path | None = None) -> AsyncIterator[tuple[KubeApi, Path]]:
    """A double and the path of its kubeconfig, which is written to the folder."""
    async with KubeApi(state=state) as api:
        path = folder / "kubeconfig"
        path.write_text(api.kubeconfig())
        yield api, path
