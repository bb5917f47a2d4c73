"""The one picture of a run that a paper would show: windows against signals, loss, bytes, energy and carbon, with what
each would have been otherwise."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from windfall.cli import plots
from windfall.cli.live import size
from windfall.cli.plots import PALETTE
from windfall.cli.recording import Said
from windfall.cli.story import Window
from windfall.contracts.events import ContributionAccepted
from windfall.energy.signals import Trace

_LANE_IN: Final = 1.05
"""Height of a site's lane."""
_POINTS: Final = 8
"""Size of all letters: as a paper's own captions have it."""
_MOST_LANES: Final = 12
"""Sites that are drawn, the first by name; a fleet of a thousand has no lanes on paper."""


def paper(
    said: Sequence[Said],
    windows: Sequence[Window],
    traces: Mapping[str, Trace],
    summary: Mapping[str, Any],
    start: datetime,
    end: datetime,
) -> Figure:
    """All of it on one page, 7.2 inches wide: two columns of a paper.

    Args:
        summary: figures as ``summary.summarise`` has them.
        start, end: instants between which signals are drawn.
    """
    shown = dict(sorted(traces.items())[:_MOST_LANES])
    figure = plots.figure(4.3 + _LANE_IN * len(shown), width_in=7.2)
    parts: Any = figure.subfigures(2, 1, height_ratios=[0.5 + _LANE_IN * len(shown), 3.8])
    above, below = parts
    levels = (summary["open_below_g_per_kwh"], summary["close_above_g_per_kwh"])
    lanes = plots.lanes(above, windows, shown, start, end, *levels)
    for axes, site in zip(lanes, shown, strict=True):
        _contributions(axes, said, site)
    loss, moved, energy, carbon = below.subplots(2, 2).flat
    plots.draw_losses(loss, said)
    dense = ("dense sync", summary["bytes_dense_sync"])
    _bars(moved, "bytes moved", [("up", summary["bytes_up"]), ("down", summary["bytes_down"]), dense], size)
    for axes, name, key, unit in (
        (energy, "energy", "energy_{}kwh", "kWh"),
        (carbon, "carbon", "emissions_{}kg", "kg CO2"),
    ):
        used, otherwise = summary[key.format("")], summary[key.format("always_on_")]
        pairs = [("in windows", used or 0.0), ("always on", otherwise or 0.0)]
        _bars(axes, name, pairs, lambda value, unit=unit: f"{value:.2f} {unit}")
    for axes in figure.axes:
        axes.tick_params(labelsize=_POINTS)
    for text in figure.findobj(Text):
        text.set_fontsize(_POINTS)
    return figure


def _contributions(axes: Axes, said: Sequence[Said], site: str) -> None:
    """A stroke on the bar of training for each contribution that counts."""
    low, _ = axes.get_ylim()
    at = [m.at for s in said if isinstance(m := s.message, ContributionAccepted) and m.site == site]
    axes.plot(
        [plots.on_axis(instant) for instant in at],
        [low / 2] * len(at),
        linestyle="none",
        marker="|",
        markersize=6,
        color=PALETTE.paper,
        zorder=3,
    )


def _bars(axes: Axes, name: str, pairs: Sequence[tuple[str, float]], text: Any) -> None:
    """Ours in colour, the last one, the counterfactual, without; each with its value."""
    plots.dress(axes)
    axes.grid(False)
    labels, values = zip(*pairs, strict=True)
    colours = [PALETTE.training] * (len(pairs) - 1) + [PALETTE.faint]
    drawn = axes.barh(range(len(pairs)), values, color=colours, height=0.62)
    axes.bar_label(drawn, [text(value) for value in values], padding=4, color=PALETTE.ink)
    axes.set_yticks(range(len(pairs)), labels)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.set_xlim(0, 1.45 * max(*values, 1e-9))
    axes.set_title(name, loc="left", color=PALETTE.ink, fontweight="bold")
