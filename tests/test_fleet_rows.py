"""A shared corpus under churn, on virtual time and from a seed: every row counts once per epoch, whatever happens."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from tests import invariants
from tests.fleet import FEDERATION, Fleet, standing
from tests.wiring import MemoryWiring
from windfall.contracts.events import ContributionAccepted
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.contracts.v1 import training_pb2 as pb
from windfall.energy.shipped import synthetic_trace
from windfall.federation_coordinator.corpus import Corpus
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.testing.memory_rpc import MemoryChannel, MemoryServer
from windfall.servicekit.testing.virtual import run_virtual
from windfall.tasks.ranges import size

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c")
ROWS = 397
"""Of an epoch: so that no block, no step and no round ends where an epoch does."""
BLOCK = 30
"""No multiple of a step's eight rows: some steps are shorter."""


class Unreliable(MemoryChannel):
    """A site's way to the coordinator, with one fault in store for its next contribution or lease."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.next = ""
        """``duplicate``, ``spoil``, ``steal``, ``lose receipt`` or ``lose lease``."""
        self.lag_s = 0.0
        """That every contribution takes."""

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        call = super().stream_unary(method, request_serializer, response_deserializer)

        async def push(requests: Any, **given: Any) -> Any:
            await asyncio.sleep(self.lag_s)
            frames = [frame async for frame in requests]
            fault, self.next = self.next, ""
            if fault == "spoil" and len(frames) > 1:
                frames[-1] = pb.PushFrame(data=bytes(len(pb.PushFrame.FromString(frames[-1]).data)))
            if fault == "steal":
                end = frames[0].manifest.rows[-1].end
                frames[0].manifest.rows.append(pb.RowRange(begin=end + 1, end=end + 500))
            receipt = await call(frames, **given)
            if fault == "duplicate":
                receipt = await call(frames, **given)
            if fault == "lose receipt":
                raise away("the receipt is lost")
            return receipt

        return push

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        call = super().unary_unary(method, request_serializer, response_deserializer)
        if not method.endswith("/Rows"):
            return call

        async def rows(request: Any, **given: Any) -> Any:
            reply = await call(request, **given)
            if self.next == "lose lease":
                self.next = ""
                raise away("the lease is lost")
            return reply

        return rows


def away(detail: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), detail)


class UnreliableWiring(MemoryWiring):
    lag_s = 0.0

    def channel(self, site: str) -> grpc.aio.Channel:
        channel = self.channels[site] = Unreliable(self.server)
        channel.lag_s = self.lag_s
        return cast(grpc.aio.Channel, cast(Any, channel))


class Mortal(Journal):
    """A coordinator's journal that ends it at a commit, before anything is kept or right after."""

    def __init__(self) -> None:
        super().__init__(None, f"/windfall/federation-coordinator/{FEDERATION}")
        self.left: int | None = None
        """Commits until then."""
        self.kept = False
        """Whether the last one is."""

    def commit(self, **decision: Any) -> None:
        if self.left is None:
            return super().commit(**decision)
        self.left = max(0, self.left - 1)
        if self.left or self.kept:
            super().commit(**decision)
        if not self.left:
            self.kept = False
            raise Mistake("killed", "start again")
        return None


Fault = Callable[[Fleet, UnreliableWiring, str, random.Random], Awaitable[None]]


async def coordinator_dies_at_a_commit(fleet: Fleet, wiring: UnreliableWiring, site: str, dice: random.Random) -> None:
    journal = fleet.journals["federation-coordinator", FEDERATION]
    assert isinstance(journal, Mortal)
    journal.left, journal.kept = dice.randint(1, 12), dice.random() < 0.5
    for _ in range(60):
        await fleet.clock.sleep(timedelta(minutes=1))
        if not journal.left:
            break
    await fleet.kill_coordinator()
    journal.left = None
    await fleet.clock.sleep(timedelta(minutes=dice.choice((1, 6))))
    await fleet.start_coordinator()


async def trainer_dies(fleet: Fleet, wiring: UnreliableWiring, site: str, dice: random.Random) -> None:
    for node in await fleet.backends[site].adopt():
        await fleet.backends[site].kill(node)


async def trainer_leaves_early(fleet: Fleet, wiring: UnreliableWiring, site: str, dice: random.Random) -> None:
    if site in fleet.trainers:
        fleet.trainers[site].stop("told to leave")


