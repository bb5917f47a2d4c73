"""What came of a simulation, as a table for people and as JSON for machines."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from windfall.cli.resources.resource import VERSION
from windfall.cli.simulate import Asked, Simulation, compete, prepare
from windfall.cli.streamed import streamed
from windfall.energy.contest import Contestant
from windfall.energy.outcome import Outcome
from windfall.energy.tally import COUNTED
from windfall.servicekit.errors import ExitCode, Mistake

_UNKNOWN: Final = "–"


def tell(asked: Asked, json_file: Path | None, plot: Path | None, *, verbose: bool, output: str) -> None:
    """Simulate, write the files that were asked for, and print.

    Raises:
        Mistake: whatever cannot be simulated, a picture that is no PNG, or a file for which there is no folder.
    """
    if plot is not None and plot.suffix != ".png":
        raise Mistake(f"--plot is {plot}", "Give a name that ends in .png")
    for file in (json_file, plot):
        # Said before the work is done, not after.
        if file is not None and not file.parent.is_dir():
            cause = f"there is no folder {file.parent} to write {file.name} to"
            raise Mistake(cause, "Make it first, or write elsewhere", ExitCode.RESOURCE)
    simulation = prepare(asked)
    if plot is not None:
        from windfall.cli.simulate_plot import draw, fits

        fits(simulation)
    outcomes = compete(simulation)
    # Of a year of many sites it is large: written as it is made.
    if json_file is not None:
        with json_file.open("w", encoding="utf-8") as out:
            write(outcomes, out)
    if output == "json":
        write(outcomes, sys.stdout)
    if plot is not None:
        draw(simulation, outcomes, plot)
    if output == "json":
        for line in simulation.notes:
            print(f"note: {line}", file=sys.stderr)
        return
    # Piped, a table is as wide as it needs to be.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table(list(outcomes.values())))
    if verbose:
        console.print()
        console.print(by_site(list(outcomes.values())))
    console.print()
    for line in remarks(simulation, list(outcomes.values())):
        console.print(line, soft_wrap=True, markup=False)


def write(outcomes: Mapping[Contestant, Outcome], file: TextIO) -> None:
    """Intervals and summary of the first contestant; when there are several, all of them by name, too."""
    told: dict[str, object] = {"apiVersion": VERSION, "kind": "Simulation", **_told(next(iter(outcomes.values())))}
    if len(outcomes) > 1:
        told["contestants"] = {who.value: _told(outcome) for who, outcome in outcomes.items()}
    file.writelines(streamed(told))
    file.write("\n")


def _told(outcome: Outcome) -> dict[str, object]:
    return {"intervals": outcome.intervals(), "summary": outcome.summary()}


def table(outcomes: Sequence[Outcome]) -> RenderableType:
    """A row for every policy."""
    priced = any(outcome.cost is not None for outcome in outcomes)
    grid = _grid("policy", ("kg CO2", "kWh", "clean", "hours", "site-\nhours"))
    grid.add_column("in\ntime")
    for head in ("least\nuse", "mean\nuse", "starts", *(("cost",) if priced else ())):
        grid.add_column(head, justify="right")
    for outcome in outcomes:
        total = outcome.account.total
        grid.add_row(
            outcome.policy,
            f"{total.emissions_kg:,.3f}",
            f"{total.energy_kwh:,.2f}",
            _percent(total.clean_energy_share, 2),
            f"{outcome.hours:,.2f}",
            f"{sum(outcome.trained_h.values()):,.2f}",
            "yes" if outcome.in_time else "late" if outcome.finished else "no",
            _percent(outcome.least_window_use),
            _percent(outcome.mean_window_use),
            f"{outcome.starts:,}",
            *((_UNKNOWN if outcome.cost is None else f"{outcome.cost:,.2f}",) if priced else ()),
        )
    return grid


def by_site(outcomes: Sequence[Outcome]) -> RenderableType:
    """A row for every site of every policy."""
    grid = _grid("policy", ())
    grid.add_column("site")
    for head in ("kg CO2", "kWh", "clean", "site-hours"):
        grid.add_column(head, justify="right")
    for outcome in outcomes:
        for name, usage in outcome.account.sites.items():
            grid.add_row(
                outcome.policy,
                name,
                f"{usage.emissions_kg:,.3f}",
                f"{usage.energy_kwh:,.2f}",
                _percent(usage.clean_energy_share, 2),
                f"{outcome.trained_h[name]:,.2f}",
            )
    return grid


def remarks(simulation: Simulation, outcomes: Sequence[Outcome]) -> list[str]:
    """What a table cannot say, a line each."""
    minutes = COUNTED.total_seconds() / 60
    threshold = simulation.contest.policy.open_below_g_per_kwh
    work = simulation.contest.aim.work_site_hours
    told = [
        f"{outcome.policy}: {note}"
        for outcome in outcomes
        for note in (
            *outcome.notes,
            *([] if outcome.finished else [f"did {sum(outcome.trained_h.values()):,.2f} of {work:,.2f} site-hours"]),
        )
    ]
    return [
        *simulation.notes,
        f"clean: share of the energy that was below {threshold:g} gCO2/kWh; use: share of the windows of {minutes:.0f} "
        "minutes or more in which sites trained",
        *told,
    ]


def _grid(first: str, numbers: Sequence[str]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column(first, no_wrap=True)
    for head in numbers:
        grid.add_column(head, justify="right", no_wrap=True)
    return grid


def _percent(share: float | None, digits: int = 1) -> str:
    return _UNKNOWN if share is None else f"{share:.{digits}%}"
