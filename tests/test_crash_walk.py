"""Every place at which a coordinator can be killed: after a restart it is as if nothing had happened.

Two bare links stand for the sites; the processes, the bus and the disk are real.
"""

import asyncio
import hashlib
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import grpc
import grpc.aio
import nats
import pytest
import pytest_asyncio
import torch

from tests.zygote import Child, Zygote, zygote
from windfall.contracts.commands import StopFederation
from windfall.contracts.envelope import Letter, seal, unseal
from windfall.contracts.events import ContributionAccepted, FederationFinished, RoundCompleted, RoundEvaluated
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.federation_coordinator import crashpoints as coordinators
from windfall.federation_coordinator.checks import described
from windfall.lowcomm.layout import layout_of_model
from windfall.lowcomm.rule import Rule
from windfall.servicekit import crashpoint
from windfall.servicekit.natsserver import NatsServer, free_port
from windfall.servicekit.rpc import connect
from windfall.servicekit.testing.fixtures import started_server
from windfall.tasks.registry import load_task

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

T = TypeVar("T")

SETTINGS = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5}'
RULE = Rule.parse("int4-block", "nesterov:lr=0.7,momentum=0.9")
LAYOUT = layout_of_model(load_task("gpt-neox", SETTINGS).model(seed=11))
TOKENS = {"site-a": 300, "site-b": 100}
ROUNDS = 2
SECONDS = 60.0
PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN}

CHAINS = (
    (
        "file.written",
        "journal.written",
        "outbox.unsaid",
        "join.admitted",
        "push.first-byte",
        "accept.checked",
        "merge.begun",
        "merge.journaled",
        "export.written",
    ),
    (
        "file.synced",
        "journal.committed",
        "outbox.published",
        "push.begun",
        "push.sealed",
        "merge.stepped",
        "prune.removed",
        "leave.journaled",
    ),
    ("file.named", "outbox.marked", "push.received", "accept.journaled", "merge.done", "evaluation.done"),
    ("file.whole", "file.synced:7"),
    ("journal.written:9", "outbox.published:5"),
    ("finish.journaled", "journal.committed:4"),
)
"""Where one coordinator after the other dies, each in one federation and in the order in which they come by."""
TIME_BOXED = CHAINS[-1]
ON_DAMAGE = {"rebuild.planned", "rebuild.done", "fallback.laid"}
"""Walked in the coordinator's own tests, on a damaged disk."""


@dataclass
class Place:
    """What all walks share."""

    server: NatsServer
    zygote: Zygote
    folder: Path
    held_out: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("walk")
    held_out = folder / "held-out"
    held_out.mkdir()
    (held_out / "text.txt").write_text("To be, or not to be, that is the question: " * 4)
    async with started_server(folder / "nats", HUB) as server, zygote() as made:
        yield Place(server, made, folder, held_out)


