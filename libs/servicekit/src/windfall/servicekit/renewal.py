"""TLS files that are replaced while we run: whoever connects next shows and believes what lies there now.

A connection that stands is not touched: TLS looks at certificates when it begins. Key and certificate are two files; a
handshake that falls between them keeps to the pair before, and the next one has the new pair.
"""

import logging
from collections.abc import Callable
from typing import Any, Self

import grpc
import grpc.aio

from windfall.servicekit.errors import Mistake
from windfall.servicekit.tls import Tls

log = logging.getLogger(__name__)

Read = Callable[[Tls], tuple[bytes, bytes, bytes]]
"""Certificate, key and authority. Raises ``Mistake``."""
_Stamp = tuple[tuple[int, int], ...]


def stamp(tls: Tls) -> _Stamp:
    """Changes when one of the files is replaced.

    Raises:
        OSError: one is not there.
    """
    found = [path.stat() for path in (tls.certificate, tls.key, tls.authority)]
    return tuple((one.st_ino, one.st_mtime_ns) for one in found)


def server_credentials(tls: Tls, read: Read, *, mutual: bool = True) -> grpc.ServerCredentials:
    """What a server shows, and whom it believes, looked up at each handshake.

    Args:
        mutual: a caller must show a certificate, too.

    Raises:
        Mistake: the files cannot be used.
    """

    def configured() -> Any:
        certificate, key, authority = read(tls)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authority if mutual else None)

    first = configured()
    seen = stamp(tls)

    def looked_up() -> Any:
        # Called by gRPC's own threads. None: as before.
        nonlocal seen
        try:
            now = stamp(tls)
            if now == seen:
                return None
            found = configured()
        except (Mistake, OSError) as error:
            log.warning("keeps to the certificate before: %s", error)
            return None
        seen = now
        return found

    return grpc.dynamic_ssl_server_credentials(first, looked_up, mutual)


class RenewedChannel(grpc.aio.Channel):
    """A channel whose calls begin on a connection with the certificate of that moment; one that runs stays on its own.

    Args:
        tls: what is looked at before each call.
        made: a channel with what lies there now. Raises ``Mistake``.
    """

    def __init__(self, tls: Tls, made: Callable[[], grpc.aio.Channel]) -> None:
        self._tls, self._made = tls, made
        self._channels = [made()]
        self._seen = stamp(tls)

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        return lambda *call, **options: self._now().unary_unary(*arguments, **named)(*call, **options)

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        return lambda *call, **options: self._now().unary_stream(*arguments, **named)(*call, **options)

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        return lambda *call, **options: self._now().stream_unary(*arguments, **named)(*call, **options)

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        return lambda *call, **options: self._now().stream_stream(*arguments, **named)(*call, **options)

    async def close(self, grace: float | None = None) -> None:
        for channel in self._channels:
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._now().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._now().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._now().channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    def _now(self) -> grpc.aio.Channel:
        try:
            found = stamp(self._tls)
            if found != self._seen:
                # The ones before are kept: calls may still run on them, for as long as a window is open.
                self._channels.append(self._made())
                self._seen = found
        except (Mistake, OSError) as error:
            log.warning("keeps to the certificate before: %s", error)
        return self._channels[-1]
