"""Half an hour at a hundred times the clock, in which anything is killed at any time."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import COORDINATOR, SERVICES, Fleet
from tests.chaos_real.needs import SITES, STEADY, Day, Needs
from windfall.contracts.events import ContributionAccepted, NodeReady, NodeReleased, WindowClosed, WindowOpened
from windfall.contracts.subjects import HUB

MINUTES: Final = float(os.environ.get("SOAK_MINUTES", "30"))
SPEED: Final = 100.0
MEAN_S: Final = 20.0
"""Between two blows, on the wall."""
_QUIET_S: Final = 60.0
"""At the end nothing is hurt any more."""
_START_MINUTES: Final = 3.0
"""Until the fleet trains, on a busy machine: the day has begun by then."""
_HOURS: Final = (MINUTES + _START_MINUTES + _QUIET_S / 60) / 60 * SPEED
_CLEAN_H, _DIRTY_H = 3.0, 1.0


def day() -> Day:
    """Windows of three hours and pauses of one, at one site an hour and a half after the other; dark at the end."""
    end = _HOURS - 0.5
    windows = {
        site: [
            (begin, min(begin + _CLEAN_H, end))
            for number in range(int(_HOURS / (_CLEAN_H + _DIRTY_H)) + 1)
            if (begin := number * (_CLEAN_H + _DIRTY_H) + 1.5 * place) < end - 1
        ]
        for place, site in enumerate(SITES)
    }
    seconds = {"warning": 3, "drain": 8, "stale_after": 60}
    pace = replace(STEADY, speed=SPEED, **{name: timedelta(seconds=each) for name, each in seconds.items()})
    return Day(pace, timedelta(hours=_HOURS), windows)


async def soak(fleet: Fleet, dice: random.Random) -> float:
    """Blow after blow, whether or not the last one has healed; then the end of the day. Gives how long the last blow
    took to be over."""
    clock, end = fleet.plan.clock, fleet.plan.wish.trace_end
    quiet_at = end - timedelta(seconds=_QUIET_S) * SPEED
    blows: list[asyncio.Task[None]] = []
    while clock.now() < quiet_at:
        await asyncio.sleep(min(dice.expovariate(1 / MEAN_S), 3 * MEAN_S))
        blows.append(asyncio.create_task(dice.choice(BLOWS)(fleet, random.Random(dice.random()))))
    await asyncio.gather(*blows)
    last = datetime.now(UTC)
    await fleet.stand()
    counted = await fleet.until(ContributionAccepted, last, within_s=_QUIET_S)
    await clock.sleep_until(end)
    await _all_dark(fleet)
    return (fleet.wall(counted) - last).total_seconds()


async def _all_dark(fleet: Fleet) -> None:
    """Until every window is closed and every node given back."""
    async with asyncio.timeout(120):
        while len(fleet.said(WindowClosed)) < len(fleet.said(WindowOpened)) or len(fleet.said(NodeReleased)) < len(
            fleet.said(NodeReady)
        ):
            await fleet.news()


async def _trainer(fleet: Fleet, dice: random.Random) -> None:
    # There is none in the dark, or between two starts.
    with suppress(LookupError, ProcessLookupError):
        os.kill(fleet.trainer(dice.choice(SITES)), signal.SIGKILL)


async def _zombie(fleet: Fleet, dice: random.Random) -> None:
    with suppress(LookupError, ProcessLookupError):
        pid = fleet.trainer(dice.choice(SITES))
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(1, 15))
        os.kill(pid, signal.SIGCONT)


async def _coordinator(fleet: Fleet, dice: random.Random) -> None:
    fleet.parts[COORDINATOR].send(signal.SIGKILL)


async def _service(fleet: Fleet, dice: random.Random) -> None:
    fleet.parts[f"{dice.choice(SERVICES)}@{dice.choice(SITES)}"].send(signal.SIGKILL)


async def _server(fleet: Fleet, dice: random.Random) -> None:
    fleet.server(dice.choice((HUB, *SITES))).send(signal.SIGKILL)


async def _link(fleet: Fleet, dice: random.Random) -> None:
    link = fleet.links[dice.choice(SITES)]
    if dice.random() < 0.5:
        link.cut()
        return
    link.hold()
    await asyncio.sleep(dice.uniform(0.5, 15))
    link.heal()


BLOWS: Final[tuple[Callable[[Fleet, random.Random], Coroutine[Any, Any, None]], ...]] = (
    _trainer,
    _zombie,
    _coordinator,
    _service,
    _server,
    _link,
)

FAULTS: Final = (
    Fault(
        "soak",
        f"{MINUTES:.0f} minutes at {SPEED:.0f} × clock ({_HOURS:.0f} hours of windows), a blow every {MEAN_S:.0f} s on "
        "average: any process killed or stopped, any link cut or held; then the end of the day in good order",
        "the last blow → everybody is ready and a contribution counts",
        soak,
        needs=lambda: Needs(day=day()),
        minutes=MINUTES + 2,
        long=True,
        day_ends=True,
    ),
)
