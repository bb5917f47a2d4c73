"""Runs the compute benchmark in a child process that cannot outlive its limits.

torch never enters this process: the child is a program run by path (``child/torch_bench.py``, which says more), and
every line that it prints is a part of a :class:`~windfall.profiler.profile.Compute`, or runs of one. A driver that
hangs, memory that runs out or a torch that crashes costs the parts that were not yet said, and nothing else.
"""

import asyncio
import hashlib
import math
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from datetime import timedelta
from importlib import metadata
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from windfall.profiler.child_process import CHILDREN, died, ended
from windfall.profiler.measurement.estimates import Timed, estimated
from windfall.profiler.profile import COMPUTE_PARTS, Compute, Host, Workload, absent, merge

TORCH_BENCH = CHILDREN / "torch_bench.py"

LOADING = timedelta(seconds=60)
"""torch takes two seconds to load on an idle machine, and many times that on a busy disk."""
AIM = 0.75
"""Share of the budget that the benchmark plans with; the rest is for a machine too slow to keep to the plan."""

# The node may be training already. OpenMP threads that spin while they wait take the cores from it, and on a busy
# two-core machine some steps took 100 times as long as on a quiet one. Passive ones stay near, and are about half as
# slow again at small micro-batches when it is quiet. What the environment says goes first.
_ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE"}


class Line(BaseModel):
    """The runs that one line of the child tells of; the rest of it is a :class:`Compute`."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    timed: dict[str, Timed] = Field(default_factory=dict)


class TorchBench:
    """Measures with torch.

    Args:
        budget: wall time to measure for, once torch is loaded.
        loading: wall time to load torch in.
        python: the interpreter's command line.
        program: the benchmark.
        full: whether to measure more than a recommendation needs.
        workload: whose training step is measured; none measures the benchmark's own reference model.
        data_dir: the site's data, that it is measured on; none measures no task.
    """

    def __init__(
        self,
        budget: timedelta,
        loading: timedelta = LOADING,
        python: Sequence[str] = (sys.executable,),
        program: Path = TORCH_BENCH,
        full: bool = False,
        workload: Workload | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self._budget = budget
        self._loading = loading
        self._python = python
        self._program = program
        self._full = full
        self._workload = workload
        self._data_dir = data_dir

    def of(self, workload: Workload) -> "TorchBench":
        """The same benchmark of this task's step."""
        return TorchBench(
            self._budget, self._loading, self._python, self._program, self._full, workload, self._data_dir
        )

    @property
    def version(self) -> str:
        # Without data it is the reference model whose steps are measured, whatever is trained.
        workload = self._workload if self._data_dir is not None else None
        asked = repr((self._full, workload, self._data_dir if workload else None)).encode()
        benchmark = hashlib.sha256(self._program.read_bytes() + asked).hexdigest()[:12]
        of = f" of {workload.task}" if workload else ""
        try:
            return f"{self._program.stem} {benchmark}{of}, torch {metadata.version('torch')}"
        except metadata.PackageNotFoundError:
            return f"{self._program.stem} {benchmark}{of}, no torch"

    async def compute(self, host: Host) -> Compute:
        try:
            child = await self._started(host)
        except OSError as error:
            return Compute(missing=absent(COMPUTE_PARTS, f"the benchmark cannot be started ({error.strerror})"))
        try:
            return await self._heard(child)
        finally:
            await ended(child)

    async def _started(self, host: Host) -> Process:
        lifetime = self._loading + self._budget
        task, data = self._workload, self._data_dir
        return await asyncio.create_subprocess_exec(
            *self._python,
            str(self._program),
            f"--budget-s={AIM * self._budget.total_seconds()}",
            f"--threads={host.cpu_cores}",
            f"--memory-bytes={host.memory_bytes}",
            f"--lifetime-s={math.ceil(lifetime.total_seconds()) + 1}",
            *(["--full"] if self._full else ()),
            *(
                [f"--task={task.task}", f"--task-settings={task.settings}", f"--data-dir={data}"]
                if task is not None and data is not None
                else ()
            ),
            env=_ENVIRONMENT | os.environ,
            stdin=DEVNULL,
            stdout=PIPE,
            start_new_session=True,  # so that whatever it starts ends with it
        )

    async def _heard(self, child: Process) -> Compute:
        """What the child says until it ends or its time is over."""
        assert child.stdout is not None
        found = Compute(benchmark=self.version)
        if self._workload is not None and self._data_dir is None:
            found = merge(found, Compute(missing={"task": "no data to measure it on (WINDFALL_BENCH_DATA_DIR)"}))
        timed: dict[str, Timed] = {}
        loaded = False

        def heard() -> Compute:
            return merge(found, Compute.model_validate(estimated(timed)))

        try:
            async with asyncio.timeout(self._loading.total_seconds()) as limit:
                async for line in child.stdout:
                    found = merge(found, Compute.model_validate_json(line))
                    for part, runs in Line.model_validate_json(line).timed.items():
                        timed[part] = timed.get(part, Timed()).and_(runs)
                    if not loaded:
                        limit.reschedule(asyncio.get_running_loop().time() + self._budget.total_seconds())
                    loaded = True
                code = await child.wait()
        except TimeoutError:
            told = "measured" if loaded else "loaded torch"
            within = self._budget if loaded else self._loading
            return _unfinished(heard(), f"the benchmark had not {told} within {within.total_seconds():g} s")
        except ValueError:
            return _unfinished(heard(), "the benchmark said something that cannot be read")
        return (
            heard() if code == 0 else _unfinished(heard(), f"the benchmark {died(code)}; its own words are in the log")
        )


def _unfinished(found: Compute, why: str) -> Compute:
    """Keep what was said; whatever was not is missing for this reason."""
    silent = tuple(part for part in COMPUTE_PARTS if not getattr(found, part) and part not in found.missing)
    if found.step_s_by_micro_batch:
        return merge(found, Compute(missing=absent((*silent, "step_s_by_micro_batch.more"), why)))
    return merge(found, Compute(missing=absent(silent, why)))
