"""Whatever a site sends, the coordinator answers with a status and a reason, in bounded memory, and the round goes on.

The cases are counted: each property runs ``BATCH`` of them, lets an honest site finish the round, and begins again.
"""

import asyncio
import gc
import hashlib
import random
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import torch

from tests.spoil import MIB, REALS, batches, spoil
from windfall.contracts.envelope import unseal
from windfall.contracts.events import ContributionRefused, RoundCompleted
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.federation import Policy
from windfall.federation_coordinator.firewall import Limits
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.rule import Rule
from windfall.lowcomm.wire import CODEC_IDS, HEADER_BYTES
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.rpc import connect, serve
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryServer, memory_channel

BATCH: Final = 25
EXAMPLES_EACH: Final = 4
LAYOUT = Layout((TensorSpec("embed", (40, 20)), TensorSpec("bias", (7,)), TensorSpec("seen", (3,), exact=True)))
LIAR, HONEST = "site-a", "site-b"

REFUSALS: Final = {
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAVAILABLE,
}
"""What a site may hear. ``INTERNAL`` and ``UNKNOWN`` mean that something broke here."""
LONGEST_REASON: Final = 600
_CUT_SHORT: Final = "Internal error from Core"
"""What gRPC's own client says when an answer came before it had sent all: the server's status is lost on the way."""


async def at_once(work: Callable[..., Any], /, *arguments: object) -> Any:
    return work(*arguments)


class Door:
    """A coordinator that is knocked at, by a liar and by an honest site."""

    def __init__(self, folder: Path, codec: str, real: bool = False) -> None:
        self.folder = folder
        self.rule = Rule.parse(codec)
        self.real = real
        self.domain = MemoryDomain(HUB)
        self.heard: Counter[str] = Counter()
        self.cases = 0
        self.attempts: dict[str, int] = {}
        self._said: dict[tuple[int, int], bytes] = {}
        self._life = AsyncExitStack()

    async def open(self) -> None:
        journal = Journal(self.folder / "journal.sqlite", "/test")
        bus = MemoryBus(self.domain, "federation-coordinator", hub_streams((LIAR, HONEST)))
        self.stand = Stand("federation-coordinator", "demo", SystemClock(), journal, bus, Outbox(journal, bus))
        store = ModelStore(self.folder / "models", LAYOUT, self.rule)
        self.coordinator = Coordinator(
            self.stand,
            "demo",
            Model("toy", "{}", LAYOUT),
            Policy(None, 1, timedelta(minutes=5), None),
            store,
            store.initialise(torch.zeros(LAYOUT.elements)),
            timedelta(hours=1),
            at_once,
            follows_links=True,
            # So that it goes on being heard.
            limits=Limits(norm_factor=None, refusals=None),
        )
        service = TrainingService(self.coordinator, (LIAR, HONEST))
        if self.real:
            server = await serve("127.0.0.1:0", [partial(register, service)])
            channel = connect(f"127.0.0.1:{server.port}")
            self._life.push_async_callback(server.stop, timedelta(0))
        else:
            memory = MemoryServer()
            register(service, memory)
            channel = memory_channel(memory)
            self._life.push_async_callback(memory.kill)
        self._life.push_async_callback(channel.close)
        self.stub = TrainingStub(channel)
        self.coordinator.attend()
        await self.stand.rise()
        for site in (LIAR, HONEST):
            await self.join(site)

    async def close(self) -> None:
        await self._life.aclose()
        self.coordinator.rest()
        await self.stand.lie_down()

    async def join(self, site: str) -> None:
        token = self.coordinator.state.lease_tokens.get(site, 1)
        asked = pb.JoinRequest(federation="demo", site=site, window_id=str(uuid4()), lease_token=token, protocol=1)
        self.attempts[site] = (await self.stub.Join(asked)).attempt

    def message(self, seed: int) -> bytes:
        """What a site says in the round that runs; each once."""
        place = (self.coordinator.state.round, seed)
        if place not in self._said:
            self._said = {place: self._encoded(seed)} | {
                at: said for at, said in self._said.items() if at[0] == place[0]
            }
        return self._said[place]

    def _encoded(self, seed: int) -> bytes:
        number = self.coordinator.state.round
        # What was accepted in one round is refused in the next one.
        gradient = torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(1000 * number + seed))
        state = self.rule.codec.init(LAYOUT.split.trained)
        return self.rule.encode(state, gradient, LAYOUT.split, base=number, tokens=100, steps=1)[1]

    def manifest(self, data: bytes, site: str = LIAR) -> pb.Manifest:
        state = self.coordinator.state
        return pb.Manifest(
            key=pb.ContributionKey(federation="demo", site=site, round=state.round, attempt=self.attempts[site]),
            lease_token=state.lease_tokens[site],
            base_digest=state.base_digest,
            codec=self.rule.codec.name,
            tokens=100,
            steps=1,
            loss=2.5,
            total_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            tensors=[
                pb.Tensor(name=one.name, shape=one.shape, dtype="float32", exact=one.exact) for one in LAYOUT.tensors
            ],
        )

    async def knock(self, call: Callable[[], Awaitable[Any]]) -> str:
        """One case: it is answered, or refused with a status and a reason; ``accepted`` or the status's name."""
        self.cases += 1
        try:
            async with asyncio.timeout(60):
                await call()
            said = "accepted"
        except grpc.aio.AioRpcError as error:
            if self.real and error.details() == _CUT_SHORT:
                self.heard["CUT_SHORT"] += 1
                return "CUT_SHORT"
            said, reason = error.code().name, error.details() or ""
            assert error.code() in REFUSALS, (said, reason[:2000])
            assert 0 < len(reason) <= LONGEST_REASON, (said, reason[:2000])
        self.heard[said] += 1
        assert self.stand.mistake is None, self.stand.mistake
        return said

    async def push(self, frames: Sequence[pb.PushFrame]) -> str:
        async def streamed() -> AsyncIterator[pb.PushFrame]:
            for frame in frames:
                yield frame

        said = await self.knock(lambda: self.stub.Push(streamed()))
        if said == "accepted":
            await self.join(LIAR)
        return said

    async def round_goes_on(self) -> None:
        """The honest site trains on, and the round is merged."""
        before = self.coordinator.state.round
        await self.join(HONEST)
        data = self.message(7)
        async with asyncio.timeout(60):
            while self.coordinator.state.round == before:
                await self.stub.Push(_each(whole(self.manifest(data, HONEST), data)))
                await self._leave_alone(before)
        await self.join(LIAR)

    async def _leave_alone(self, before: int) -> None:
        """The liar goes, and nobody waits for it any more."""
        state = self.coordinator.state
        for site in set(state.members) - {HONEST}:
            self.coordinator.leave(site, state.members[site].attempt)
        while self.coordinator.state.round == before:  # noqa: ASYNC110 - nothing tells a test that it has merged
            await asyncio.sleep(0)

    def events(self, kind: type[Any]) -> list[Any]:
        return [event for event in map(unseal, self.domain.letters(EVENTS_STREAM)) if isinstance(event, kind)]


