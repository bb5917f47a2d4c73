"""``make bench-energy``: the policies side by side on the study's trace, on longer ones, and on the shipped one."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.figures import Figure, report
from windfall.cli.simulate import Asked, prepare
from windfall.energy.contest import Contestant, run
from windfall.energy.forecast import EXPECTED_ERROR
from windfall.energy.outcome import Outcome

PLACE: Final = "WINDFALL_DATA_DIR"
BESIDE: Final = Path(__file__).resolve().parents[3] / "shared" / "data"
SEEDS: Final = range(1, 13)
FEW: Final = range(1, 4)
OTHERS: Final = (Contestant.THRESHOLD, Contestant.ALWAYS_ON, Contestant.ORACLE)
_ERROR: Final = EXPECTED_ERROR
ERROR: Final = (
    f"forecast 72 h ahead; at lead L its edges are off by {_ERROR.timing_at_once.seconds / 60:g} min + "
    f"{_ERROR.timing_share:.0%} of L (sd, at most {_ERROR.timing_most.seconds / 60:g} min) and its levels "
    f"by {_ERROR.level_at_once:.0%} + {_ERROR.level_per_hour:.2%} per hour of L (at most {_ERROR.level_most:.0%}), "
    "correlated over 3 h; 80 % of an error stays from forecast to forecast, the rest is drawn anew every hour"
)
STUDY: Final = Asked(
    site=("CAISO_NORTH", "SPP_TX", "NEM_SA"),
    start="2026-01-11T17:00:00Z",
    end="2026-01-12T11:00:00Z",
    work_site_hours=17.86,
)
THRESHOLDS: Final = {"GB": 160.0, "FR": 42.0, "DE": 223.0}
"""Below which each is for a quarter of 2020, in gCO2/kWh."""


@dataclass(frozen=True)
class Kind:
    """What is measured of the same jobs of one contestant."""

    of: Callable[[Sequence[Outcome]], float]
    unit: str
    more_is_better: bool = False


@dataclass(frozen=True)
class Runs:
    """The same jobs for everybody: of windfall those of each seed, of the others one."""

    windfall: tuple[tuple[Outcome, ...], ...]
    others: dict[str, tuple[Outcome, ...]]

    def figure(self, name: str, figure: Kind, limit: float | None, conditions: str, **beside: float) -> Figure:
        """The median over the seeds; the goal, if there is one, is to come to the limit or better."""
        values = [figure.of(jobs) for jobs in self.windfall]
        worst = min(values) if figure.more_is_better else max(values)
        spread = f"{len(values)} seeds, worst {worst:.4g}" if len(values) > 1 else "one seed"
        goal = ""
        if limit is not None:
            met = sum(value >= limit if figure.more_is_better else value <= limit for value in values)
            spread += f", {met} of {len(values)} meet the goal"
            goal = f"at {'least' if figure.more_is_better else 'most'} {limit:g}"
        others = {_NAMES.get(who, who): _told(figure.of(jobs), jobs) for who, jobs in self.others.items()}
        return Figure(name, median(values), figure.unit, goal, {**others, **beside}, f"{spread}; {conditions}")


_NAMES: Final = {Contestant.THRESHOLD.value: "threshold policy"}


def main() -> None:
    data = Path(os.environ.get(PLACE, BESIDE)) / "energy"
    figures = shipped()
    for file, measure in (
        ("watttime/mci.csv", study),
        ("entsoe_ci_2020.csv", year),
        ("watttime/caiso_north_2023-06-08_31d.csv", flapping),
    ):
        if (data / file).is_file():
            print(f"running on {file} ...", flush=True)
            figures = [*figures, *measure(data / file)]
        else:
            print(f"skipping {file}: it is not in {data}; set {PLACE} to the folder that holds energy/{file}")
    report("energy", figures)


def shipped() -> list[Figure]:
    """The synthetic trace, which runs everywhere."""
    asked = Asked(work_site_hours=24.0)
    fast = contest([asked], SEEDS)
    carbon = contest([replace(asked, objective="carbon", deadline_hours=24.0, replan_minutes=15.0)], FEW)
    return [
        *_fast("shipped", fast, f"24 of 28 site-hours of windows, 3 sites, a day; {ERROR}"),
        carbon.figure("shipped carbon kg", KG, None, "the same work by the end of the day"),
    ]


def study(trace: Path) -> list[Figure]:
    """The published experiment: its trace, hours, power and work."""
    asked = replace(STUDY, trace=trace)
    published = "published run"
    fast = contest([asked], SEEDS)
    steady = contest([replace(asked, objective="carbon", deadline_hours=17.5)], SEEDS)
    hurried = contest([replace(asked, objective="carbon", deadline_hours=9.0)], SEEDS)
    in_time = sum(all(job.in_time for job in jobs) for jobs in hurried.windfall)
    extra = median(kg(jobs) for jobs in hurried.windfall) - median(kg(jobs) for jobs in fast.windfall)
    work = "17.86 site-hours, 3 sites"
    return [
        fast.figure("study fast kg", KG, 1.05, f"{work}; {ERROR}", **{published: 1.379}),
        fast.figure("study fast clean %", CLEAN, 99.5, work, **{published: 97.0}),
        fast.figure("study fast hours", HOURS, 13.7, work, **{published: 14.6}),
        fast.figure(
            "study window use %",
            LEAST_USE,
            97.0,
            "the least used window of 30 min or more",
            **{f"{published}, {site}": use for site, use in zip(asked.site, (90.9, 74.7, 84.4), strict=True)},
        ),
        steady.figure("study carbon kg", KG, 0.45, f"{work} in 17.5 h", **{published: 1.379}),
        hurried.figure(
            "study deadline 9 h kg",
            KG,
            None,
            f"{in_time} of {len(hurried.windfall)} in time",
            **{"the hurry costs, over fast": extra},
        ),
    ]


def year(trace: Path) -> list[Figure]:
    """Half-hourly averages of 2020: each site by its own threshold, and a job of all three every month."""
    alone = [
        Asked(trace=trace, site=(site,), open=threshold, work_site_hours=2000.0)
        for site, threshold in THRESHOLDS.items()
    ]
    months = [datetime(2020, month, 1, tzinfo=UTC) for month in range(1, 13)]
    jobs = [
        Asked(
            trace=trace,
            start=first.isoformat(),
            end=(first + timedelta(days=7)).isoformat(),
            objective="carbon",
            work_site_hours=150.0,
            replan_minutes=60.0,
        )
        for first in months
    ]
    carbon = contest(jobs, range(1, 2))
    levels = ", ".join(f"{site} {level:g}" for site, level in THRESHOLDS.items())
    return [
        *_fast("entsoe", contest(alone, FEW), f"2000 site-hours each, below {levels} gCO2/kWh"),
        carbon.figure(
            "entsoe carbon kg",
            KG,
            None,
            "12 jobs of 150 site-hours in 7 days, GB, FR and DE, hourly plans",
        ),
    ]


def flapping(trace: Path) -> list[Figure]:
    """A month of five-minute marginal intensity with 101 windows, 61 of them shorter than half an hour."""
    asked = Asked(trace=trace, work_site_hours=100.0)
    first = datetime(2023, 6, 8, tzinfo=UTC)
    jobs = [
        replace(
            asked,
            start=(first + timedelta(days=7 * week)).isoformat(),
            end=(first + timedelta(days=7 * week + 5)).isoformat(),
            objective="carbon",
            work_site_hours=14.0,
            replan_minutes=60.0,
        )
        for week in range(4)
    ]
    carbon = contest(jobs, range(1, 2))
    return [
        *_fast("caiso", contest([asked], FEW), "100 of 124 hours of windows, one site, 31 days"),
        carbon.figure("caiso carbon kg", KG, None, "4 jobs of 14 site-hours in 5 days, hourly plans"),
    ]


def contest(jobs: Sequence[Asked], seeds: Sequence[int]) -> Runs:
    """Every job by everybody."""
    asked = [prepare(job).contest for job in jobs]
    return Runs(
        tuple(
            tuple(run(prepare(replace(job, forecast=f"noisy:{seed}")).contest, Contestant.WINDFALL) for job in jobs)
            for seed in seeds
        ),
        {who.value: tuple(run(one, who) for one in asked) for who in OTHERS},
    )


def _fast(name: str, runs: Runs, conditions: str) -> list[Figure]:
    return [
        runs.figure(f"{name} fast kg", KG, None, conditions),
        runs.figure(f"{name} fast clean %", CLEAN, None, "of the energy"),
        runs.figure(f"{name} fast hours", HOURS, None, "until the last work is done"),
        runs.figure(f"{name} window use %", MEAN_USE, None, "mean of windows of 30 min or more"),
    ]


def _told(value: float, jobs: Sequence[Outcome]) -> float | str:
    late = sum(not job.in_time for job in jobs)
    return f"{value:.3g} ({late} of {len(jobs)} late)" if late else value


def kg(jobs: Sequence[Outcome]) -> float:
    """Emissions of all jobs."""
    return sum(job.account.total.emissions_kg for job in jobs)


def clean(jobs: Sequence[Outcome]) -> float:
    """Share of all energy."""
    totals = [job.account.total for job in jobs]
    return 100.0 * sum(total.clean_energy_kwh for total in totals) / sum(total.energy_kwh for total in totals)


def hours(jobs: Sequence[Outcome]) -> float:
    """Of the longest."""
    return max(job.hours for job in jobs)


def least_use(jobs: Sequence[Outcome]) -> float:
    """Of all windows that count, as far as the work lasted."""
    return 100.0 * min((job.least_window_use or 0.0 for job in jobs), default=0.0)


def mean_use(jobs: Sequence[Outcome]) -> float:
    """Share of all clean time in windows that count."""
    uses = [(use.share, use.end - use.start) for job in jobs for use in job.window_use]
    total = sum((length for _, length in uses), timedelta(0))
    return 100.0 * sum(share * (length / total) for share, length in uses) if uses else 0.0


KG: Final = Kind(kg, "kg CO2")
CLEAN: Final = Kind(clean, "%", more_is_better=True)
HOURS: Final = Kind(hours, "h")
LEAST_USE: Final = Kind(least_use, "%", more_is_better=True)
MEAN_USE: Final = Kind(mean_use, "%", more_is_better=True)


if __name__ == "__main__":
    main()
