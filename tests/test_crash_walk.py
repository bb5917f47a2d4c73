"""Every place at which a coordinator can be killed: after a restart it is as if nothing had happened.

Two bare links stand for the sites; the processes, the bus and the disk are real.
"""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.links import FRAGMENTS, ROUNDS, SECONDS, TOKENS, Links, environ
from tests.zygote import Child, Zygote, zygote
from windfall.contracts.events import ContributionAccepted, FederationFinished, RoundCompleted, RoundEvaluated
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.federation_coordinator import crashpoints as coordinators
from windfall.servicekit import crashpoint
from windfall.servicekit.natsserver import NatsServer, free_port
from windfall.servicekit.testing.fixtures import started_server

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

CHAINS = (
    (
        "file.written",
        "journal.written",
        "join.admitted",
        "push.first-byte",
        "accept.checked",
        "merge.begun",
        "merge.journaled",
        "export.written",
        "outbox.unsaid",
    ),
    (
        "file.synced",
        "journal.committed",
        "push.begun",
        "push.sealed",
        "merge.stepped",
        "leave.journaled",
        "outbox.published",
    ),
    ("file.named", "push.received", "accept.journaled", "merge.done", "evaluation.done", "outbox.marked"),
    ("file.whole", "file.synced:7", "prune.removed"),
    ("journal.written:9", "outbox.published:5"),
    ("finish.journaled", "journal.committed:4"),
)
"""Where one coordinator after the other dies, each in one federation and in the order in which they come by. The bus
may be slower than the links: whatever concerns it comes last, where nothing goes on without it."""
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
        fragments: of the model. Where rounds synchronise one each, there is one round more: the first one moves again.
    """

    place: Place
    name: str
    crash_at: tuple[str, ...]
    fragments: int = 1
    deaths: int = 0
    child: Child | None = None

    def __post_init__(self) -> None:
        self.port = free_port()
        self.folder = self.place.folder / self.name
        target, url = f"127.0.0.1:{self.port}", self.place.server.url
        self.links = Links(
            self.name,
            target,
            url,
            self.alive,
            time_boxed=self.crash_at == TIME_BOXED,
            fragments=self.fragments,
            rounds=rounds_of(self.fragments),
        )

    async def alive(self) -> "asyncio.Future[int]":
        """Start the coordinator if it does not run."""
        if self.child is not None and not self.child.ended.done():
            return self.child.ended
        if self.child is not None:
            assert self.child.ended.result() == -signal.SIGKILL, self.child.log.read_text()[-2000:]
            self.deaths += 1
        box = {"WINDFALL_ROUND_LENGTH": "3"} if self.links.time_boxed else {"WINDFALL_ROUND_STEPS": "1"}
        told = {
            "PATH": os.environ["PATH"],
            **environ(self.name, self.place.server.url, self.folder, self.port),
            **box,
            "WINDFALL_HELD_OUT_DIR": str(self.place.held_out),
            "WINDFALL_FRAGMENTS": str(self.fragments),
            "WINDFALL_CRASH_AT": "".join(self.crash_at[self.deaths : self.deaths + 1]),
        }
        log = self.place.folder / f"{self.name}.log"
        self.child = await self.place.zygote.start("federation-coordinator", told, log)
        return self.child.ended

    async def exhausted(self) -> None:
        """What happens beside the last words may end a life behind them."""
        async with asyncio.timeout(SECONDS):
            while self.crash_at[self.deaths :]:
                await asyncio.wait({await self.alive()})

    async def tidied(self) -> None:
        """Whoever died last may have left something half-written: the next life clears it away."""
        async with asyncio.timeout(SECONDS):
            while list((self.folder / "models").glob("*.tmp")):
                await asyncio.wait({await self.alive()}, timeout=0.05)

    async def ended(self) -> None:
        """It may die once more behind its last word; then it is as quiet as one that did not."""
        if self.child is not None:
            self.child.signal(signal.SIGKILL)
            await self.child.ended


@asynccontextmanager
async def walked(place: Place, *crash_at: str, fragments: int = 1) -> AsyncIterator[tuple[Walk, list[Message]]]:
    name = f"walk-{fragments}-" + re.sub("[^a-z0-9]", "-", crash_at[0] if crash_at else "undisturbed")
    walk = Walk(place, name, crash_at, fragments)
    try:
        await walk.links.whole()
        said = await walk.links.history()
        await walk.exhausted()
        yield walk, said
    finally:
        await walk.ended()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(place: Place) -> dict[int, tuple[str, ...]]:
    """The digests of the bases of federations whose coordinator lives, by their fragments."""
    found = {}
    for fragments in (1, FRAGMENTS):
        async with walked(place, fragments=fragments) as (_, said):
            found[fragments] = digests(said)
    return found


def rounds_of(fragments: int) -> int:
    return ROUNDS if fragments == 1 else fragments + 1


def digests(said: list[Message]) -> tuple[str, ...]:
    return tuple(one.model_digest for one in said if isinstance(one, RoundCompleted))


@pytest.mark.parametrize("fragments", [1, FRAGMENTS], ids=["whole", "fragments"])
@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
async def test_killed_there_it_is_as_if_nothing_had_happened(
    chain: tuple[str, ...], fragments: int, place: Place, undisturbed: dict[int, tuple[str, ...]]
) -> None:
    async with walked(place, *chain, fragments=fragments) as (walk, said):
        rounds = rounds_of(fragments)
        assert walk.deaths == len(chain)
        assert digests(said) == undisturbed[fragments]
        accepted = [(one.site, one.round) for one in said if isinstance(one, ContributionAccepted)]
        assert sorted(accepted) == [(site, number) for site in TOKENS for number in range(rounds)]
        completed = [one for one in said if isinstance(one, RoundCompleted)]
        assert [(one.round, one.contributors, one.tokens) for one in completed] == [
            (number, tuple(TOKENS), sum(TOKENS.values())) for number in range(rounds)
        ]
        (last,) = [one for one in said if isinstance(one, FederationFinished)]
        assert (last.model_digest, last.tokens_total) == (undisturbed[fragments][-1], rounds * sum(TOKENS.values()))
        assert {one.round for one in said if isinstance(one, RoundEvaluated)} >= {rounds}
        assert len({one.id for one in said}) == len(said)
        await walk.tidied()


async def test_every_place_is_walked() -> None:
    walked = {place.partition(":")[0] for chain in CHAINS for place in chain}
    assert walked == {*coordinators.POINTS, *crashpoint.KIT} - ON_DAMAGE


async def test_every_place_that_is_named_is_in_the_code_and_the_other_way_round() -> None:
    folder = Path(coordinators.__file__).parent
    reached = {name for path in folder.glob("*.py") for name in re.findall(r'reach\("([a-z.-]+)"\)', path.read_text())}
    assert reached == set(coordinators.POINTS)
