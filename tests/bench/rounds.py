"""Rounds without training: what is left is what a round costs. A real coordinator process, sites as bare clients.

Each site takes the base, as the log of what the others said where the codec has one, pushes a contribution that was
encoded before the clock ran, and waits for the next round. Digests are on: every site holds the base that it got
against the round's, and hashes what it sends within the round.
"""

import asyncio
import hashlib
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from tests.bench.hub import FEDERATION, Hub
from tests.bench.processes import cpu_s, peak_resident, resident
from tests.bench.shared_bytes import SharedBytes
from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import connect
from windfall.servicekit.telemetry import span
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.tls import Tls
from windfall.site_trainer.bulk import BulkStub
from windfall.site_trainer.coordinator import CoordinatorLink, Membership, tensors_of
from windfall.site_trainer.replica import Replica, follow, of_snapshot, sha256, snapshot_bytes

MODELS = {
    "smallest": {"preset": "tiny", "width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5},
    "tiny": {"preset": "tiny"},
    "40 MB": {"preset": "10m"},
    "100 MB": {"preset": "10m", "width": 512, "heads": 8, "layers": 8},
    "500 MB": {"preset": "10m", "width": 1024, "heads": 16, "layers": 10},
}
"""Settings of GPT-NeoX by what it has of float32."""

_KEEP_UP_TO: int = 10
"""Sites of one measurement beyond which they hash what comes down and drop it: the machine has no room for all."""
_REST_S = 0.1


@dataclass(frozen=True)
class Rounds:
    """What was seen."""

    model_bytes: int
    seconds: list[float]
    """Of each round, from the first site's opening to the last site's next opening."""
    coordinator_cpu_s: float
    """Per round."""
    sites_cpu_s: float
    """Of all of them, per round."""
    resident_before: int
    resident_peak: int
    bytes_up: float
    """Per site and round."""
    bytes_down: float
    most_bytes_up: int
    """Of one site in one round."""

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds)

    @property
    def memory_x_model(self) -> float:
        """Beyond what it holds when it is idle."""
        return (self.resident_peak - self.resident_before) / self.model_bytes


class Site:
    """A member that does not train."""

    def __init__(self, name: str, address: str, keeps: bool = True, tls: Tls | None = None) -> None:
        self.name = name
        channel = connect(address, tls)
        self.link = CoordinatorLink(channel, FEDERATION, name)
        self._bulk = BulkStub(channel)
        self._keeps = keeps
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
                await asyncio.sleep(_REST_S)
        self.listening = asyncio.create_task(self._listen())
        return self.membership

    async def close(self) -> None:
        self.listening.cancel()
        await self.link.close()

    async def _listen(self) -> None:
        def beat() -> pb.Beat:
            return pb.Beat(federation=FEDERATION, site=self.name, attempt=self.membership.attempt)

        while True:
            try:
                async for directive in self.link.directives(beat, self.membership.heartbeat_s):
                    if directive.WhichOneof("kind") == "round_opened":
                        self.opened.put_nowait(directive.round_opened)
            except Transient:
                await asyncio.sleep(_REST_S)

    def speak(self, number: int, gradient: Tensor) -> bytes:
        """A contribution to a round, of what it synchronises, without error feedback: a gradient that is a bit longer
        in each, because what was said before is refused."""
        rule, turns = self.membership.rule, self.membership.rotation
        elements, part = turns.split(number), turns.part(number)
        state = rule.codec.init(elements.trained)
        longer = gradient[part] * (1 + number / 1024)
        return rule.encode(state, longer, elements, base=number, tokens=1000, steps=1)[1]

    async def round(self, word: pb.RoundOpened, data: bytes | SharedBytes) -> None:
        """Take the base and push."""
        # The trainer's own spans.
        with span("pull", attributes={"windfall.round": word.round}):
            await (self._base(word) if self._keeps else self._skim(word))
        with span("contribution", attributes={"windfall.round": word.round, "windfall.site": self.name}):
            await self._tell(word, data)

    async def _tell(self, word: pb.RoundOpened, data: bytes | SharedBytes) -> None:
        if isinstance(data, SharedBytes):
            digest = await asyncio.to_thread(lambda: data.sha256)
            await self.link.push(self.manifest(word, digest, len(data)), data.as_view())
            return
        digest = await asyncio.to_thread(sha256, data)
        await self.link.push(self.manifest(word, digest, len(data)), memoryview(data))
        self.own = {digest: data} if self.membership.rotation.followed(self.membership.rule) else {}

    def manifest(self, word: pb.RoundOpened, digest: str, nbytes: int) -> pb.Manifest:
        return pb.Manifest(
            key=pb.ContributionKey(
                federation=FEDERATION, site=self.name, round=word.round, attempt=self.membership.attempt
            ),
            lease_token=1,
            base_digest=word.base_digest,
            codec=self.membership.rule.codec.name,
            tokens=1000,
            steps=1,
            loss=1.0,
            total_bytes=nbytes,
            sha256=digest,
            tensors=tensors_of(self.membership.layout),
        )

    async def _base(self, word: pb.RoundOpened) -> None:
        rule, turns = self.membership.rule, self.membership.rotation
        held = self.replica if turns.followed(rule) else None
        download = await self.link.pull(
            self.membership.attempt,
            word.base_digest,
            word.base_bytes,
            snapshot_bytes(rule, turns),
            held="" if held is None else held.digest,
            own=next(iter(self.own), ""),
        )
        self.bytes_down += download.data.nbytes
        if held is not None and download.log:
            self.replica = await asyncio.to_thread(follow, held, download.data, word.base_digest, rule, turns, self.own)
        else:
            self.replica = of_snapshot(download.data, word.base_digest, rule, turns)

    async def _skim(self, word: pb.RoundOpened) -> None:
        sha = hashlib.sha256()
        request = pb.PullRequest(
            federation=FEDERATION, site=self.name, attempt=self.membership.attempt, base_digest=word.base_digest
        )
        async for data in self._bulk.pull(request):
            if isinstance(data, memoryview):
                self.bytes_down += len(data)
                sha.update(data)
        if sha.hexdigest() != word.base_digest:
            raise RuntimeError("the base does not have its digest")


