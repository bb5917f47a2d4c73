"""Runs a fault so many times, on as few fleets as it takes, and on as many beside each other as one may."""

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.chaos_real.fault import Fault, Run
from tests.chaos_real.fleet import Fleet
from tests.chaos_real.judgement import Before, Violated, violations
from tests.chaos_real.processes import belonging_to
from tests.chaos_real.standing import standing
from windfall.servicekit.errors import Mistake

WITHIN_S: Final = 240.0
"""No run takes longer, beside what its fault itself lasts."""

Turn = tuple[Fault, int]
"""A fault, and the seed of its run."""


@dataclass(frozen=True)
class Told:
    """Who hears how it goes."""

    say: Callable[[str], None]
    ran: Callable[[Fault, Run], None]


async def run(turns: Sequence[Turn], told: Told, fleets: int = 1) -> None:
    """Faults and seeds, one after the other, on one fleet as long as it is well and is the fleet that the next fault
    needs; then on another one.

    Args:
        fleets: so many at a time. What they measure of each other's load is told with every run.

    Raises:
        Mistake: this machine does not allow it.
        TimeoutError: a fleet that nobody has hurt does not train.
    """
    waiting, rising = deque(turns), asyncio.Lock()
    try:
        async with asyncio.TaskGroup() as beside:
            for _ in range(min(fleets, len(turns))):
                beside.create_task(_one_after_another(waiting, rising, told))
    except* (Mistake, TimeoutError) as several:
        raise several.exceptions[0] from None


async def _one_after_another(waiting: deque[Turn], rising: asyncio.Lock, told: Told) -> None:
    while waiting:
        folder = Path(tempfile.mkdtemp(prefix="windfall-chaos-"))
        alone = waiting[0][0].alone is not None
        if await (_alone(waiting, folder, told) if alone else _on_one_fleet(waiting, rising, folder, told)):
            shutil.rmtree(folder)
        else:
            told.say(f"what that fleet wrote is kept in {folder}")


async def _on_one_fleet(waiting: deque[Turn], rising: asyncio.Lock, folder: Path, told: Told) -> bool:
    """The next turn, and those after it, as long as they need the same fleet and it is well; whether it was at the end.

    A fleet that rises imports torch three times: one at a time does.
    """
    fault, seed = waiting.popleft()
    needs = fault.needs
    async with AsyncExitStack() as stack:
        async with rising:
            began = time.perf_counter()
            fleet = await stack.enter_async_context(standing(folder / "fleet", seed, needs()))
        before = Before.of(fleet)
        told.say(f"a fleet trains after {time.perf_counter() - began:.0f} s")
        while True:
            one = await _once(fault, seed, fleet, before)
            told.ran(fault, one)
            goes_on = not one.violations and not fault.day_ends
            if not (goes_on and waiting and waiting[0][0].needs is needs):
                break
            fault, seed = waiting.popleft()
    if left := list(belonging_to(folder)):
        raise Mistake(f"{len(left)} processes of a fleet go on, like {left[0][1]}", "End them")
    return not one.violations


async def _alone(waiting: deque[Turn], folder: Path, told: Told) -> bool:
    """The next turn, on a fleet of its own; whether it was well."""
    fault, seed = waiting.popleft()
    assert fault.alone is not None
    began = time.perf_counter()
    took: float | None = None
    found: tuple[str, ...] = ("I8 it did not settle in time",)
    with suppress(TimeoutError):
        async with asyncio.timeout(WITHIN_S + 60 * fault.minutes):
            took, found = await fault.alone(folder, seed)
    told.ran(fault, Run(fault.name, seed, took, found, time.perf_counter() - began, os.getloadavg()[0]))
    return not found


async def _once(fault: Fault, seed: int, fleet: Fleet, before: Before) -> Run:
    assert fault.strike is not None
    began, took, found = time.perf_counter(), None, list[str]()
    try:
        async with asyncio.timeout(WITHIN_S + 60 * fault.minutes):
            took = await fault.strike(fleet, random.Random(f"{fault.name}/{seed}"))
    except Violated as violated:
        found.append(str(violated))
    except (TimeoutError, LookupError) as error:
        found.append(f"I8 it did not recover: {error or 'in time'}")
    found += await violations(fleet, before, windows_end=fault.day_ends)
    return Run(fault.name, seed, took, tuple(found), time.perf_counter() - began, os.getloadavg()[0])
