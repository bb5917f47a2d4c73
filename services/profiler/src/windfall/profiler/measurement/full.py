"""Everything that a node's processors can do: power before and while it trains, compute, and sums over its devices.

One after the other, so that none disturbs the next, and each in a child process with its own deadline.
"""

import hashlib
import math
import sys
import time
from collections.abc import Sequence
from copy import copy
from datetime import timedelta
from pathlib import Path
from typing import Final

from windfall.profiler.child_process import CHILDREN, hear
from windfall.profiler.measurement.bench import Line, TorchBench
from windfall.profiler.measurement.estimates import estimated
from windfall.profiler.measurement.power import PowerMeter, powered
from windfall.profiler.profile import Compute, Host, Workload, merge

ALL_REDUCE: Final = CHILDREN / "all_reduce.py"
_PART: Final = "all_reduce_gb_per_s"


class FullBench:
    """Measures everything.

    Args:
        torch: measures the device.
        meter: reads power meanwhile.
        budget: wall time to sum over all devices for.
        loading: wall time to load torch in, in each process.
        python: the interpreter's command line.
        program: sums over all devices.
    """

    def __init__(
        self,
        torch: TorchBench,
        meter: PowerMeter,
        budget: timedelta,
        loading: timedelta,
        python: Sequence[str] = (sys.executable,),
        program: Path = ALL_REDUCE,
    ) -> None:
        self._torch = torch
        self._meter = meter
        self._within = budget + loading
        self._command = (
            *python,
            str(program),
            f"--budget-s={budget.total_seconds() / 2:g}",
            f"--lifetime-s={math.ceil(self._within.total_seconds()) + 1}",
        )
        self._program = program

    def of(self, workload: Workload) -> "FullBench":
        """The same benchmark of this task's step."""
        made = copy(self)
        made._torch = self._torch.of(workload)
        return made

    @property
    def version(self) -> str:
        return f"{self._torch.version}, all_reduce {hashlib.sha256(self._program.read_bytes()).hexdigest()[:12]}"

    async def compute(self, host: Host) -> Compute:
        async with self._meter.watching() as watched:
            await watched.idle()
            begun_s = time.monotonic()  # the clock that the children read, which no replay bends
            found = await self._torch.compute(host)
        found = merge(found, powered(found, watched, begun_s))
        summed = await self._summed()
        return merge(merge(found, summed), Compute(benchmark=self.version))

    async def _summed(self) -> Compute:
        heard = await hear(self._command, self._within)
        try:
            said = heard.lines[-1:] or ["{}"]
            found = Compute.model_validate_json(said[0])
            found = merge(found, Compute.model_validate(estimated(Line.model_validate_json(said[0]).timed)))
        except ValueError:
            return Compute(missing={_PART: "the benchmark said something that cannot be read"})
        if found.all_reduce_gb_per_s is None and _PART not in found.missing:
            return Compute(missing={_PART: f"the benchmark {heard.why or 'said nothing'}"})
        return found
