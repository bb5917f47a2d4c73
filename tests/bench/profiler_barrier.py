"""``barrier wait %``: what share of a round sites wait for each other, one of them throttled to a quarter.

Real trainers, a real coordinator, real rounds; the same with as many steps for every site stands beside.
"""

import os
import tempfile
from asyncio import Queue, timeout
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Final, TypeVar

from tests.bench.coordinator_failures import told
from tests.bench.figures import Figure
from tests.bench.hub import Hub
from tests.bench.throttle import throttled, used_s
from tests.bench.trainers import Trainer, listening
from windfall.contracts.events import ContributionAccepted, RoundStarted

T = TypeVar("T")

SITES: Final = ("full-speed", "throttled")
SHARE: Final = 0.25
STEPS: Final = 150
"""On average."""
FEWER: Final = 50
"""In rounds in which what is waited for weighs more: a step, a push, the merge."""
ROUNDS: Final = 4
BEFORE: Final = 4
"""Rounds that are not counted: sites load, then are throttled, then their speeds are learnt."""
GOAL: Final = 5.0
_LIMIT_S: Final = 240.0


@dataclass
class Waits:
    """Of the rounds that count."""

    shares: list[float] = field(default_factory=list)
    """Of each site and round: from its contribution that counts to the next round's opening."""
    rounds_s: list[float] = field(default_factory=list)
    steps: dict[str, int] = field(default_factory=dict)
    """Of the last round."""

    @property
    def percent(self) -> float:
        return 100 * mean(self.shares)


async def figures() -> list[Figure]:
    """One figure."""
    with tempfile.TemporaryDirectory() as folder:
        equal = await waits(Path(folder) / "equal", ROUND_STEPS=f"{STEPS}")
        paced = await waits(Path(folder) / "paced", AVERAGE_STEPS=f"{STEPS}")
        shorter = await waits(Path(folder) / "shorter", AVERAGE_STEPS=f"{FEWER}")
    beside: dict[str, float | str] = {
        "equal steps": equal.percent,
        f"with {FEWER} steps": shorter.percent,
        "worst round": 100 * max(paced.shares),
        "steps": " and ".join(f"{count} {site}" for site, count in sorted(paced.steps.items())),
    }
    conditions = (
        f"{ROUNDS} rounds of {mean(paced.rounds_s):.1f} s after {BEFORE}, with equal steps of "
        f"{mean(equal.rounds_s):.1f} s, with {FEWER} steps of {mean(shorter.rounds_s):.1f} s; 2 sites, one with a "
        f"quarter of its processor time; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
    return [Figure("barrier wait %", paced.percent, "%", f"under {GOAL:g}", beside, conditions)]


async def waits(folder: Path, **settings: str) -> Waits:
    """Train until enough rounds were seen."""
    folder.mkdir()
    minimum = {"MINIMUM_SITES": f"{len(SITES)}", "MICRO_BATCH": "4", "STRAGGLER_GRACE": "120"}
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(folder, told("tiny", **minimum, **settings), SITES))
        ear = await stack.enter_async_context(listening(hub))
        started, accepted = await ear.on(RoundStarted), await ear.on(ContributionAccepted)
        trainers = []
        for number, site in enumerate(SITES):
            # Of the same text each draws its own samples: the same contribution twice would be refused.
            trainer = Trainer(folder / site, hub, site, told={"WINDFALL_SEED": f"{number}"})
            trainers.append(await stack.enter_async_context(trainer))
            await trainer.start()
        slow = trainers[SITES.index("throttled")]
        found = Waits()
        before = await _next(started, 0)
        for number in range(1, BEFORE + ROUNDS + 1):
            after = await _next(started, number)
            lasted_s = (after.at - before.at).total_seconds()
            assert slow.process is not None
            if number == 1:
                used = used_s(slow.process.pid)
            if number == 2:
                # Of what it had just now, with whatever else this machine does.
                per_s = SHARE * (used_s(slow.process.pid) - used) / lasted_s
                await stack.enter_async_context(throttled(slow.process.pid, per_s))
            words = [await _soon(accepted) for _ in SITES]
            if number > BEFORE:
                found.rounds_s.append(lasted_s)
                found.shares += [(after.at - word.at).total_seconds() / lasted_s for word in words]
                found.steps = {word.site: word.steps for word in words}
            print(f"  round {before.round}: {lasted_s:.1f} s", flush=True)
            before = after
    return found


async def _next(started: "Queue[RoundStarted]", number: int) -> RoundStarted:
    """The opening of this round."""
    while (word := await _soon(started)).round < number:
        pass
    return word


async def _soon(queue: "Queue[T]") -> T:
    async with timeout(_LIMIT_S):
        return await queue.get()
