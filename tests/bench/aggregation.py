"""What merging costs: three contributions of 100 MB that lie on disk, beside numpy and Flower on the same numbers."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from tests.bench.figures import Figure
from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.gradient import gradient_of, longest_run
from windfall.federation_coordinator.outer_step import Base, Step, take_step
from windfall.federation_coordinator.spread import spread
from windfall.lowcomm.layout import Split
from windfall.lowcomm.rule import Rule

Floats = npt.NDArray[np.float32]

SITES: Final = 3
ELEMENTS: Final = 25_000_000
TENSORS: Final = 6
"""Flower is given as many arrays of 16.7 MB, as it was when it was measured first."""
_MB: Final = 1e6
_TIMES: Final = 15
_ROBUST: Final = ("median", "trimmed-mean", "krum", "multi-krum")


@dataclass(frozen=True)
class Cost:
    """The cheapest of several runs; CPU is user and system time of the whole process."""

    cpu_s: float
    wall_s: float

    def ms_per_mb(self, megabytes: float) -> float:
        return self.cpu_s * 1000 / megabytes


def figures(folder: Path) -> list[Figure]:
    """CPU per MB of input, and the share of the memory's bandwidth; ``folder`` holds some 600 MB."""
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    arrays = [np.random.default_rng(site).standard_normal(ELEMENTS, np.float32) for site in range(SITES)]
    contributions, paths = _laid_down(folder, arrays)
    read_mb, moved_mb, added_mb = (count * ELEMENTS * 4 / _MB for count in (SITES, SITES + 1, 3))

    # In turn, so that whatever else the machine does falls on all of them.
    merged, added, in_numpy = [], [], []
    for _ in range(_TIMES):
        merged.append(_timed(lambda: _merge(Rule.parse("fp32", "average"), contributions, paths, cores)))
        added.append(_timed(lambda: _add(arrays, cores)))
        in_numpy.append(_timed(lambda: _weighted_sum(arrays)))
    merge, add = _cheapest(merged), _cheapest(added)
    step = _cheapest([_timed(lambda: _step(folder, contributions, paths, cores)) for _ in range(3)])
    robust = {
        f"{name}, CPU ms/MB": _timed(
            partial(_merge, Rule.parse("fp32", merge=name), contributions, paths, cores)
        ).ms_per_mb(read_mb)
        for name in _ROBUST
    }
    conditions = (
        f"{SITES} contributions of {ELEMENTS * 4 / _MB:.0f} MB fp32, read from files in the page cache and merged run "
        f"by run on {cores} cores; best of {_TIMES}; load of the machine {os.getloadavg()[0]:.1f}"
    )
    return [
        Figure(
            "aggregation CPU ms/MB",
            merge.ms_per_mb(read_mb),
            "ms",
            "at most 0.12",
            {
                "numpy weighted sum, in memory": _cheapest(in_numpy).ms_per_mb(read_mb),
                **_flower(arrays),
                "whole outer step (also base read, digest, written, fsynced)": step.ms_per_mb(read_mb),
                **robust,
            },
            f"user and system time of the whole process; {conditions}",
        ),
        Figure(
            "aggregation % of memory bandwidth",
            100 * (moved_mb / merge.wall_s) / (added_mb / add.wall_s),
            "%",
            "at least 60",
            {
                "out-of-cache add, GB/s": added_mb / add.wall_s / 1000,
                "merge, GB/s": moved_mb / merge.wall_s / 1000,
                "out-of-cache add, GB per CPU second": added_mb / add.cpu_s / 1000,
                "merge, GB per CPU second": moved_mb / merge.cpu_s / 1000,
                "% per CPU second": 100 * (moved_mb / merge.cpu_s) / (added_mb / add.cpu_s),
            },
            f"by wall time: what is read and the mean, {moved_mb:.0f} MB, against numpy.add over three arrays of "
            f"{ELEMENTS * 4 / _MB:.0f} MB on as many threads; {conditions}",
        ),
    ]


