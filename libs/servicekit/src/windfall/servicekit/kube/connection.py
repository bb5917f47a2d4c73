"""How to reach an API server and who we are to it, by the official client's own reading of kubeconfig files.

Credentials change under a running service: a projected token is replaced every hour, a certificate is renewed. The
files that they come from are looked at before every request, by their inode and time, and are read again when another
one is there; an exec plugin is run again after the server has refused what it said last.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import yaml
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_kube_config
from kubernetes.aio.config.incluster_config import SERVICE_CERT_FILENAME, SERVICE_TOKEN_FILENAME, InClusterConfigLoader

from windfall.servicekit.errors import ExitCode, Mistake

_USER_AGENT: Final = "windfall"


@dataclass(frozen=True)
class Connection:
    """Where to connect: a kubeconfig file, else what a pod is given, else ``KUBECONFIG``, else ``~/.kube/config``."""

    kubeconfig: Path | None = None
    context: str | None = None
    """Of the kubeconfig; its current one if none is named."""

    @property
    def in_cluster(self) -> bool:
        return self.kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ

    def paths(self) -> tuple[Path, ...]:
        """The kubeconfig files, which are merged."""
        if self.kubeconfig is not None:
            return (self.kubeconfig,)
        named = os.environ.get("KUBECONFIG", "")
        return tuple(Path(path) for path in named.split(os.pathsep) if path) or (Path.home() / ".kube" / "config",)

    def __str__(self) -> str:
        if self.in_cluster:
            return "the pod's service account"
        return os.pathsep.join(str(path) for path in self.paths())


class Access:
    """A client of the API server that notices when its credentials are replaced."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client: ApiClient | None = None
        self._retired: list[ApiClient] = []
        self._seen: tuple[object, ...] = ()
        self._reading = asyncio.Lock()
        self.reads = 0
        """How often the credentials have been read."""

    async def client(self) -> ApiClient:
        """With the credentials that are there now.

        Raises:
            Mistake: the kubeconfig or a file that it names cannot be read.
        """
        if self._client is None or self._signature() != self._seen:
            await self.read_again(self.reads)
        assert self._client is not None
        return self._client

    async def read_again(self, since: int) -> None:
        """Unless somebody else has done so ``since`` that many reads."""
        async with self._reading:
            if self.reads != since:
                return
            signature = self._signature()
            configuration = await self._load()
            old = self._client
            if old is not None and _same_link(old.configuration, configuration):
                old.configuration.api_key = configuration.api_key
            else:
                self._client = ApiClient(configuration)
                self._client.user_agent = _USER_AGENT
                # Requests that are under way end on the old one.
                self._retired += [old] if old is not None else []
            self._seen = signature
            self.reads += 1

    async def close(self) -> None:
        for client in (*self._retired, self._client):
            if client is not None:
                await client.close()
        self._client, self._retired = None, []

    async def _load(self) -> Configuration:
        configuration = Configuration()
        try:
            if self._connection.in_cluster:
                loader = InClusterConfigLoader(SERVICE_TOKEN_FILENAME, SERVICE_CERT_FILENAME, try_refresh_token=False)
                loader.load_and_set(configuration)
            else:
                paths = self._connection.paths()
                if not any(path.is_file() for path in paths):
                    raise FileNotFoundError(f"{self._connection} does not exist")
                await load_kube_config(
                    os.pathsep.join(str(path) for path in paths),
                    self._connection.context,
                    configuration,
                    persist_config=False,
                )
        except (ConfigException, OSError, yaml.YAMLError, ValueError, TypeError) as error:
            raise Mistake(
                f"cannot connect to Kubernetes by {self._connection}: {error}",
                "Name a kubeconfig and context that `kubectl` works with",
                ExitCode.RESOURCE,
            ) from error
        # A token's file may end with a newline, which no header can hold.
        configuration.api_key = {name: key.strip() for name, key in configuration.api_key.items()}
        return configuration

    def _signature(self) -> tuple[object, ...]:
        if self._connection.in_cluster:
            return _stamp(Path(SERVICE_TOKEN_FILENAME)), _stamp(Path(SERVICE_CERT_FILENAME))
        configs = self._connection.paths()
        seen = tuple(_stamp(path) for path in configs)
        if self._seen[:1] == (seen,):
            files = cast("tuple[Path, ...]", self._seen[1])
        else:
            files = tuple(file for path in configs for file in _named_files(path))
        return (seen, files, *(_stamp(file) for file in files))


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _named_files(kubeconfig: Path) -> tuple[Path, ...]:
    """The token and certificate files that a kubeconfig names, of all of its users."""
    try:
        config = yaml.safe_load(kubeconfig.read_text())
    except (OSError, yaml.YAMLError):
        return ()
    users = config.get("users") if isinstance(config, Mapping) else None
    return tuple(
        kubeconfig.parent / path
        for user in users or ()
        for key in ("tokenFile", "client-certificate", "client-key")
        if (path := (user.get("user") or {}).get(key))
    )


def _same_link(old: Any, new: Any) -> bool:
    """Whether only the token differs. A certificate's file may be another one under the same name."""
    if new.cert_file is not None:
        return False
    keys = ("host", "ssl_ca_cert", "verify_ssl", "tls_server_name", "proxy")
    return all(getattr(old, key) == getattr(new, key) for key in keys)
