"""The picture of a simulation: each site's signal with its clean windows, and below it what its node did."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import matplotlib.dates
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from windfall.cli.plots import PALETTE
from windfall.cli.simulate import Simulation
from windfall.energy.column import Column, spans_below
from windfall.energy.contest import Contest, Contestant
from windfall.energy.outcome import Outcome
from windfall.energy.power import SiteState
from windfall.energy.simulate import Life, SimulatedSite
from windfall.servicekit.errors import Mistake

COLOURS: Final = {
    SiteState.PROVISIONING: "#e0a100",
    SiteState.IDLE: "#b6bec9",
    SiteState.TRAINING: PALETTE.training,
    SiteState.DRAINING: PALETTE.held_out,
}
"""Of what a node does; off has none."""
MOST_SITES: Final = 12
MOST_PANELS: Final = 4
_BAND: Final = (-0.27, -0.13)
"""Where nodes are shown, in heights of the signal below it."""
_dates: Any = matplotlib.dates  # which has no annotations
_FONT: Final[Any] = {"font.family": "sans-serif", "font.size": 9}


def fits(simulation: Simulation) -> None:
    """Whether it can be drawn.

    Raises:
        Mistake: too many sites for one picture.
    """
    if len(simulation.contest.sites) > MOST_SITES:
        cause = f"{len(simulation.contest.sites)} sites are too many for one picture"
        raise Mistake(cause, f"Choose at most {MOST_SITES} with --site, or leave --plot out")


def draw(simulation: Simulation, outcomes: Mapping[Contestant, Outcome], path: Path) -> None:
    """Write the picture as PNG: a row for every site, a column for each of the first four policies."""
    contest = simulation.contest
    shown = list(outcomes.values())[:MOST_PANELS]
    with matplotlib.rc_context(_FONT):
        width = 9.0 if len(shown) == 1 else 2.2 + 3.9 * len(shown)
        size = (width, 1.25 + 1.45 * len(contest.sites))
        # A Figure of its own rather than pyplot's: nothing global, and no display is looked for.
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.05), facecolor=PALETTE.paper)
        grid = figure.subplots(len(contest.sites), len(shown), sharex=True, sharey="row", squeeze=False)
        for place, outcome in enumerate(shown):
            grid[0, place].set_title(_title(outcome), loc="left", color=PALETTE.ink, fontsize=9.5, pad=8)
            for axes, site, life in zip(grid[:, place], contest.sites, outcome.lives, strict=True):
                _panel(axes, contest, site, life, outcome)
        for axes, site in zip(grid[:, 0], contest.sites, strict=True):
            axes.set_ylabel(site.name, color=PALETTE.ink, fontweight="bold")
        for axes in grid[-1]:
            locator = _dates.AutoDateLocator(minticks=3, maxticks=9 if len(shown) == 1 else 6, tz="UTC")
            axes.xaxis.set_major_locator(locator)
            axes.xaxis.set_major_formatter(_dates.ConciseDateFormatter(locator, tz="UTC", show_offset=False))
        figure.supxlabel(f"trace time, UTC, from {contest.start:%Y-%m-%d}", color=PALETTE.faint, fontsize=9)
        figure.legend(
            handles=_keys(contest, shown),
            loc="outside upper left",
            ncols=8,
            frameon=False,
            labelcolor=PALETTE.ink,
            handlelength=1.3,
            columnspacing=1.4,
            fontsize=8.5,
        )
        figure.align_ylabels(grid[:, 0])
        figure.savefig(path, format="png", dpi=160)


def _title(outcome: Outcome) -> str:
    total = outcome.account.total
    clean = total.clean_energy_share
    figures = f"{total.emissions_kg:,.2f} kg CO2"
    if clean is not None:
        figures += f", {clean:.1%} clean"
    done = f", {outcome.hours:,.1f} h" if outcome.finished else ", unfinished"
    return rf"$\bf{{{outcome.policy.replace('-', chr(92) + 'text{-}')}}}$   {figures}{done}"


def _panel(axes: Axes, contest: Contest, site: SimulatedSite, life: Life, outcome: Outcome) -> None:
    axes.set_facecolor(PALETTE.paper)
    axes.grid(color=PALETTE.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=PALETTE.faint, labelcolor=PALETTE.ink, length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    column = site.column.cut(contest.start.timestamp(), contest.end.timestamp())
    threshold = contest.policy.open_below_g_per_kwh
    for begin, end in spans_below(column, threshold):
        axes.axvspan(_day(begin), _day(end), color=PALETTE.window, linewidth=0, zorder=0)
    top = max(float(column.values.max()), threshold) * 1.06
    axes.axhline(threshold, color=PALETTE.faint, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.step(*_steps(column), where="post", color=PALETTE.signal, linewidth=1.2)
    low, high = (edge * top for edge in _BAND)
    axes.axhspan(low, high, color=PALETTE.grid, linewidth=0, zorder=0.5, alpha=0.55)
    bounds = [at.timestamp() for at, _ in life.changes] + [outcome.end.timestamp()]
    for state, colour in COLOURS.items():
        spans = [
            (_day(since), _day(until - since))
            for (_, held), since, until in zip(life.changes, bounds[:-1], bounds[1:], strict=True)
            if held is state and since < until
        ]
        axes.broken_barh(spans, (low, high - low), color=colour, linewidth=0, zorder=3)
    for at, colour in ((contest.aim.deadline, PALETTE.held_out), (outcome.end, PALETTE.ink)):
        if at is not None and at < contest.end:
            axes.axvline(_day(at.timestamp()), color=colour, linewidth=1.0, linestyle=(0, (1, 1.5)))
    axes.set_ylim(-0.33 * top, top)
    axes.set_xlim(_day(contest.start.timestamp()), _day(contest.end.timestamp()))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= top])


def _keys(contest: Contest, outcomes: Sequence[Outcome]) -> Sequence[Line2D | Patch]:
    threshold = contest.policy.open_below_g_per_kwh
    deadline = contest.aim.deadline
    dots = (0, (1, 1.5))
    early = any(outcome.end < contest.end for outcome in outcomes)
    lived = {state for outcome in outcomes for life in outcome.lives for _, state in life.changes}
    return [
        Line2D([], [], color=PALETTE.signal, linewidth=1.4, label="gCO2/kWh"),
        Patch(color=PALETTE.window, label=f"clean, below {threshold:g}"),
        *(Patch(color=colour, label=state.value) for state, colour in COLOURS.items() if state in lived),
        *([Line2D([], [], color=PALETTE.ink, linewidth=1.0, linestyle=dots, label="done")] if early else []),
        *([] if deadline is None else [Line2D([], [], color=PALETTE.held_out, linestyle=dots, label="deadline")]),
    ]


def _steps(column: Column) -> tuple[Any, Any]:
    return _day(np.append(column.times, column.end)), np.append(column.values, column.values[-1])


def _day(seconds: Any) -> Any:
    """As matplotlib counts time: days since 1970."""
    return seconds / 86_400.0
