"""How fast a day may be replayed on this machine.

A demo squeezes hours into seconds, in which real processes start, load torch and train. On a machine that is slow, busy
or has never read torch from its disk, windows would close before anybody stood: the day then takes longer.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Final

NOMINAL: Final = timedelta(seconds=1.6)
"""What loading torch takes on the slowest machine that keeps up with the usual pace: two cores, nothing else to do."""
MOST: Final = 8.0
"""More than that, and a person would rather free the machine."""
_LOAD: Final = (sys.executable, "-c", "import torch")
_NICE: Final = 5
"""As a trainer's."""


async def stretched(load: Sequence[str] = _LOAD) -> float:
    """How many times as long the day should take; 1 on a machine that keeps up.

    Loads what a trainer loads, as a trainer does. A first reading that is slow may have been the disk's: the second
    counts, and what the day needs is in memory by then.
    """
    first = await _taken_s(load)
    nominal = NOMINAL.total_seconds()
    if first <= nominal:
        return 1.0
    return min(MOST, max(1.0, min(first, await _taken_s(load)) / nominal))


async def _taken_s(load: Sequence[str]) -> float:
    begun = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *load,
        preexec_fn=partial(os.nice, _NICE),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        # Whether it works is for the trainers to say, in their own words.
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return time.perf_counter() - begun
