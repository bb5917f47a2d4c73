"""A channel to whichever of several addresses answers: the one that serves, among others that stand by for it.

Who stands by does not listen. A call goes to the address that answered last; once that one cannot be reached, the next
call tries the next address, and so on round the list. A call that fails meanwhile fails as it would with one address:
whoever made it tries again.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import grpc
import grpc.aio

_UNREACHABLE = (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)


class RotatingChannel(grpc.aio.Channel):
    """See the module.

    Args:
        channels: one to each address, in the order in which they are tried.
    """

    def __init__(self, channels: Sequence[grpc.aio.Channel]) -> None:
        self._channels = tuple(channels)
        self._at = 0

    def unary_unary(self, *arguments: Any, **named: Any) -> Any:
        return self._each([channel.unary_unary(*arguments, **named) for channel in self._channels])

    def unary_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._each([channel.unary_stream(*arguments, **named) for channel in self._channels])

    def stream_unary(self, *arguments: Any, **named: Any) -> Any:
        return self._each([channel.stream_unary(*arguments, **named) for channel in self._channels])

    def stream_stream(self, *arguments: Any, **named: Any) -> Any:
        return self._each([channel.stream_stream(*arguments, **named) for channel in self._channels])

    async def close(self, grace: float | None = None) -> None:
        for channel in self._channels:
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._channels[self._at].get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._channels[self._at].wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            if state in _UNREACHABLE:
                self._turn()
            else:
                await self.wait_for_state_change(state)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    def _each(self, calls: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.get_state() in _UNREACHABLE:
                self._turn()
            return calls[self._at](*arguments, **named)

        return call

    def _turn(self) -> None:
        self._at = (self._at + 1) % len(self._channels)
