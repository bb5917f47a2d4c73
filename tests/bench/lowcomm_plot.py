"""The picture of a comparison: held-out loss against bytes sent up, a line for each method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator
from matplotlib.transforms import Bbox

from tests.bench.lowcomm_run import Outcome

INK: Final = "#1c2430"
FAINT: Final = "#8a94a3"
GRID: Final = "#e6eaef"
COLOURS: Final = {
    "DDP": "#1c2430",
    "FedAvg": "#8a94a3",
    "DiLoCo": "#3b5bdb",
    "int4": "#7c3aed",
    "q2-ef": "#c026a3",
    "topk-ef": "#0e8a4d",
    "dct-momentum": "#c2410c",
    "topk-ef, churn": "#5cb88a",
}
LOWEST: Final = 0.87
TALLEST: Final = 1.45
"""The losses shown, in lowest ones: below is room for names; the beginning, where all fall steeply, is cut off."""
_FONT: Final[Any] = {"font.family": "sans-serif", "font.size": 10}


@dataclass(frozen=True)
class Panel:
    """A task's runs, by method; several of one method are its seeds."""

    title: str
    runs: Mapping[str, Sequence[Outcome]]
    loss: str
    """What the vertical axis shows."""


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write the picture as PNG."""
    with matplotlib.rc_context(_FONT):
        figure = Figure(figsize=(6.4 * len(panels), 4.6), layout="constrained", facecolor="white")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, panel)
        figure.savefig(path, format="png", dpi=110)


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set_xscale("log")
    axes.set_title(panel.title, loc="left", color=INK, fontsize=11, fontweight="bold")
    ends = []
    for method, outcomes in panel.runs.items():
        if not outcomes:
            continue
        colour, loud = COLOURS.get(method, FAINT), method in ("DDP", "DiLoCo", "topk-ef")
        columns = list(zip(*(outcome.points for outcome in outcomes), strict=True))
        sent = [fmean(point.bytes_up for point in column) for column in columns]
        losses = [[point.loss for point in column] for column in columns]
        means = [fmean(column) for column in losses]
        if len(outcomes) > 1:
            axes.fill_between(
                sent, list(map(min, losses)), list(map(max, losses)), color=colour, alpha=0.15, linewidth=0
            )
        axes.plot(
            sent,
            means,
            color=colour,
            linewidth=2 if loud else 1.4,
            linestyle=(0, (4, 2)) if "churn" in method else "-",
            marker="o",
            markersize=3.2 if loud else 2.4,
            markevery=[-1],
        )
        ends.append((sent[-1], means[-1], method, colour))
    lowest = min(loss for _, loss, _, _ in ends)
    axes.set_ylim(lowest * LOWEST, lowest * TALLEST)
    left, right = axes.get_xlim()
    axes.set_xlim(left / 2, right * 4)
    axes.set_xlabel("bytes sent up by a site")
    axes.set_ylabel(panel.loss)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _bytes(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelcolor=INK, length=0)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for side in axes.spines.values():
        side.set_visible(False)
    _label(axes, ends)


def _label(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write each method's name and final loss under its end, where no line passes; lower where a label stands."""
    low, high = axes.get_ylim()
    canvas: Any = FigureCanvasAgg(axes.get_figure(root=True))  # which has no annotations
    canvas.draw()
    taken: list[Bbox] = []
    for sent, loss, method, colour in sorted(ends, key=lambda end: end[1]):
        at = min(loss for _, loss, _, _ in ends) - (high - low) / 40
        label = axes.text(sent, at, f"{method}  {loss:.3f}", color=colour, fontsize=9, va="top", ha="center")
        while any(label.get_window_extent(canvas.get_renderer()).overlaps(other) for other in taken):
            at -= (high - low) / 150
            label.set_y(at)
        taken.append(label.get_window_extent(canvas.get_renderer()))


def _bytes(value: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g} B"
