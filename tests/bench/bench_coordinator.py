"""``make bench-coordinator``: what the coordinator costs, and what it does when something dies.

``ARGS`` names figures, or the beginnings of figures, to take alone: ``make bench-coordinator ARGS="duty 'round 100'"``.
Everything is measured with the real coordinator process over real gRPC, with real trainer processes where one matters.
Flower's values are those that were measured once with Flower 1.41 on two busy cores of such a machine, unless a row
says that it ran beside ours.
"""

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from tests.bench import coordinator_duty, coordinator_failures, plain_grpc, rounds
from tests.bench.figures import Figure, percentile, report
from windfall.servicekit.testing.authority import Authority

Measurement = Callable[[Path], list[Figure]]

NOT_RUN = "measured before, not run here"
_MB = 1_000_000


def main() -> None:
    wanted = sys.argv[1:] or os.environ.get("FIGURES", "").split(",")
    figures = []
    for names, measure in MEASUREMENTS:
        if any(name.startswith(wish.strip()) for name in names for wish in wanted):
            print(f"measuring {', '.join(names)} ...", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                figures += measure(Path(folder))
    if not figures:
        raise SystemExit(f"no figure is called {' or '.join(wanted)}")
    report("coordinator", figures)


def noop(folder: Path) -> list[Figure]:
    """Rounds whose model is a few kilobytes: what is left is journal, disk, gRPC and the decisions."""
    figures = []
    for sites, times, goal in ((3, 30, "at most 50"), (100, 5, "at most 1000")):
        seen = asyncio.run(rounds.run(_under(folder, str(sites)), "smallest", sites, times))
        beside: dict[str, float | str] = {
            "worst ms": max(seen.seconds) * 1000,
            "coordinator's CPU ms": seen.coordinator_cpu_s * 1000,
        }
        if sites == 3:
            beside |= {"Flower 1.41 ms": "9650, floor 6180", "Flower": NOT_RUN}
        figures.append(
            Figure(
                f"no-op round, {sites} sites ms",
                seen.median_s * 1000,
                "ms",
                goal,
                beside,
                f"median of {times}; model of {seen.model_bytes / 1000:.0f} kB, fp32, digests on, every contribution "
                "fsynced and journaled; all sites in one process",
            )
        )
    return figures


def transfer_100(folder: Path) -> list[Figure]:
    """Rounds of 100 MB a site beside the same bytes over plain gRPC, and what they take of memory."""
    return _transfer(folder, "100 MB", times=7, goal="at most 2", flower="21")


def tls_100(folder: Path) -> list[Figure]:
    """Rounds of 100 MB a site under mutual TLS beside the same rounds without, taken in turns."""
    plain, under_tls = list[rounds.Rounds](), list[rounds.Rounds]()
    for turn in range(2):
        plain.append(asyncio.run(rounds.run(_under(folder, f"plain {turn}"), "100 MB", 3, 4)))
        place = _under(folder, f"tls {turn}")
        authority = Authority(place, "authority")
        under_tls.append(asyncio.run(rounds.run(place, "100 MB", 3, 4, authority=authority)))
    without, with_it = (statistics.median(s for one in seen for s in one.seconds) for seen in (plain, under_tls))
    return [
        Figure(
            "round 100 MB mTLS x plain",
            with_it / without,
            "x",
            "under 1.3",
            {
                "with mTLS s": with_it,
                "plain s": without,
                "coordinator's CPU s with": statistics.mean(one.coordinator_cpu_s for one in under_tls),
                "without": statistics.mean(one.coordinator_cpu_s for one in plain),
                "sites' CPU s with": statistics.mean(one.sites_cpu_s for one in under_tls),
                "without it": statistics.mean(one.sites_cpu_s for one in plain),
            },
            "medians of 8, in two turns of 4 each; 3 sites in one process, fp32, both ways, P-256 certificates",
        )
    ]


def transfer_500(folder: Path) -> list[Figure]:
    return _transfer(folder, "500 MB", times=3, goal="at most 8", flower="65")


def _transfer(folder: Path, model: str, times: int, goal: str, flower: str) -> list[Figure]:
    # Plain streams before and after: the machine may not be the same for a minute.
    size, kept_under = _bytes_of(model), str(_under(folder, f"{model} kept"))

    def streams() -> tuple[float, float]:
        return (
            asyncio.run(plain_grpc.run(size, sites=3, times=times)),
            asyncio.run(plain_grpc.run(size, sites=3, times=times, kept=kept_under)),
        )

    before = streams()
    seen = asyncio.run(rounds.run(_under(folder, model), model, 3, times))
    plain, kept = map(statistics.mean, zip(before, streams(), strict=True))
    conditions = (
        f"median of {times}; 3 sites in one process, model of {seen.model_bytes / _MB:.0f} MB, fp32, both ways, "
        "digests on, fsynced, merged and the outer step taken"
    )
    beside: dict[str, float | str] = {
        "plain gRPC s": plain,
        "plain gRPC, hashed and kept s": kept,
        "x that": seen.median_s / kept,
        "worst s": max(seen.seconds),
        "coordinator's CPU s": seen.coordinator_cpu_s,
        "sites' CPU s": seen.sites_cpu_s,
    }
    flowers = {"Flower 1.41 s": flower, "Flower": NOT_RUN}
    figures = [Figure(f"round {model} s", seen.median_s, "s", goal, {**beside, **flowers}, conditions)]
    if model == "100 MB":
        figures.append(
            Figure(
                "round 100 MB x plain gRPC",
                seen.median_s / plain,
                "x",
                "at most 1.5",
                beside,
                "plain: the same bytes down and then up over gRPC's generated stubs, to nowhere: no digest, no disk",
            )
        )
        figures.append(_memory(seen, 3))
    return figures


def memory_100(folder: Path) -> list[Figure]:
    """A hundred sites that pull and push 100 MB at once."""
    return [_memory(asyncio.run(rounds.run(folder / "hub", "100 MB", 100, 1)), 100)]


def _memory(seen: rounds.Rounds, sites: int) -> Figure:
    allowed = (2.5 * seen.model_bytes + 300 * _MB) / seen.model_bytes
    return Figure(
        f"memory x model {sites} sites",
        seen.resident_peak / seen.model_bytes,
        "x model",
        f"at most {allowed:.2f} (2.5 x model + 300 MB)",
        {
            "peak MB": seen.resident_peak / _MB,
            "idle MB": seen.resident_before / _MB,
            "Flower 1.41 x model": "10",
            "Flower": NOT_RUN,
        },
        f"the coordinator's largest resident size ever, torch included; model of {seen.model_bytes / _MB:.0f} MB, fp32",
    )


def aggregation(folder: Path) -> list[Figure]:
    """CPU and memory bandwidth of the merge, beside Flower's own aggregation."""
    if find_spec("tests.bench.aggregation") is None:
        print("there is no tests/bench/aggregation.py: aggregation is not measured")
        return []
    figures: list[Figure] = import_module("tests.bench.aggregation").figures(folder)
    return figures


def failures(folder: Path) -> list[Figure]:
    """Trainers that are killed with -9 and started again, and asked to drain."""
    seen = asyncio.run(coordinator_failures.deaths(folder / "hub", times=9))
    conditions = f"the worst of {len(seen.seen)} deaths; 3 real trainers in mid-round"
    drained = f"{seen.delivered} of {seen.terminated}"
    return [
        Figure(
            "dead site seen s",
            max(seen.seen),
            "s",
            "at most 5",
            {"median": percentile(seen.seen, 0.5), "Flower 1.41 s": "53", "Flower": NOT_RUN},
            f"{conditions}; kill -9 until site.left is on the hub's bus",
        ),
        Figure(
            "same site back s",
            max(seen.back),
            "s",
            "at most 2",
            {
                "median": percentile(seen.back, 0.5),
                "trains again s, median": percentile(seen.training, 0.5),
                "trains again s, worst": max(seen.training),
                "trainers that delivered partial work after SIGTERM": drained,
                "Flower 1.41 s": "65; partial work dropped",
                "Flower": NOT_RUN,
            },
            f"{conditions}; start of the process, imports included, until site.joined is on the hub's bus",
        ),
    ]


def ends(folder: Path) -> list[Figure]:
    """How soon a site that trains hears that its round is over."""
    waits = asyncio.run(coordinator_failures.ends(folder / "hub", rounds=70))
    return [
        Figure(
            "round end reaches site p99 s",
            percentile(waits, 0.99),
            "s",
            "at most 0.5",
            {"median": percentile(waits, 0.5), "worst": max(waits), "Flower 1.41 s": "42", "Flower": NOT_RUN},
            f"{len(waits)} endings, 3 real trainers, rounds of 1 s; an upper bound: until the site has finished its "
            "step, encoded, pushed, and its contribution is on the coordinator's disk",
        )
    ]


def back(folder: Path) -> list[Figure]:
    """A coordinator that is killed with -9 in mid-round."""
    return [_back(folder, "coordinator back s", "nothing else of ours running")]


def back_beside(folder: Path) -> list[Figure]:
    """The same where sites train on the same cores."""

    async def busy() -> Figure:
        async with coordinator_failures.training_beside(3):
            return await asyncio.to_thread(
                _back, folder, "coordinator back beside training s", "3 processes train beside it, niced by 5"
            )

    return [asyncio.run(busy())]


def _back(folder: Path, name: str, beside: str) -> Figure:
    seen = [asyncio.run(coordinator_failures.back(_under(folder, str(number)))) for number in range(3)]
    return Figure(
        name,
        max(one.seconds for one in seen),
        "s",
        "at most 3",
        {
            "median": percentile([one.seconds for one in seen], 0.5),
            "round merged s, median": percentile([one.merged_s for one in seen], 0.5),
            "round merged s, worst": max(one.merged_s for one in seen),
            "same round": _all(one.same_round for one in seen),
            "same digest as uninterrupted": _all(one.same_digest for one in seen),
            "finished results kept": _all(one.kept for one in seen),
            "Flower 1.41": "run failed",
            "Flower": NOT_RUN,
        },
        f"the worst of {len(seen)}; 40 MB model, 2 of 3 had delivered; from the start of the process, imports "
        f"included, to its first answer; {beside}",
    )


def duty(folder: Path) -> list[Figure]:
    """The share of the time that sites train."""
    seen = asyncio.run(coordinator_duty.duty(folder / "hub", rounds=3, round_s=60))
    return [
        Figure(
            "duty %",
            seen.mean * 100,
            "%",
            "at least 97",
            {
                **{site: share * 100 for site, share in seen.shares.items()},
                "KiB up a site and round": seen.bytes_up / 1024,
                "KiB down": seen.bytes_down / 1024,
                "published study": "79",
            },
            f"{seen.rounds} rounds of 60 s after a first, {len(seen.shares)} real trainers, {seen.steps} steps, 10 M "
            "parameters, default codec, over a link of 35 ms round trip and 50 MB/s each",
        )
    ]


def _bytes_of(model: str) -> int:
    return {"100 MB": 101_928_960, "500 MB": 505_962_496}[model]


def _under(folder: Path, name: str) -> Path:
    place = folder / name
    place.mkdir()
    return place


def _all(values: Iterable[bool]) -> str:
    return "yes" if all(values) else "NO"


MEASUREMENTS: Sequence[tuple[tuple[str, ...], Measurement]] = (
    (("no-op round, 3 sites ms", "no-op round, 100 sites ms"), noop),
    (("round 100 MB s", "round 100 MB x plain gRPC", "memory x model 3 sites"), transfer_100),
    (("round 100 MB mTLS x plain",), tls_100),
    (("round 500 MB s",), transfer_500),
    (("memory x model 100 sites",), memory_100),
    (("aggregation CPU ms/MB", "aggregation % of memory bandwidth"), aggregation),
    (("dead site seen s", "same site back s"), failures),
    (("round end reaches site p99 s",), ends),
    (("coordinator back s",), back),
    (("coordinator back beside training s",), back_beside),
    (("duty %",), duty),
)
"""Figures by the measurement that takes them."""

if __name__ == "__main__":
    main()
