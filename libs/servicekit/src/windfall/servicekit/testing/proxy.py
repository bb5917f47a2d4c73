"""A link between a client and a server on loopback, as slow, thin, broken or noisy as somebody asks for.

TCP in, TCP out: whoever connects to :attr:`Proxy.address` reaches the server behind it, and what passes is counted.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

_READ_BYTES: Final = 64 * 1024


@dataclass
class Way:
    """One direction of the link."""

    nbytes: int = 0
    """That have passed."""
    cut_at: int | None = None
    """The link is cut, once, before its byte of this number would pass."""
    spoil: Callable[[bytes], bytes] | None = None
    """Changes what passes; what it makes into nothing is lost, and TCP tells nobody."""
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """Cleared, nothing passes, and TCP holds the sender."""

    def __post_init__(self) -> None:
        self.open.set()


class Proxy:
    """See the module. Enter it to listen.

    Args:
        target: ``host:port`` of the server.
        round_trip: added to every round trip, half of it each way.
        bytes_per_s: that pass each way, over all connections; none is as many as there are.
    """

    def __init__(self, target: str, round_trip: timedelta = timedelta(0), bytes_per_s: float | None = None) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._delay_s = round_trip.total_seconds() / 2
        self._rate = bytes_per_s
        self.up, self.down = Way(), Way()
        self._free_at = {id(self.up): 0.0, id(self.down): 0.0}
        self.connections = 0
        """Ever accepted."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def standing(self) -> int:
        """Connections that stand now."""
        return len(self._writers) // 2

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def become(self, round_trip: timedelta, bytes_per_s: float | None) -> None:
        """Be as long and as thin as this from now on; what is on its way arrives as it would have."""
        self._delay_s, self._rate = round_trip.total_seconds() / 2, bytes_per_s

    def cut(self) -> None:
        """Break every connection; new ones are taken."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            back, there = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, there}
        ways = [self._carry(self.up, reader, there), self._carry(self.down, back, writer)]
        tasks = [asyncio.create_task(way) for way in ways]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, there):
            end.transport.abort()
        await asyncio.wait(tasks)
        self._tasks.difference_update(tasks)
        self._writers -= {writer, there}

    async def _carry(self, way: Way, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until either end is gone. Bytes on their way wait in a queue that holds what the link itself would."""
        in_flight = asyncio.Queue[tuple[float, bytes]](self._capacity())
        leaving = asyncio.create_task(self._leave(way, reader, in_flight))
        arriving = asyncio.create_task(self._arrive(in_flight, writer))
        try:
            await asyncio.wait([leaving, arriving], return_when=asyncio.FIRST_COMPLETED)
            if leaving.done():
                # What has left still arrives.
                await asyncio.wait([arriving])
        finally:
            for half in (leaving, arriving):
                half.cancel()
            await asyncio.gather(leaving, arriving, return_exceptions=True)

    async def _leave(
        self, way: Way, reader: asyncio.StreamReader, in_flight: "asyncio.Queue[tuple[float, bytes]]"
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(_READ_BYTES):
                await way.open.wait()
                if way.cut_at is not None and way.nbytes + len(data) > way.cut_at:
                    way.cut_at = None
                    self.cut()
                    break
                way.nbytes += len(data)
                if passing := data if way.spoil is None else way.spoil(data):
                    await in_flight.put((self._at(way, len(data)), passing))
        await in_flight.put((0.0, b""))

    async def _arrive(self, in_flight: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time
        with suppress(ConnectionError):
            while True:
                at, data = await in_flight.get()
                if not data:
                    return
                if (wait := at - now()) > 0:
                    await asyncio.sleep(wait)
                writer.write(data)
                await writer.drain()

    def _at(self, way: Way, nbytes: int) -> float:
        """When so many bytes more have passed."""
        now = asyncio.get_running_loop().time()
        if self._rate is None:
            return now + self._delay_s if self._delay_s else 0.0
        self._free_at[id(way)] = max(now, self._free_at[id(way)]) + nbytes / self._rate
        return self._free_at[id(way)] + self._delay_s

    def _capacity(self) -> int:
        """Reads that are in flight on a link of this length, and as much again in the buffers of its routers."""
        if self._rate is None:
            return 1024 if self._delay_s else 4
        return max(4, int(2 * self._rate * self._delay_s / _READ_BYTES))