async def _each(frames: Sequence[pb.PushFrame]) -> AsyncIterator[pb.PushFrame]:
    for frame in frames:
        yield frame


def whole(manifest: pb.Manifest, data: bytes, piece: int = 512) -> list[pb.PushFrame]:
    pieces = [pb.PushFrame(data=data[start : start + piece]) for start in range(0, len(data), piece)]
    return [pb.PushFrame(manifest=manifest), *pieces]


@contextmanager
def opened(folder: Path, codec: str = "topk-ef", real: bool = False) -> Iterator[tuple[Door, asyncio.Runner]]:
    with asyncio.Runner() as runner:
        door = Door(folder, codec, real)
        runner.run(door.open())
        try:
            yield door, runner
        finally:
            runner.run(door.close())


# --- liars ------------------------------------------------------------------------------------------------------------


async def strange_manifest(door: Door, dice: random.Random) -> None:
    data = door.message(dice.randrange(3))
    manifest = door.manifest(data)
    spoil(manifest, dice, dice.choice((1, 1, 1, 2, 5)))
    await door.push(whole(manifest, data, dice.choice((100, 512, 5000))))


async def strange_frames(door: Door, dice: random.Random) -> None:
    """Order, number and size of frames."""
    data = door.message(dice.randrange(3))
    frames = whole(door.manifest(data), data, 97)
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(frames) + 1)
        match dice.randrange(8):
            case 0:
                del frames[at:]
            case 1:
                frames.insert(at, pb.PushFrame(manifest=door.manifest(data)))
            case 2:
                frames.insert(at, pb.PushFrame())
            case 3:
                frames[at:at] = [pb.PushFrame(data=b"")] * dice.choice((1, 200))
            case 4:
                frames.insert(at, pb.PushFrame(data=bytes(dice.choice((1, 97, 3 * MIB)))))
            case 5:
                dice.shuffle(frames)
            case 6:
                frames = frames[:1] + frames[:0:-1]
            case _:
                frames.append(pb.PushFrame(data=data[: dice.randrange(1, len(data))]))
    await door.push(frames)


