"""One energy window's story, from the signal to the weights: in memory and over real NATS and gRPC, from one body."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.fleet import Fleet, standing
from tests.unhurried import UnhurriedClock
from tests.wiring import MemoryWiring, RealWiring, Wiring
from windfall.contracts.envelope import TRACEPARENT, unseal
from windfall.contracts.events import (
    ContributionAccepted,
    EnergyRecorded,
    NodeProfiled,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    SiteDrained,
    SiteJoined,
    SiteLeft,
    TaskLearnt,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowJudged,
    WindowOpened,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SPEED = {False: 1200.0, True: 240.0}
"""In memory twenty trace minutes pass in a second; where servers have their own pace, four."""


def write_trace(path: Path, *, opens: int, closes: int, minutes: int) -> Path:
    """One site's day: surplus from minute ``opens`` to minute ``closes``."""
    rows = [
        f"{(MIDNIGHT + timedelta(minutes=minute)).isoformat()},{20 if opens <= minute < closes else 400}"
        for minute in range(0, minutes, 5)
    ]
    path.write_text("\n".join(["point_time,site-a", *rows]) + "\n")
    return path


async def wait_for(fleet: Fleet, kind: type[Message], count: int = 1) -> list[Message]:
    """Events of the hub once it holds so many of a kind."""
    async with asyncio.timeout(200):
        while True:
            events = await fleet.events()
            if sum(isinstance(event, kind) for event in events) >= count:
                return events
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("real", [False, True], ids=["memory", "real"])
async def test_one_window(real: bool, tmp_path: Path, spans: None) -> None:
    wiring: Wiring = RealWiring(tmp_path) if real else MemoryWiring()
    trace = write_trace(tmp_path / "trace.csv", opens=10, closes=70, minutes=90)
    clock = UnhurriedClock(MIDNIGHT, SPEED[real])
    fleet = Fleet(
        tmp_path,
        trace,
        ("site-a",),
        clock,
        wiring,
        round_length=timedelta(minutes=15),
        straggler_grace=timedelta(hours=2),
        step=timedelta(minutes=1),
        heartbeat=timedelta(seconds=5),
    )
    async with standing(fleet), clock.going():
        events = await wait_for(fleet, WindowClosed)
        letters = await wiring.letters(HUB)

    story = [type(event) for event in events if event.whom == "site-a"]
    firsts = sorted(set(story), key=story.index)
    order = [WindowOpened, NodeReady, SiteJoined, TrainingStarted, ContributionAccepted, SiteDrained, NodeReleased]
    # Two streams of the hub's own and the site's meet in one, so only what causes what is ordered.
    assert [kind for kind in firsts if kind in (WindowOpened, NodeReady, TrainingStarted)] == [
        WindowOpened,
        NodeReady,
        TrainingStarted,
    ]
    beside = {NodeProfiled, TaskLearnt, WindowClosing, WindowClosed, SiteLeft, WindowJudged, EnergyRecorded}
    assert set(order) | beside == set(firsts)
    for once in (WindowOpened, WindowClosed, NodeReady, NodeReleased, SiteDrained, TrainingStarted):
        assert story.count(once) == 1

    (drained,) = [event for event in events if isinstance(event, SiteDrained)]
    (closed,) = [event for event in events if isinstance(event, WindowClosed)]
    assert drained.delivered
    assert drained.at <= closed.crossed_at, "training stops while the power is still clean"

    rounds = [event for event in events if isinstance(event, RoundCompleted)]
    accepted = [event for event in events if isinstance(event, ContributionAccepted)]
    assert len(rounds) >= 2
    assert sum(one.tokens for one in rounds) == sum(one.tokens for one in accepted)
    for before, after in pairwise(rounds):
        assert (after.round, after.base_digest) == (before.round + 1, before.model_digest)

    # Why a site is off is said before its windows and after them.
    about = [(letter, unseal(letter)) for letter in letters]
    of_the_window = [
        letter for letter, event in about if event.whom == "site-a" and not isinstance(event, WindowJudged)
    ]
    traces = {letter.headers[TRACEPARENT].split("-")[1] for letter in of_the_window}
    assert len(traces) == 1, "one window is one trace"
