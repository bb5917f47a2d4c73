"""Rounds without training: what is left is what a round costs. A real coordinator process, sites as bare clients.

Each site takes the base, as the log of what the others said where the codec has one, pushes a contribution that was
encoded before the clock ran, and waits for the next round.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.errors import Transient
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.rpc import connect
from windfall.site_trainer.coordinator import CoordinatorLink, Membership, tensors_of
from windfall.site_trainer.replica import Replica, follow, of_snapshot, sha256, snapshot_bytes

FEDERATION = "bench"


@dataclass(frozen=True)
class Rounds:
    """What was seen."""

    model_bytes: int
    seconds: list[float]
    """Of each round, from the first site's opening to the last site's next opening."""
    resident_before: int
    resident_peak: int
    bytes_up: float
    """Per site, in the last round."""
    bytes_down: float

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def memory_x_model(self) -> float:
        return (self.resident_peak - self.resident_before) / self.model_bytes


@asynccontextmanager
async def coordinator(folder: Path, preset: str, codec: str) -> AsyncIterator[tuple[int, int]]:
    """A coordinator of its own; gives its pid and port."""
    server = NatsServer(ServerPlan("hub", free_port(), folder / "store"), folder)
    await server.start()
    port = free_port()
    environment = {
        **os.environ,
        "WINDFALL_NATS_URL": server.url,
        "WINDFALL_STATE_DIR": str(folder / "coordinator"),
        "WINDFALL_FEDERATION": FEDERATION,
        "WINDFALL_LISTEN": f"127.0.0.1:{port}",
        "WINDFALL_TASK_SETTINGS": f'{{"preset": "{preset}"}}',
        "WINDFALL_ROUND_LENGTH": "3600",
        "WINDFALL_ROUND_STEPS": "1",
        "WINDFALL_CODEC": codec,
        "WINDFALL_LOG_LEVEL": "WARNING",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "windfall.federation_coordinator", env=environment
    )
    try:
        yield process.pid, port
    finally:
        process.terminate()
        await process.wait()
        await server.stop()


class Site:
    """A member that does not train."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.link = CoordinatorLink(connect(f"127.0.0.1:{port}"), FEDERATION, name)
        self.opened: asyncio.Queue[pb.RoundOpened] = asyncio.Queue()
        self.replica: Replica | None = None
        self.own: dict[str, bytes] = {}
        self.bytes_down = 0

    async def join(self) -> Membership:
        self.window = uuid4()
        while True:
            try:
                self.membership = await self.link.join(self.window, 1)
                break
            except Transient:
                # The coordinator is still importing.
                await asyncio.sleep(0.2)
        self.listening = asyncio.create_task(self._listen())
        return self.membership

    async def _listen(self) -> None:
        def beat() -> pb.Beat:
            return pb.Beat(federation=FEDERATION, site=self.name, attempt=self.membership.attempt)

        async for directive in self.link.directives(beat, 1.0):
            if directive.WhichOneof("kind") == "round_opened":
                self.opened.put_nowait(directive.round_opened)

    def speak(self, number: int, gradient: Tensor) -> bytes:
        """A contribution to a round: the same gradient as ever, without error feedback."""
        rule, elements = self.membership.rule, self.membership.layout.split
        state = rule.codec.init(elements.trained)
        return rule.encode(state, gradient, elements, base=number, tokens=1000, steps=1)[1]

    async def round(self, word: pb.RoundOpened, data: bytes) -> None:
        """Take the base and push."""
        await self._base(word)
        manifest = pb.Manifest(
            key=pb.ContributionKey(
                federation=FEDERATION, site=self.name, round=word.round, attempt=self.membership.attempt
            ),
            lease_token=1,
            base_digest=word.base_digest,
            codec=self.membership.rule.codec.name,
            tokens=1000,
            steps=1,
            loss=1.0,
            total_bytes=len(data),
            sha256=sha256(data),
            tensors=tensors_of(self.membership.layout),
        )
        await self.link.push(manifest, memoryview(data))
        self.own = {manifest.sha256: data}

    async def _base(self, word: pb.RoundOpened) -> None:
        rule, elements = self.membership.rule, self.membership.layout.split
        held = self.replica if rule.followed else None
        download = await self.link.pull(
            self.membership.attempt,
            word.base_digest,
            word.base_bytes,
            snapshot_bytes(rule, elements),
            held="" if held is None else held.digest,
            own=next(iter(self.own), ""),
        )
        self.bytes_down += download.data.nbytes
        if held is not None and download.log:
            self.replica = await asyncio.to_thread(
                follow, held, download.data, word.base_digest, rule, elements, self.own
            )
        else:
            self.replica = of_snapshot(download.data, word.base_digest, rule, elements)


async def run(folder: Path, preset: str, sites: int, rounds: int, codec: str = "fp32") -> Rounds:
    """Measure rounds of ``sites`` members after one warm-up round."""
    torch.set_num_threads(1)
    async with coordinator(folder, preset, codec) as (pid, port):
        members = [Site(f"site-{number}", port) for number in range(sites)]
        first = await members[0].join()
        await asyncio.gather(*(member.join() for member in members[1:]))
        elements = first.layout.elements
        gradients = [torch.randn(elements).mul_(1e-3) for _ in members]
        before = resident(pid)
        seconds, up, down = [], 0, 0
        words = await asyncio.gather(*(member.opened.get() for member in members))
        data: list[bytes] = []
        for number in range(rounds + 1):
            # Encoding is training's neighbour, not the round's: where sites overlap it, nobody waits for it.
            told = zip(members, words, gradients, strict=True)
            data = [member.speak(word.round, gradient) for member, word, gradient in told]
            already = sum(member.bytes_down for member in members)
            started = time.perf_counter()
            await asyncio.gather(
                *(member.round(word, own) for member, word, own in zip(members, words, data, strict=True))
            )
            words = await asyncio.gather(*(member.opened.get() for member in members))
            if number:
                seconds.append(time.perf_counter() - started)
                up, down = sum(map(len, data)), sum(member.bytes_down for member in members) - already
        for member in members:
            member.listening.cancel()
            await member.link.close()
        return Rounds(elements * 4, seconds, before, peak_resident(pid), up / sites, down / sites)


def resident(pid: int) -> int:
    """Bytes that a process holds in memory now."""
    return _status(pid, "VmRSS")


def peak_resident(pid: int) -> int:
    """The most that it ever held."""
    return _status(pid, "VmHWM")


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)
