"""TLS files that are replaced while we run: whoever connects next shows and believes what lies there now.

A connection that stands is not touched: TLS looks at certificates when it begins. Key and certificate are two files; a
handshake that falls between them keeps to the pair before, and the next one has the new pair.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

import grpc
import grpc.aio

from windfall.servicekit.errors import Mistake
from windfall.servicekit.tls import Stamp, Tls, stamp

log = logging.getLogger(__name__)

Read = Callable[[Tls], tuple[bytes, bytes, bytes]]
"""Certificate, key and authority. Raises ``Mistake``."""


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

    # Looked at before it is read, here and below: what is replaced in between is seen by the next handshake.
    seen = _look(tls)
    first = configured()

    def looked_up() -> Any:
        # Called by gRPC's own threads. None: as before.
        nonlocal seen
        now = _look(tls)
        if now == seen:
            return None
        seen = now
        try:
            return configured()
        except Mistake as error:
            log.warning("keeps to the certificate before: %s", error)
            return None

    return grpc.dynamic_ssl_server_credentials(first, looked_up, mutual)


class RenewedChannel(grpc.aio.Channel):
    """A channel whose calls begin on a connection with the certificate of that moment. A call that runs stays on its
    own connection, which is closed when its last call is over.

    Args:
        tls: what is looked at before each call.
        made: a channel with what lies there now. Raises ``Mistake``.
    """

    def __init__(self, tls: Tls, made: Callable[[], grpc.aio.Channel]) -> None:
        self._tls, self._made = tls, made
        self._seen = _look(tls)
        self._channel = made()
        self._calls: Counter[grpc.aio.Channel] = Counter()
        self._closing: set[asyncio.Task[None]] = set()

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        return self._each(lambda channel: channel.unary_unary(*arguments, **named))

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._each(lambda channel: channel.unary_stream(*arguments, **named))

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        return self._each(lambda channel: channel.stream_unary(*arguments, **named))

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._each(lambda channel: channel.stream_stream(*arguments, **named))

    async def close(self, grace: float | None = None) -> None:
        for channel in {self._channel, *self._calls}:
            await channel.close(grace)
        await asyncio.gather(*self._closing)

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

    def _each(self, method: Callable[[grpc.aio.Channel], Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            channel = self._now()
            begun = method(channel)(*arguments, **named)
            self._calls[channel] += 1
            begun.add_done_callback(lambda _: self._over(channel))
            return begun

        return call

    def _over(self, channel: grpc.aio.Channel) -> None:
        self._calls[channel] -= 1
        if not self._calls[channel]:
            del self._calls[channel]
            if channel is not self._channel:
                self._let_go(channel)

    def _now(self) -> grpc.aio.Channel:
        found = _look(self._tls)
        if found != self._seen:
            self._seen = found
            try:
                before, self._channel = self._channel, self._made()
            except Mistake as error:
                log.warning("keeps to the certificate before: %s", error)
            else:
                if not self._calls[before]:
                    self._let_go(before)
        return self._channel

    def _let_go(self, channel: grpc.aio.Channel) -> None:
        closing = asyncio.ensure_future(channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _look(tls: Tls) -> Stamp:
    """What lies there now; nothing where a file is missing, which whoever reads it then says."""
    try:
        return stamp(tls.shown)
    except OSError:
        return ()