@dataclass
class Walk:
    """One federation of two rounds, whose coordinator is started again whenever it dies.

    Args:
        crash_at: where each of its lives ends but the last.
    """

    place: Place
    name: str
    crash_at: tuple[str, ...]
    port: int = field(default_factory=free_port)
    deaths: int = 0
    child: Child | None = None
    bases: dict[int, str] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)

    @property
    def time_boxed(self) -> bool:
        return self.crash_at == TIME_BOXED

    @property
    def folder(self) -> Path:
        return self.place.folder / self.name

    async def alive(self) -> None:
        """Start the coordinator if it does not run."""
        if self.child is not None and not self.child.ended.done():
            return
        if self.child is not None:
            assert self.child.ended.result() == -signal.SIGKILL, self.child.log.read_text()[-2000:]
            self.deaths += 1
        environ = {
            "PATH": os.environ["PATH"],
            "WINDFALL_NATS_URL": self.place.server.url,
            "WINDFALL_STATE_DIR": str(self.folder),
            "WINDFALL_LISTEN": f"127.0.0.1:{self.port}",
            "WINDFALL_FEDERATION": self.name,
            "WINDFALL_SITES": ",".join(TOKENS),
            "WINDFALL_TASK_SETTINGS": SETTINGS,
            "WINDFALL_SEED": "11",
            "WINDFALL_CODEC": RULE.settings[0],
            "WINDFALL_OUTER": RULE.settings[1],
            **({"WINDFALL_ROUND_LENGTH": "3"} if self.time_boxed else {"WINDFALL_ROUND_STEPS": "1"}),
            "WINDFALL_SILENCE": "600",
            "WINDFALL_HELD_OUT_DIR": str(self.place.held_out),
            "WINDFALL_CRASH_AT": "".join(self.crash_at[self.deaths : self.deaths + 1]),
        }
        self.child = await self.place.zygote.start(
            "federation-coordinator", environ, self.place.folder / f"{self.name}.log"
        )

    async def insist(self, call: Callable[[Any], Awaitable[T]]) -> T:
        """Make a call until somebody answers it."""
        async with asyncio.timeout(SECONDS):
            while True:
                await self.alive()
                assert self.child is not None
                channel = connect(f"127.0.0.1:{self.port}")
                ready = asyncio.ensure_future(channel.channel_ready())
                try:
                    both: set[asyncio.Future[Any]] = {ready, self.child.ended}
                    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
                    if ready.done():
                        return await call(cast(Any, TrainingStub)(channel))
                except grpc.aio.AioRpcError as error:
                    assert error.code() in PASSING, error.details()
                    # It says UNAVAILABLE when it dies, and then it is dead in a moment.
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        await asyncio.wait({self.child.ended}, timeout=1.0)
                finally:
                    ready.cancel()
                    await channel.close()

    async def join(self, site: str) -> None:
        request = pb.JoinRequest(federation=self.name, site=site, window_id=str(uuid4()), lease_token=1, protocol=1)
        self.attempts[site] = (await self.insist(lambda stub: stub.Join(request))).attempt

    async def over(self, site: str, number: int) -> str:
        """Wait for a round, or for its end where time ends it, and give the digest of its base."""

        async def told(stub: Any) -> str:
            async def beats() -> AsyncIterator[pb.Beat]:
                yield pb.Beat(federation=self.name, site=site, attempt=self.attempts[site])
                await asyncio.Event().wait()

            digest, call = "", stub.Heartbeat(beats())
            try:
                while True:
                    said = await call.read()
                    if said is grpc.aio.EOF:
                        raise grpc.aio.AioRpcError(
                            await call.code(), grpc.aio.Metadata(), grpc.aio.Metadata(), await call.details()
                        )
                    if said.round_opened.base_digest and said.round_opened.round == number:
                        digest = str(said.round_opened.base_digest)
                        if not self.time_boxed:
                            return digest
                    if said.HasField("finish_round") and said.finish_round.round == number and digest:
                        return digest
            finally:
                call.cancel()

        return await self.insist(told)

    async def push(self, site: str, number: int, base: str) -> None:
        data = contribution(site, number)
        key = pb.ContributionKey(federation=self.name, site=site, round=number, attempt=self.attempts[site])

        async def pushed(stub: Any) -> None:
            progress = await stub.Progress(key)
            if progress.accepted:
                return
            manifest = pb.Manifest(
                key=key,
                lease_token=1,
                base_digest=base,
                codec=RULE.codec.name,
                tokens=TOKENS[site],
                steps=1,
                loss=2.5,
                total_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                tensors=described(LAYOUT),
                offset=progress.received_bytes,
            )

            async def frames() -> AsyncIterator[pb.PushFrame]:
                yield pb.PushFrame(manifest=manifest)
                for start in range(progress.received_bytes, len(data), 1024):
                    yield pb.PushFrame(data=data[start : start + 1024])

            await stub.Push(frames())

        await self.insist(pushed)

    async def whole(self) -> None:
        """From the first join to the last word."""
        for site in TOKENS:
            await self.join(site)
        for number in range(ROUNDS):
            for site in TOKENS:
                self.bases[number] = await self.over(site, number)
                await self.push(site, number, self.bases[number])
        leave = pb.LeaveRequest(federation=self.name, site="site-b", attempt=self.attempts["site-b"], reason="")
        await self.insist(lambda stub: stub.Leave(leave))
        client = await nats.connect(self.place.server.url)
        order = seal(StopFederation(id=uuid4(), at=datetime.now(UTC), federation=self.name, reason="asked"), "/test")
        await client.jetstream().publish(order.subject, order.body, headers=dict(order.headers))
        await client.close()
        leave = pb.LeaveRequest(federation=self.name, site="site-a", attempt=self.attempts["site-a"], reason="")
        await self.insist(lambda stub: stub.Leave(leave))

    async def history(self) -> list[Message]:
        """What the hub's stream holds of this federation, once it holds the last word."""
        client = await nats.connect(self.place.server.url)
        said: list[Message] = []
        try:
            listening = await client.jetstream().subscribe("windfall.v1.>", stream=EVENTS_STREAM, ordered_consumer=True)
            async with asyncio.timeout(SECONDS):
                while not any(isinstance(one, FederationFinished) for one in said):
                    await self.alive()
                    try:
                        raw = await listening.next_msg(timeout=0.2)
                    except nats.errors.TimeoutError:
                        continue
                    message = unseal(Letter(raw.subject, raw.headers or {}, raw.data))
                    if getattr(message, "federation", "") == self.name:
                        said.append(message)
        finally:
            await client.close()
        return said

    async def ended(self) -> None:
        """It may die once more behind its last word; then it is as quiet as one that did not."""
        if self.child is not None:
            self.child.signal(signal.SIGKILL)
            await self.child.ended


