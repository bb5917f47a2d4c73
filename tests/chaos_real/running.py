"""Runs a fault so many times, on as few fleets as it takes."""

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
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


async def run(turns: Sequence[tuple[Fault, int]], say: Callable[[str], None]) -> AsyncIterator[tuple[Fault, Run]]:
    """Faults and seeds, one after the other, on one fleet as long as it is well and is the fleet that the next fault
    needs; then on another one.

    Raises:
        Mistake: this machine does not allow it.
        TimeoutError: a fleet that nobody has hurt does not train.
    """
    waiting = deque(turns)
    while waiting:
        folder = Path(tempfile.mkdtemp(prefix="windfall-chaos-"))
        needs, goes_on, well = waiting[0][0].needs, True, True
        async with AsyncExitStack() as stack:
            began = time.perf_counter()
            fleet = await stack.enter_async_context(standing(folder / "fleet", waiting[0][1], needs()))
            before = Before.of(fleet)
            say(f"a fleet trains after {time.perf_counter() - began:.0f} s")
            while waiting and goes_on and waiting[0][0].needs is needs:
                fault, seed = waiting.popleft()
                one = await _once(fault, seed, fleet, before)
                well = not one.violations
                goes_on = well and not fault.day_ends
                yield fault, one
        if left := list(belonging_to(folder)):
            raise Mistake(f"{len(left)} processes of a fleet go on, like {left[0][1]}", "End them")
        if well:
            shutil.rmtree(folder)
        else:
            say(f"what that fleet wrote is kept in {folder}")


async def _once(fault: Fault, seed: int, fleet: Fleet, before: Before) -> Run:
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
