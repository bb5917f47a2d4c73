"""A kubeconfig that is read from a Secret and never lies on a disk: it, and every key in it, is a file without a name
in memory, which goes with this process."""

import os
from base64 import b64decode
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Cluster
from windfall.servicekit.kube.kinds import SECRET

KEY: Final = "value"
"""Where Cluster API keeps it in the Secret."""
_INLINE: Final = ("certificate-authority", "client-certificate", "client-key")
_ABROAD: Final = ("exec", "auth-provider", "tokenFile")


class HeldKubeconfig(AbstractContextManager["HeldKubeconfig"]):
    """A kubeconfig in memory.

    Args:
        text: as the Secret has it.
        whence: for the line of a mistake.

    Raises:
        Mistake: it is none, or it names files or programs of this machine, which whoever may write the Secret could
            then read or run.
    """

    def __init__(self, text: bytes, whence: str) -> None:
        self._whence = whence
        self._fds: list[int] = []
        with ExitStack() as unless_whole:
            unless_whole.callback(self.close)
            self.path = self._keep(yaml.safe_dump(self._whole(text)).encode())
            unless_whole.pop_all()

    def _whole(self, text: bytes) -> Any:
        try:
            said = yaml.safe_load(text)
            for part in ("clusters", "users"):
                for entry in said[part]:
                    self._hold(entry["cluster" if part == "clusters" else "user"])
        except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
            # The error itself may quote a key.
            raise self._refused(f"is no kubeconfig ({type(error).__name__})") from None
        return said

    def _hold(self, entry: dict[str, Any]) -> None:
        for name in _ABROAD:
            if name in entry:
                raise self._refused(f"uses {name}, which reaches out to the provisioner's machine")
        for name in _INLINE:
            if name in entry:
                raise self._refused(f"names a file as {name}")
            if (inline := entry.pop(f"{name}-data", None)) is not None:
                entry[name] = str(self._keep(b64decode(inline, validate=True)))

    def _keep(self, content: bytes) -> Path:
        fd = os.memfd_create("kubeconfig", os.MFD_CLOEXEC)
        self._fds.append(fd)
        os.write(fd, content)
        return Path(f"/proc/self/fd/{fd}")

    def _refused(self, why: str) -> Mistake:
        return Mistake(
            f"{self._whence} {why}", "Let the cluster's own provider write it, with its keys inside", ExitCode.SERVER
        )

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def held(cluster: Cluster, name: str, namespace: str) -> HeldKubeconfig | None:
    """The kubeconfig in a Secret; none while there is no such Secret or nothing in it.

    Raises:
        Transient: the server cannot be asked now.
        Mistake: see :class:`HeldKubeconfig`.
    """
    secret: Mapping[str, Any] | None = await cluster.get(SECRET, name, namespace)
    text = ((secret or {}).get("data") or {}).get(KEY)
    return HeldKubeconfig(b64decode(text), f"the Secret {namespace}/{name}") if text else None
