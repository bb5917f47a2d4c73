"""A TCP proxy in a site's way out that keeps every byte of both directions."""

import asyncio
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
_BLOCK = 64 * 1024


@dataclass
class Talk:
    """One connection: what the site said, and what it was told."""

    out: bytearray = field(default_factory=bytearray)
    back: bytearray = field(default_factory=bytearray)


class Tap:
    """Listens on a free loopback port and passes everything on."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.talks: list[Talk] = []
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Tap":
        self._server = await asyncio.start_server(self._accepted, LOOPBACK, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._to)
        except OSError:
            # As if nobody listened here: who called tries again.
            writer.close()
            return
        talk = Talk()
        self.talks.append(talk)
        try:
            await asyncio.gather(_pump(reader, far_writer, talk.out), _pump(far_reader, writer, talk.back))
        finally:
            for each in (writer, far_writer):
                each.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray) -> None:
    try:
        while block := await reader.read(_BLOCK):
            kept += block
            writer.write(block)
            await writer.drain()
    except ConnectionError:
        # One end is gone; the other is told below.
        pass
    finally:
        writer.close()