async def strange_content(door: Door, dice: random.Random) -> None:
    """Bytes that are what the manifest says, and not what a codec writes."""
    data = bytearray(door.message(dice.randrange(3)))
    for _ in range(dice.choice((1, 1, 2, 6))):
        match dice.randrange(8):
            case 0:  # a bomb: counts of the header
                at = dice.choice((8, 16, 40))
                struct.pack_into("<I" if at != 16 else "<Q", data, at, dice.choice((0, 1, 2**16, 2**31, 2**32 - 1)))
            case 1:  # another version, codec, flag
                data[dice.randrange(4, 8)] = dice.randrange(256)
            case 2:  # base, tokens, steps
                struct.pack_into("<I", data, dice.choice((12, 24, 32)), dice.choice((0, 1, 2**31, 2**32 - 1)))
            case 3:
                data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            case 4:  # counts inside the payload
                at = min(len(data) - 1, HEADER_BYTES + dice.randrange(24))
                data[at : at + 4] = struct.pack("<I", dice.choice((0, 1, 2**16 - 1, 2**31, 2**32 - 1)))[
                    : len(data) - at
                ]
            case 5:
                data = data[: dice.randrange(HEADER_BYTES, len(data) + 1)]
            case 6:
                data += bytes(dice.choice((1, 48, 999)))
            case _:
                at = dice.randrange(len(data))
                data[at : at + 8] = struct.pack("<2f", dice.choice(REALS[:4]), dice.choice((3e38, -3e38, nan)))
        if len(data) < HEADER_BYTES:
            data += bytes(HEADER_BYTES)
    mend_checksum(data)
    await door.push(whole(door.manifest(bytes(data)), bytes(data), 5000))


def mend_checksum(data: bytearray) -> None:
    """What the header says of its payload is true again, so that more than the checksum is asked."""
    (size,) = struct.unpack_from("<I", data, 40)
    if len(data) >= HEADER_BYTES + size:
        payload = data[HEADER_BYTES : HEADER_BYTES + size]
        struct.pack_into("<I", data, 44, zlib.crc32(payload, zlib.crc32(data[:44])))


async def strange_join(door: Door, dice: random.Random) -> None:
    token = door.coordinator.state.lease_tokens[LIAR]
    asked = pb.JoinRequest(federation="demo", site=LIAR, window_id=str(uuid4()), lease_token=token, protocol=1)
    spoil(asked, dice, dice.choice((1, 1, 2, 3)))
    if asked.site == HONEST:
        # Who may say so is a question of certificates.
        return
    await door.knock(lambda: door.stub.Join(asked))
    await door.join(LIAR)


async def strange_beat(door: Door, dice: random.Random) -> None:
    attempt = door.attempts[LIAR]
    beats = [
        pb.Beat(federation="demo", site=LIAR, attempt=attempt, round=door.coordinator.state.round, steps=n, tokens=n)
        for n in (1, 2, 3)
    ]
    for beat in beats[dice.randrange(2) :]:
        spoil(beat, dice, dice.choice((1, 2)))

    async def beating() -> AsyncIterator[pb.Beat]:
        for beat in beats:
            yield beat
            await asyncio.sleep(0)

    async def listened() -> None:
        call = door.stub.Heartbeat(beating())
        async for _ in call:
            break
        call.cancel()

    await door.knock(listened)


async def strange_pull(door: Door, dice: random.Random) -> None:
    base = door.coordinator.state.base_digest
    asked = pb.PullRequest(federation="demo", site=LIAR, attempt=door.attempts[LIAR], base_digest=base, follow=True)
    spoil(asked, dice, dice.choice((1, 1, 2, 3)))

    async def pulled() -> None:
        async for _ in door.stub.Pull(asked):
            pass

    await door.knock(pulled)


async def strange_question(door: Door, dice: random.Random) -> None:
    key = door.manifest(b"").key
    spoil(key, dice, dice.choice((1, 2)))
    await door.knock(lambda: door.stub.Progress(key))