def contribution(site: str, number: int) -> bytes:
    seed = 10 * number + sorted(TOKENS).index(site)
    gradient = torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))
    state = RULE.codec.init(LAYOUT.split.trained)
    return RULE.encode(state, gradient, LAYOUT.split, base=number, tokens=TOKENS[site], steps=1)[1]


@asynccontextmanager
async def walked(place: Place, *crash_at: str) -> AsyncIterator[tuple[Walk, list[Message]]]:
    walk = Walk(place, "walk-" + re.sub("[^a-z0-9]", "-", crash_at[0] if crash_at else "undisturbed"), crash_at)
    try:
        await walk.whole()
        yield walk, await walk.history()
    finally:
        await walk.ended()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(place: Place) -> tuple[str, ...]:
    """The digests of the bases of a federation whose coordinator lives."""
    async with walked(place) as (walk, said):
        assert not walk.deaths
        return digests(said)


def digests(said: list[Message]) -> tuple[str, ...]:
    return tuple(one.model_digest for one in said if isinstance(one, RoundCompleted))


@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
async def test_killed_there_it_is_as_if_nothing_had_happened(
    chain: tuple[str, ...], place: Place, undisturbed: tuple[str, ...]
) -> None:
    async with walked(place, *chain) as (walk, said):
        assert chain[walk.deaths :] == (), "it never came by"
        assert digests(said) == undisturbed
        accepted = [(one.site, one.round) for one in said if isinstance(one, ContributionAccepted)]
        assert sorted(accepted) == [(site, number) for site in TOKENS for number in range(ROUNDS)]
        completed = [one for one in said if isinstance(one, RoundCompleted)]
        assert [(one.round, one.contributors, one.tokens) for one in completed] == [
            (number, tuple(TOKENS), sum(TOKENS.values())) for number in range(ROUNDS)
        ]
        (last,) = [one for one in said if isinstance(one, FederationFinished)]
        assert (last.model_digest, last.tokens_total) == (undisturbed[-1], ROUNDS * sum(TOKENS.values()))
        assert {one.round for one in said if isinstance(one, RoundEvaluated)} >= {ROUNDS}
        assert len({one.id for one in said}) == len(said)
        assert not list((walk.folder / "models").glob("*.tmp"))


async def test_every_place_is_walked() -> None:
    walked = {place.partition(":")[0] for chain in CHAINS for place in chain}
    assert walked == {*coordinators.POINTS, *crashpoint.KIT} - ON_DAMAGE


async def test_every_place_that_is_named_is_in_the_code_and_the_other_way_round() -> None:
    folder = Path(coordinators.__file__).parent
    reached = {name for path in folder.glob("*.py") for name in re.findall(r'reach\("([a-z.-]+)"\)', path.read_text())}
    assert reached == set(coordinators.POINTS)