async def run(
    folder: Path,
    model: str,
    sites: int,
    rounds: int,
    codec: str = "fp32",
    outer: str = "",
    fragments: int = 1,
    turn: Callable[[], Awaitable[None]] | None = None,
    authority: Authority | None = None,
) -> Rounds:
    """Measure rounds of ``sites`` members after one warm-up round.

    Args:
        model: one of ``MODELS``.
        fragments: of it, of which each round synchronises one.
        turn: awaited before each round.
        authority: certifies both ends; none leaves the wire plain.
    """
    torch.set_num_threads(1)
    told = {
        "WINDFALL_TASK_SETTINGS": json.dumps(MODELS[model]),
        "WINDFALL_ROUND_LENGTH": "3600",
        "WINDFALL_ROUND_STEPS": "1",
        "WINDFALL_CODEC": codec,
        "WINDFALL_OUTER": outer,
        "WINDFALL_FRAGMENTS": str(fragments),
        "WINDFALL_MINIMUM_SITES": str(sites),
        # All sites are one process here, which encodes for seconds while their hearts cannot beat.
        "WINDFALL_SILENCE": "60",
    }
    tls = None
    if authority is not None:
        tls, ours = authority.issue("site"), authority.issue("hub")
        told |= {
            "WINDFALL_TLS_CERTIFICATE": str(ours.certificate),
            "WINDFALL_TLS_KEY": str(ours.key),
            "WINDFALL_TLS_AUTHORITY": str(ours.authority),
        }
    async with Hub(folder, told) as hub:
        keeps = sites <= _KEEP_UP_TO
        members = [Site(f"site-{number:03d}", hub.address, keeps, tls) for number in range(sites)]
        first = await members[0].join()
        await asyncio.gather(*(member.join() for member in members[1:]))
        elements = first.layout.elements
        gradients = [torch.randn(elements).mul_(1e-3) for _ in (members if keeps else members[:1])]
        before = resident(hub.pid)
        seconds, up, down, most, cpu, own_cpu = [], 0, 0, 0, 0.0, 0.0
        words = await asyncio.gather(*(member.opened.get() for member in members))
        for number in range(rounds + 1):
            # Encoding is training's neighbour, not the round's: where sites overlap it, nobody waits for it.
            spoken = [
                member.speak(words[0].round, gradient) for member, gradient in zip(members, gradients, strict=False)
            ]
            data: Sequence[bytes | SharedBytes] = (
                spoken if keeps else [SharedBytes(spoken[0], number) for number in range(sites)]
            )
            if turn is not None:
                await turn()
            already = sum(member.bytes_down for member in members)
            started, used, own_used = time.perf_counter(), cpu_s(hub.pid), cpu_s(os.getpid())
            await asyncio.gather(
                *(member.round(word, own) for member, word, own in zip(members, words, data, strict=True))
            )
            words = await asyncio.gather(*(member.opened.get() for member in members))
            if number:
                seconds.append(time.perf_counter() - started)
                cpu, own_cpu = cpu + cpu_s(hub.pid) - used, own_cpu + cpu_s(os.getpid()) - own_used
                up, down = up + sum(map(len, data)), down + sum(member.bytes_down for member in members) - already
                most = max(most, *map(len, data))
        for member in members:
            await member.close()
        return Rounds(
            elements * 4,
            seconds,
            cpu / rounds,
            own_cpu / rounds,
            before,
            peak_resident(hub.pid),
            up / sites / rounds,
            down / sites / rounds,
            most,
        )