async def strange_rows(door: Door, dice: random.Random) -> None:
    token = door.coordinator.state.lease_tokens[LIAR]
    asked = pb.RowsRequest(federation="demo", site=LIAR, attempt=door.attempts[LIAR], lease_token=token, hold=9)
    spoil(asked, dice, dice.choice((1, 2)))
    await door.knock(lambda: door.stub.Rows(asked))


async def strange_goodbye(door: Door, dice: random.Random) -> None:
    asked = pb.LeaveRequest(federation="demo", site=LIAR, attempt=door.attempts[LIAR] + 1, reason="so")
    spoil(asked, dice, dice.choice((1, 2, 3)))
    await door.knock(lambda: door.stub.Leave(asked))
    await door.join(LIAR)


def _lie(runner: asyncio.Runner, door: Door, liars: "Sequence[Liar]", first: int, seed: int) -> None:
    runner.run(lied(door, liars, f"{first}/{seed}"))


@dataclass
class Knocked:
    """What came of it."""

    cases: int = 0
    heard: Counter[str] = field(default_factory=Counter)
    reasons: set[str] = field(default_factory=set)


Liar = Callable[[Door, random.Random], Awaitable[None]]
TALKERS: Final[tuple[Liar, ...]] = (
    strange_join,
    strange_beat,
    strange_pull,
    strange_question,
    strange_rows,
    strange_goodbye,
)


async def lied(door: Door, liars: Sequence[Liar], seed: object) -> None:
    dice = random.Random(str(seed))
    for number in range(BATCH):
        await liars[number % len(liars)](door, dice)
    await door.round_goes_on()


def run(
    folder: Path, liars: Sequence[Liar], examples: int, codec: str = "topk-ef", real: bool = False, part: int = 0
) -> Knocked:
    """As many batches; every one of them ends with a round that is merged. Now and then another coordinator answers,
    because the double of the bus looks through all that it holds."""
    knocked = Knocked()
    for first in range(part * examples, (part + 1) * examples, EXAMPLES_EACH):
        count = min(EXAMPLES_EACH, (part + 1) * examples - first)
        with opened(folder / str(first), codec, real) as (door, runner):
            batches(count, partial(_lie, runner, door, liars, first))
            runner.run(door.stand.outbox.emptied())
            assert len(door.events(RoundCompleted)) >= count
            knocked.cases += door.cases
            knocked.heard += door.heard
            knocked.reasons |= {event.reason for event in door.events(ContributionRefused)}
    return knocked


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: thousands of commits to a disk are what this is not about."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


# --- properties -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(6))
def test_a_manifest_with_anything_in_it_is_refused_with_a_reason(folder: Path, part: int) -> None:
    door = run(folder, [strange_manifest], 20, part=part)
    assert door.cases >= 20 * BATCH
    assert door.heard["INVALID_ARGUMENT"] and door.heard["NOT_FOUND"] and door.heard["FAILED_PRECONDITION"]
    assert len(door.reasons) >= 6, door.reasons


@pytest.mark.parametrize("part", range(3))
def test_frames_in_any_order_number_and_size_are_refused_with_a_reason(folder: Path, part: int) -> None:
    assert run(folder, [strange_frames], 18, part=part).cases == 18 * BATCH


@pytest.mark.parametrize("codec", CODEC_IDS)
def test_bytes_that_no_codec_writes_are_refused_with_a_reason(folder: Path, codec: str) -> None:
    assert run(folder, [strange_content], 18, codec).cases == 18 * BATCH


def test_every_other_question_is_answered_or_refused_with_a_reason(folder: Path) -> None:
    run(folder, TALKERS, 60)


def test_over_real_grpc_it_is_the_same(folder: Path) -> None:
    run(folder, [strange_manifest, strange_frames, strange_content, *TALKERS], 12, real=True)


def test_memory_is_bounded_whatever_counts_are_claimed(folder: Path) -> None:
    with opened(folder) as (door, runner):
        runner.run(lied(door, [strange_content], 0))
        gc.collect()
        tracemalloc.start()
        try:
            for seed in range(3):
                runner.run(lied(door, [strange_content, strange_manifest, strange_frames], seed))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The largest frame has 3 MiB, and a few copies of it are alive at once.
    assert peak < 24 * MIB, peak