async def site_goes_silent(fleet: Fleet, wiring: UnreliableWiring, site: str, dice: random.Random) -> None:
    """For long enough to be given up, or for a moment; before or after others had time to take its rows."""
    wiring.domains[HUB].cut(site)
    if site in wiring.channels:
        wiring.channels[site].cut()
    await fleet.clock.sleep(timedelta(minutes=dice.choice((1, 4, 25))))
    wiring.domains[HUB].heal(site)
    if site in wiring.channels:
        wiring.channels[site].heal()


async def something_is_lost_or_spoilt(fleet: Fleet, wiring: UnreliableWiring, site: str, dice: random.Random) -> None:
    if isinstance(channel := wiring.channels.get(site), Unreliable):
        channel.next = dice.choice(("duplicate", "spoil", "steal", "lose receipt", "lose lease"))


FAULTS: Sequence[Fault] = (
    coordinator_dies_at_a_commit,
    trainer_dies,
    trainer_leaves_early,
    site_goes_silent,
    something_is_lost_or_spoilt,
    something_is_lost_or_spoilt,
)


def day(
    folder: Path, seed: int, faults: int, rows: int = ROWS, block: int = BLOCK, lag: timedelta | None = None
) -> tuple[list[Message], Fleet]:
    """24 hours, with so many faults at random instants, one at a time.

    Args:
        lag: that every contribution takes; sites then train on meanwhile.
    """
    trace = folder / "trace.csv"
    trace.write_text("\n".join(synthetic_trace()) + "\n")
    wiring, dice = UnreliableWiring(), random.Random(seed)
    wiring.lag_s = (lag or timedelta(0)).total_seconds()

    async def live() -> tuple[list[Message], Fleet]:
        fleet = Fleet(
            folder,
            trace,
            SITES,
            LoopClock(MIDNIGHT),
            wiring,
            seed=seed,
            step=timedelta(minutes=2),
            straggler_grace=timedelta(minutes=3),
            corpus_rows=rows,
            corpus_block=block,
            overlap=lag is not None,
        )
        fleet.journals["federation-coordinator", FEDERATION] = Mortal()
        async with standing(fleet):
            for instant in sorted(dice.uniform(0.5, 23.0) for _ in range(faults)):
                await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=instant))
                await dice.choice(FAULTS)(fleet, wiring, dice.choice(sorted(fleet.trainers) or SITES), dice)
            await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=25))
            return list({event.id: event for event in await fleet.events()}.values()), fleet

    return run_virtual(live())


def corpus_of(fleet: Fleet) -> Corpus:
    corpus = fleet.journals["federation-coordinator", FEDERATION].load("corpus", Corpus)
    assert corpus is not None
    return corpus


def test_on_a_quiet_day_every_row_that_is_trained_counts(tmp_path: Path) -> None:
    events, fleet = day(tmp_path, seed=0, faults=0)
    invariants.check(events)
    epochs = invariants.check_rows(events, ROWS, fleet.trained)
    corpus = corpus_of(fleet)
    steps = [rows for site in SITES for rows in fleet.trained[site]]
    assert corpus.counted == sum(size(rows) for rows in steps), "none was trained in vain"
    assert epochs == (corpus.frontier - size(corpus.returned)) // ROWS > 30
    assert not corpus.held, "everybody has drained"


@pytest.mark.parametrize(
    ("seed", "lag"), [(0, None), (1, None), (2, None), (3, timedelta(minutes=4)), (4, timedelta(minutes=8))], ids=str
)
def test_whatever_happens_every_row_counts_once_per_epoch(seed: int, lag: timedelta | None, tmp_path: Path) -> None:
    events, fleet = day(tmp_path, seed=seed, faults=40, lag=lag)
    invariants.check(events)
    invariants.check_replicas(events, fleet.bases)
    epochs = invariants.check_rows(events, ROWS, fleet.trained)
    corpus = corpus_of(fleet)
    counted = sum(size(event.rows) for event in events if isinstance(event, ContributionAccepted))
    assert corpus.counted == counted, "the journal and what was said agree"
    assert len(corpus.tallies) <= 3, "no epoch is left behind"
    assert epochs > 8
