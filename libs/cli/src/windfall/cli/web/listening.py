"""Where the page may be served: on loopback freely, elsewhere over TLS, or because somebody insists."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from windfall.servicekit.errors import Mistake
from windfall.servicekit.tls import is_loopback


@dataclass(frozen=True)
class Door:
    """An address to listen on, and how."""

    host: str
    port: int
    context: ssl.SSLContext | None = None
    warning: str = ""
    """What whoever starts it must know, in one line; empty where there is nothing."""

    @property
    def loopback(self) -> bool:
        return is_loopback(f"{self.host}:{self.port}")

    def url(self, port: int) -> str:
        """As a person types it, at the port that it got."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.context else 'http'}://{host}:{port}/"


def door(
    listen: str, certificate: Path | None, key: Path | None, authority: Path | None, *, insecure: bool = False
) -> Door:
    """Check an address ``HOST:PORT`` (port 0 takes a free one) and what protects it.

    Raises:
        Mistake: it is no address; it is not loopback and there is neither TLS nor ``insecure``; or the TLS files cannot
            be used.
    """
    host, colon, text = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (colon and host and text.isdecimal() and int(text) < 1 << 16):
        raise Mistake(f"{listen!r} is no address", "Say HOST:PORT, like 127.0.0.1:8400")
    port = int(text)
    context = _context(certificate, key, authority)
    here = Door(host, port, context)
    if here.loopback:
        return here
    if context is not None:
        warning = f"without --tls-authority anybody who reaches {listen} can read this fleet" if not authority else ""
        return Door(host, port, context, warning)
    if not insecure:
        raise Mistake(
            f"{listen} is not loopback and there is no TLS",
            "Give --tls-certificate and --tls-key, or say --insecure if anybody on the network may read this fleet",
        )
    return Door(host, port, None, f"INSECURE: serving {listen} without TLS; anybody on the network can read this fleet")


def _context(certificate: Path | None, key: Path | None, authority: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None:
        raise Mistake("TLS needs a certificate and its key", "Give --tls-certificate and --tls-key together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if authority is not None:
            context.load_verify_locations(authority)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise Mistake(
            f"the TLS files of the page cannot be used ({error})", "Give PEM files that belong together"
        ) from error
    return context