def _laid_down(folder: Path, arrays: Sequence[Floats]) -> tuple[list[Contribution], list[Path]]:
    rule, elements = Rule.parse("fp32", "average"), Split(ELEMENTS)
    contributions, paths = [], []
    for site, array in enumerate(arrays):
        _, data = rule.encode((), torch.from_numpy(array), elements, base=0, tokens=site + 1, steps=1)
        paths.append(folder / f"contribution-{site}")
        paths[-1].write_bytes(data)
        contributions.append(
            Contribution(
                site=f"site-{site}",
                attempt=1,
                base_round=0,
                tokens=site + 1,
                steps=1,
                loss_nats=1.0,
                bytes_up=len(data),
                partial=False,
                sha256="0" * 64,
                codec="fp32",
            )
        )
    (folder / "base").write_bytes(bytes(ELEMENTS * 4))
    return contributions, paths


def _merge(rule: Rule, contributions: Sequence[Contribution], paths: Sequence[Path], cores: int) -> None:
    """The whole pseudo-gradient, as ``take_step`` asks for it."""
    elements, longest = Split(ELEMENTS), longest_run(rule, len(contributions))
    (part,) = elements.parts
    with ExitStack() as stack:
        gradient = gradient_of(rule, elements, contributions, paths, stack, cores)

        def run(part: slice, start: int) -> None:
            gradient(part, start, min(longest, part.stop - start))

        for _ in spread(run, [(part, start) for start in range(part.start, part.stop, longest)], cores):
            pass


def _step(folder: Path, contributions: Sequence[Contribution], paths: Sequence[Path], cores: int) -> None:
    place = Step(Base(folder / "base", 0, ELEMENTS * 4), [], folder / "after", [], b"")
    take_step(place, Rule.parse("fp32", "average"), Split(ELEMENTS), contributions, paths, cores)


def _add(arrays: Sequence[Floats], cores: int) -> None:
    into = _room()
    bounds = np.linspace(0, ELEMENTS, cores + 1).astype(int)
    with ThreadPoolExecutor(cores) as threads:
        for done in [
            threads.submit(np.add, arrays[0][begin:end], arrays[1][begin:end], into[begin:end])
            for begin, end in pairwise(bounds)
        ]:
            done.result()


def _weighted_sum(arrays: Sequence[Floats]) -> Floats:
    total = np.float32(SITES * (SITES + 1) / 2)
    mean: Floats = arrays[0] * (np.float32(1) / total)
    for site, array in enumerate(arrays[1:], start=2):
        mean += array * (np.float32(site) / total)
    return mean


def _flower(arrays: Sequence[Floats]) -> dict[str, float | str]:
    """Flower's own aggregation of the same numbers, where it is installed."""
    if find_spec("flwr") is None:
        return {"Flower": "not installed"}
    from flwr.app import ArrayRecord, MetricRecord, RecordDict
    from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

    records = [
        RecordDict(
            {
                "arrays": ArrayRecord([part.copy() for part in np.array_split(array, TENSORS)]),
                "metrics": MetricRecord({"num-examples": site}),
            }
        )
        for site, array in enumerate(arrays, start=1)
    ]
    cost = _cheapest([_timed(lambda: aggregate_arrayrecords(records, "num-examples")) for _ in range(3)])
    return {f"Flower {version('flwr')} aggregate_arrayrecords": cost.ms_per_mb(SITES * ELEMENTS * 4 / _MB)}


_ROOM: list[Floats] = []


def _room() -> Floats:
    """Written to before: fresh memory costs a fault per page."""
    if not _ROOM:
        _ROOM.append(np.zeros(ELEMENTS, np.float32))
        _ROOM[0][:] = 1
    return _ROOM[0]


def _timed(work: Callable[[], object]) -> Cost:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def _cheapest(costs: Sequence[Cost]) -> Cost:
    return Cost(min(one.cpu_s for one in costs), min(one.wall_s for one in costs))
