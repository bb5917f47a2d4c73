"""TLS of connections to a NATS server: whom we believe, and what we show where it asks for it."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.renewed_context import RenewedContext
from windfall.servicekit.tls import is_loopback

log = logging.getLogger(__name__)

_PLAIN: Final = frozenset({"nats", "ws"})


@dataclass(frozen=True)
class NatsTls:
    """PEM files of our end of a connection. ``tls://`` without them believes the authorities that the system knows."""

    authority: Path | None = None
    """Who must have signed the server's certificate; none: whom the system knows."""
    certificate: Path | None = None
    """Ours, for a server that asks for one."""
    key: Path | None = None

    def context(self, url: str) -> ssl.SSLContext | None:
        """What a client is to use for a server; none where the URL says that it speaks plainly. Files that are replaced
        count from the next connection on.

        Raises:
            Mistake: a file cannot be used, or there are files and the URL says ``nats://``.
        """
        files = [path for path in (self.authority, self.certificate, self.key) if path is not None]
        if urlsplit(url).scheme in _PLAIN:
            if files and not _stays_here(url):
                raise Mistake(
                    f"there are certificates for NATS, and {url} says that it is spoken to without TLS",
                    "Write tls:// in WINDFALL_NATS_URL, or unset WINDFALL_NATS_AUTHORITY and WINDFALL_NATS_CERTIFICATE",
                )
            return None
        try:
            return RenewedContext(files, self._made) if files else self._made()
        except OSError as error:
            raise Mistake(
                f"the certificates for {url} cannot be used ({error}): {', '.join(map(str, files))}",
                "Give PEM files: the authority, a certificate, its key without a password",
                ExitCode.RESOURCE,
            ) from error

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.authority)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, password="")
        return context


def warn_if_plain(url: str) -> None:
    """Say it where whoever is on the network can read and forge what we say."""
    if urlsplit(url).scheme in _PLAIN and not _stays_here(url):
        log.warning("INSECURE: speaking to %s without TLS; anybody on the network can read and forge", url)


def _stays_here(url: str) -> bool:
    address = urlsplit(url)
    return is_loopback(f"{address.hostname}:{address.port or 4222}")
