"""The pictures of a run: losses over its rounds, and each site's signal with its windows and training.

The same figure goes out as PNG and as SVG whose colours are style variables, so that a page can be light or dark.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import matplotlib
import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from windfall.cli.recording import Said
from windfall.cli.story import Window
from windfall.contracts.events import RoundCompleted, RoundEvaluated
from windfall.energy.signals import Trace


@dataclass(frozen=True)
class Palette:
    """Colours by what they mean; each is a style variable ``--<name>`` in SVG."""

    paper: str = "#ffffff"
    ink: str = "#1c2430"
    faint: str = "#8a94a3"
    grid: str = "#dfe4ea"
    window: str = "#bfe8cf"
    training: str = "#0e8a4d"
    signal: str = "#3b5bdb"
    held_out: str = "#c2410c"


PALETTE: Final = Palette()
_dates: Any = matplotlib.dates  # which has no annotations
_FONT: Final[Any] = {"font.family": "sans-serif", "font.size": 10, "svg.fonttype": "none", "svg.hashsalt": "windfall"}


def losses(said: Sequence[Said]) -> Figure:
    """Training and held-out loss in nats per token, by rounds committed: the training loss is that of the last one."""
    drawn = figure(3.6)
    draw_losses(drawn.add_subplot(), said)
    return drawn


def draw_losses(axes: Axes, said: Sequence[Said]) -> None:
    """The same in axes of a larger picture."""
    messages = [sentence.message for sentence in said]
    trained = [(m.round + 1, m.loss_nats) for m in messages if isinstance(m, RoundCompleted)]
    held_out = [(m.round, m.loss_nats) for m in messages if isinstance(m, RoundEvaluated)]
    dress(axes)
    for points, colour, name in (
        (trained, PALETTE.training, "training, mean of the sites"),
        (held_out, PALETTE.held_out, "held-out text"),
    ):
        if points:
            rounds, values = zip(*sorted(points), strict=True)
            axes.plot(rounds, values, color=colour, linewidth=1.8, marker="o", markersize=3.5, label=name)
    if trained or held_out:
        axes.legend(frameon=False, labelcolor=PALETTE.ink)
    else:
        axes.text(0.5, 0.5, "no round was completed", ha="center", transform=axes.transAxes, color=PALETTE.faint)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("rounds committed")
    axes.set_ylabel("loss, nats per token")


def signals(
    windows: Sequence[Window],
    traces: Mapping[str, Trace],
    start: datetime,
    end: datetime,
    open_below_g_per_kwh: float,
    close_above_g_per_kwh: float,
) -> Figure:
    """Each site's carbon intensity over the replayed time, its windows shaded and its training as a bar below."""
    drawn = figure(0.7 + 1.5 * len(traces))
    lanes(drawn, windows, traces, start, end, open_below_g_per_kwh, close_above_g_per_kwh)
    return drawn


def lanes(
    drawn: FigureBase,
    windows: Sequence[Window],
    traces: Mapping[str, Trace],
    start: datetime,
    end: datetime,
    open_below_g_per_kwh: float,
    close_above_g_per_kwh: float,
) -> list[Axes]:
    """The same in a part of a larger picture; the axes of each site, by name."""
    rows = drawn.subplots(len(traces), 1, sharex=True, squeeze=False)
    for axes, (site, trace) in zip(rows[:, 0], sorted(traces.items()), strict=True):
        dress(axes)
        _signal(axes, trace, start, end)
        for level in (open_below_g_per_kwh, close_above_g_per_kwh):
            axes.axhline(level, color=PALETTE.faint, linewidth=0.8, linestyle=(0, (4, 3)))
        for window in windows:
            if window.site == site:
                _window(axes, window, end)
        axes.set_ylabel(site, color=PALETTE.ink, fontweight="bold")
        axes.set_xlim(on_axis(start), on_axis(end))
    locator = _dates.AutoDateLocator(minticks=4, maxticks=9, tz="UTC")
    rows[-1, 0].xaxis.set_major_locator(locator)
    rows[-1, 0].xaxis.set_major_formatter(_dates.ConciseDateFormatter(locator, tz="UTC", show_offset=False))
    rows[-1, 0].set_xlabel("trace time, UTC")
    drawn.legend(
        handles=[
            Line2D([], [], color=PALETTE.signal, linewidth=1.4, label="signal, gCO2/kWh"),
            Line2D([], [], color=PALETTE.faint, linewidth=0.8, linestyle=(0, (4, 3)), label="open below, close above"),
            Patch(color=PALETTE.window, label="window open"),
            Line2D([], [], color=PALETTE.training, linewidth=5, label="training"),
        ],
        loc="outside upper right",
        ncols=4,
        frameon=False,
        labelcolor=PALETTE.ink,
        handlelength=1.4,
    )
    return list(rows[:, 0])


def on_axis(instant: datetime) -> float:
    """Where an instant lies on a lane's axis."""
    return float(_dates.date2num(instant))


def png(drawn: Figure, path: Path) -> None:
    """Write a figure at 160 dots per inch."""
    with matplotlib.rc_context(_FONT):
        drawn.savefig(path, format="png", dpi=160)


def svg(drawn: Figure) -> str:
    """A figure as an ``<svg>`` element to stand in a page: its colours are style variables with these as defaults."""
    with matplotlib.rc_context(_FONT):
        output = io.StringIO()
        drawn.savefig(output, format="svg", metadata={"Date": None})
    text = output.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for name, colour in vars(PALETTE).items():
        text = text.replace(colour, f"var(--{name.replace('_', '-')}, {colour})")
    return text


def figure(height_in: float, width_in: float = 9) -> Figure:
    """An empty figure of its own rather than pyplot's: nothing global, and no display is looked for."""
    return Figure(figsize=(width_in, height_in), layout="constrained", facecolor=PALETTE.paper)


def dress(axes: Axes) -> None:
    """Axes in our colours, with a grid and no frame."""
    axes.set_facecolor(PALETTE.paper)
    axes.grid(color=PALETTE.grid, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=PALETTE.faint, labelcolor=PALETTE.ink, length=0)
    axes.xaxis.label.set_color(PALETTE.ink)
    axes.yaxis.label.set_color(PALETTE.ink)
    for side in axes.spines.values():
        side.set_visible(False)


def _signal(axes: Axes, trace: Trace, start: datetime, end: datetime) -> None:
    shown = [reading for reading in trace.points if start <= reading.point_time <= end]
    times = [on_axis(reading.point_time) for reading in shown]
    values = [reading.intensity_g_per_kwh for reading in shown]
    axes.step(times, values, where="post", color=PALETTE.signal, linewidth=1.4)
    top = max(values, default=1.0)
    axes.set_ylim(-0.16 * top, 1.08 * top)


def _window(axes: Axes, window: Window, end: datetime) -> None:
    low, _ = axes.get_ylim()
    since, until = on_axis(window.opened_at), on_axis(window.closed_at or end)
    axes.axvspan(since, until, color=PALETTE.window, linewidth=0, zorder=0)
    if window.training_from is not None:
        trained = [on_axis(window.training_from), on_axis(window.training_until or end)]
        axes.plot(trained, [low / 2, low / 2], color=PALETTE.training, linewidth=5, solid_capstyle="butt")
