"""What a person sees while a fleet runs: lanes that move in a terminal, a few plain lines elsewhere."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from windfall.cli.watch import Fleet, Lane, Span, tell
from windfall.contracts.message import Message

MOST_LINES: Final = 40
"""Lines that the whole command prints where there is no terminal, unless asked for all."""
_LAST_LINES: Final = 8
"""Kept for the figures at the end."""
_SPARKS: Final = "▁▂▃▄▅▆▇█"


class View(Protocol):
    """Shows a fleet."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def say(self, text: str) -> None:
        """Show one line."""

    def show(self, fleet: Fleet, message: Message) -> None:
        """An event was heard, and this is the fleet after it."""

    def beat(self, now: datetime) -> None:
        """Business time has moved on."""


class Plain:
    """One line for what matters, and no more of them than a person reads."""

    def __init__(self, out: Callable[[str], None], everything: bool = False) -> None:
        self._out = out
        self._left: int | None = None if everything else MOST_LINES - _LAST_LINES

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Lines stand."""

    def say(self, text: str) -> None:
        if self._left is None:
            self._out(text)
        elif self._left > 0:
            self._left -= 1
            self._out(text if self._left else "… more in events.jsonl")

    def show(self, fleet: Fleet, message: Message) -> None:
        line = tell(message)
        if line is not None:
            self.say(f"{message.at:%H:%M} {line}")

    def beat(self, now: datetime) -> None:
        """Nothing moves."""


class Lanes:
    """A lane per site, redrawn in place."""

    def __init__(self, console: Console, fleet: Fleet, start: datetime, end: datetime) -> None:
        self._fleet = fleet
        self._span = (start, end)
        self._now = start
        # Drawn when told, by the one thread there is: processes are forked beside it.
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._draw()
        self._live.__exit__(None, None, None)

    def say(self, text: str) -> None:
        self._live.console.print(Text(text, style="dim"))

    def show(self, fleet: Fleet, message: Message) -> None:
        self._fleet = fleet

    def beat(self, now: datetime) -> None:
        self._now = now
        self._draw()

    def _draw(self) -> None:
        self._live.update(board(self._fleet, *self._span, self._now), refresh=True)


def board(fleet: Fleet, start: datetime, end: datetime, now: datetime) -> Group:
    """The whole picture at one business instant."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("site", "window", "node", "training"):
        table.add_column(name, no_wrap=True)
    for name in ("round", "tokens/s", "loss", "sent"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"{start:%H:%M} – {end:%H:%M}", no_wrap=True)
    for site in sorted(fleet.lanes):
        table.add_row(*_row(fleet.lanes[site], start, end, now))
    return Group(_headline(fleet, now), table)


def _headline(fleet: Fleet, now: datetime) -> Text:
    words = Text(f"{now:%H:%M}", style="bold")
    words.append(f"  rounds {fleet.rounds_completed}", style="default")
    words.append(f"  tokens {fleet.tokens:,}")
    words.append(f"  up {size(fleet.bytes_up)}  down {size(fleet.bytes_down)}")
    if fleet.held_out:
        words.append(f"  held-out loss {fleet.held_out[-1]:.3f} ")
        words.append(sparks(fleet.held_out[-32:]), style="cyan")
    return words


def _row(lane: Lane, start: datetime, end: datetime, now: datetime) -> tuple[Text, ...]:
    colour = {"expected": "cyan", "open": "green", "closing": "yellow", "stale": "red"}.get(lane.window, "dim")
    return (
        Text(lane.site, style="bold"),
        Text(lane.window, style=colour),
        Text(lane.node, style="red" if lane.node == "failed" else "default"),
        Text(lane.training, style="bold green" if lane.training == "training" else "default"),
        Text("–" if lane.round is None else str(lane.round)),
        Text("–" if lane.tokens_per_s is None else f"{lane.tokens_per_s:,.0f}"),
        Text("–" if lane.loss_nats is None else f"{lane.loss_nats:.2f}"),
        Text(size(lane.bytes_up)),
        timeline(lane, start, end, now),
    )


def timeline(lane: Lane, start: datetime, end: datetime, now: datetime, cells: int = 36) -> Text:
    """The replayed time as cells: ``█`` trained, ``▒`` open, ``·`` dark, blank what is to come."""
    step: timedelta = (end - start) / cells
    bar = Text()
    for cell in range(cells):
        since, until = start + cell * step, start + (cell + 1) * step
        if since > now:
            bar.append(" ")
        elif _touches(lane.trained, since, until, now):
            bar.append("█", style="green")
        elif _touches(lane.windows, since, until, now):
            bar.append("▒", style="green")
        else:
            bar.append("·", style="dim")
    return bar


def _touches(spans: tuple[Span, ...], since: datetime, until: datetime, now: datetime) -> bool:
    return any(span.since < until and (span.until or now) > since for span in spans)


def sparks(values: tuple[float, ...]) -> str:
    """A line of bars, the highest value the tallest."""
    low, high = min(values), max(values)
    steps = len(_SPARKS) - 1
    return "".join(_SPARKS[round((value - low) / (high - low or 1.0) * steps)] for value in values)


def size(number: int) -> str:
    """Bytes for people: powers of ten, like disks and networks."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes everything")
