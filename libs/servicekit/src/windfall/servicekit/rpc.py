"""gRPC as every service uses it: limits, keepalive, TLS outside loopback, trace context, two kinds of failure."""

import logging
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from opentelemetry.trace import Span, SpanKind

from windfall.contracts.envelope import BAGGAGE, TRACEPARENT
from windfall.servicekit import metrics
from windfall.servicekit.admission import Admission, Revoked
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.instruments import CALLS, CERTIFICATE
from windfall.servicekit.renewal import RenewedChannel, server_credentials
from windfall.servicekit.rotation import RotatingChannel
from windfall.servicekit.telemetry import Attribute, outgoing_trace, span
from windfall.servicekit.tls import Tls, is_loopback

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 512 * 1024
"""Tensors travel in chunks of this size."""
DEADLINE: Final = timedelta(seconds=10)
"""For calls that carry no tensors."""

_MAX_MESSAGE = 4 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_send_message_length", _MAX_MESSAGE),
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    # A peer that is stopped, or behind a link that is cut, is left after these; so is one that takes our connection and
    # says nothing. Without the third, gRPC waits a minute for the answer of one whose TCP still acknowledges.
    ("grpc.keepalive_time_ms", 3_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.min_reconnect_backoff_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.so_reuseport", 0),
)

_RECEIVE_WINDOW: Final = (
    # What a sender may have in flight before we read it. Left to itself gRPC grows it to tens of MiB on a fast link,
    # and thirty sites that push at once would hold hundreds; 2 MiB still carry 57 MB/s over 35 ms.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 2 * 1024 * 1024),
)

Registration = Callable[[Any], None]
"""Adds a servicer to a server, like ``partial(add_TrainingServicer_to_server, servicer)``."""

PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    }
)
"""Statuses after which the same call may succeed."""


class Refused(Exception):
    """The other side understood and said no; the same call would be refused again."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class RpcServer:
    """A running server. ``port`` is the one it got when it was asked for any."""

    def __init__(self, server: grpc.aio.Server, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace: timedelta = timedelta(seconds=1)) -> None:
        """Refuse new calls, let running ones finish for the grace, cut the rest."""
        await self._server.stop(grace.total_seconds())


async def serve(
    address: str,
    registrations: Sequence[Registration],
    tls: Tls | None = None,
    *,
    insecure: bool = False,
    mutual: bool = True,
) -> RpcServer:
    """Serve on ``host:port``; port 0 takes a free one.

    Args:
        mutual: who calls must show a certificate; otherwise it has none yet.

    Raises:
        Mistake: the port is in use, the TLS files cannot be used, or the address is not loopback and there is neither
            TLS nor ``insecure``.
    """
    watched = [] if tls is None else [Admission(None if tls.revoked is None else Revoked(tls.revoked))]
    server = grpc.aio.server(options=(*_OPTIONS, *_RECEIVE_WINDOW), interceptors=watched)
    for register in registrations:
        register(server)
    try:
        port = _bound(server, address, tls, insecure, mutual)
    except RuntimeError as error:
        raise Mistake(
            f"cannot listen on {address}: it is in use or not ours", "Choose a free port", ExitCode.RESOURCE
        ) from error
    await server.start()
    return RpcServer(server, port)


def _bound(server: grpc.aio.Server, address: str, tls: Tls | None, insecure: bool, mutual: bool) -> int:
    if tls is not None:
        return server.add_secure_port(address, server_credentials(tls, _read, mutual=mutual))
    if not is_loopback(address):
        if not insecure:
            raise Mistake(
                f"{address} is not loopback and there is no TLS",
                "Give certificate, key and authority, or say that you want it insecure",
                ExitCode.USAGE,
            )
        log.warning("INSECURE: serving %s without TLS; anybody on the network can read and forge", address)
    return server.add_insecure_port(address)


def connect(target: str, tls: Tls | None = None) -> grpc.aio.Channel:
    """A channel to ``host:port``, or to whichever of several, separated by commas, answers. It connects when first used
    and again whenever it is cut; with a certificate that was replaced, from the next call on.

    Raises:
        Mistake: the TLS files cannot be used.
    """

    def to(address: str) -> grpc.aio.Channel:
        if tls is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return RenewedChannel(tls, partial(_secured, address, tls))

    addresses = [part.strip() for part in target.split(",") if part.strip()]
    return to(addresses[0]) if len(addresses) == 1 else RotatingChannel([to(address) for address in addresses])


def _secured(address: str, tls: Tls) -> grpc.aio.Channel:
    certificate, key, authority = _read(tls)
    credentials = grpc.ssl_channel_credentials(authority, key, certificate)
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)


def _read(tls: Tls) -> tuple[bytes, bytes, bytes]:
    """Certificate, key and authority; gRPC itself would only say that a handshake failed."""
    try:
        found = tls.certificate.read_bytes(), tls.key.read_bytes(), tls.authority.read_bytes()
        context = ssl.create_default_context(cafile=tls.authority)
        context.load_cert_chain(tls.certificate, tls.key, password="")
    except OSError as error:
        raise Mistake(
            f"the certificate {tls.certificate} with key {tls.key} under {tls.authority} cannot be used ({error})",
            "Give PEM files: a certificate, its key without a password, and the authority that signed both ends",
            ExitCode.RESOURCE,
        ) from error
    _watch(tls.certificate)
    return found


@cache
def _watch(certificate: Path) -> None:
    """Let a collector see when it runs out."""
    metrics.observe(CERTIFICATE, partial(_remaining, certificate))


def _remaining(path: Path) -> list[tuple[float, dict[str, str]]]:
    """Seconds until the certificate that lies there now runs out; nothing while there is none, of which whoever
    connects next tells."""
    # Imported here: without TLS nobody needs it.
    from cryptography import x509

    try:
        ends_at = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return []
    return [((ends_at - datetime.now(UTC)).total_seconds(), {})]


def metadata() -> tuple[tuple[str, str], ...]:
    """Trace context and baggage for an outgoing call."""
    return tuple(outgoing_trace().items())


@contextmanager
def serving(context: Any, method: str, attributes: Mapping[str, Attribute | None] | None = None) -> Iterator[Span]:
    """The server's span of one call, a child of the caller's."""
    with (
        span(method, kind=SpanKind.SERVER, parent=caller_trace(context), attributes=attributes) as current,
        metrics.timed(CALLS, {"rpc.method": method}),
    ):
        yield current


def caller_trace(context: Any) -> dict[str, str]:
    """W3C headers that the caller sent."""
    return {key: value for key, value in context.invocation_metadata() or () if key in (TRACEPARENT, BAGGAGE)}


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn gRPC's errors into ours.

    Raises:
        Transient: the other side is away or too slow.
        Refused: the other side said no.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        detail = error.details() or error.code().name
        if error.code() in PASSING:
            raise Transient(f"{what}: {detail}") from error
        raise Refused(error.code(), f"{what}: {detail}") from error
