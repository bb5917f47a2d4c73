"""Rounds without training: what is left is what a round costs. A real coordinator process, sites as bare clients.

Each site pulls the base, pushes a contribution of the model's size in fp32 and waits for the next round.
"""

import asyncio
import hashlib
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

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.errors import Transient
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.rpc import connect
from windfall.site_trainer.coordinator import CoordinatorLink, Membership, tensors_of

FEDERATION = "bench"


@dataclass(frozen=True)
class Rounds:
    """What was seen."""

    model_bytes: int
    seconds: list[float]
    """Of each round, from the first site's opening to the last site's next opening."""
    resident_before: int
    resident_peak: int

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

    async def round(self, word: pb.RoundOpened, data: memoryview, sha256: str) -> None:
        """Pull the base and push the same bytes as ever."""
        await self.link.pull(self.membership.attempt, word.base_digest, word.base_bytes)
        manifest = pb.Manifest(
            key=pb.ContributionKey(
                federation=FEDERATION, site=self.name, round=word.round, attempt=self.membership.attempt
            ),
            lease_token=1,
            base_digest=word.base_digest,
            codec=self.membership.codec,
            tokens=1000,
            steps=1,
            loss=1.0,
            total_bytes=data.nbytes,
            sha256=sha256,
            tensors=tensors_of(self.membership.layout),
        )
        await self.link.push(manifest, data)


async def run(folder: Path, preset: str, sites: int, rounds: int, codec: str = "fp32") -> Rounds:
    """Measure rounds of ``sites`` members after one warm-up round."""
    async with coordinator(folder, preset, codec) as (pid, port):
        members = [Site(f"site-{number}", port) for number in range(sites)]
        first = await members[0].join()
        await asyncio.gather(*(member.join() for member in members[1:]))
        elements = first.layout.elements
        data = (
            torch.randn(elements).to(torch.bfloat16).view(torch.int16).numpy().data.cast("B")
            if codec == "bf16"
            else torch.randn(elements).mul_(1e-3).numpy().data.cast("B")
        )
        sha256 = hashlib.sha256(data).hexdigest()
        before = resident(pid)
        seconds = []
        words = await asyncio.gather(*(member.opened.get() for member in members))
        for number in range(rounds + 1):
            started = time.perf_counter()
            await asyncio.gather(
                *(member.round(word, data, sha256) for member, word in zip(members, words, strict=True))
            )
            words = await asyncio.gather(*(member.opened.get() for member in members))
            if number:
                seconds.append(time.perf_counter() - started)
        for member in members:
            member.listening.cancel()
            await member.link.close()
        return Rounds(elements * 4, seconds, before, peak_resident(pid))


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
