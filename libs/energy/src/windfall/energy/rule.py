"""What a site calls surplus: limits on named signals, joined by ``and`` and ``or``, in three values.

    carbon < 100..150 and price < 20..40 or surplus > 5000..3000

A limit has an open and a close threshold. ``carbon < 100..150`` is clean strictly below 100, dirty strictly above 150,
and between the two nothing changes; ``surplus > 5000..3000`` is the same upside down. ``and`` takes the minimum of its
parts and binds closer, ``or`` takes the maximum: Kleene's strong three-valued logic (1938). So a band of any rule is a
band, and one part that nobody knows anything about cannot make an ``and`` clean.

Left out, the close threshold is 1.5 times the open one for ``<`` a number from 0 on, and the open one itself otherwise.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

SIGNAL: Final = re.compile(r"(?!(?:and|or)$)[a-z](?:[a-z0-9-]{0,46}[a-z0-9])?")
"""How a rule may name a signal: as a site is named, though with a letter first, and no word of the grammar."""
WIDENING: Final = 1.5
"""Close over open threshold, when only the latter is given. Measured on a month of a flapping grid: a close threshold
of 150 over 100 g halves the openings that are left by a dwell of 5 and a grace of 10 minutes, for 3 % more dirty time.
"""
LOOK_BACK: Final = timedelta(days=7)
LOOK_AHEAD: Final = timedelta(hours=24)
LONGEST: Final = timedelta(days=90)
"""No look-back or look-ahead is longer: histories are kept in the journal."""


@dataclass(frozen=True)
class Absolute:
    """A threshold in the unit of the signal.

    Raises:
        ValueError: it is not finite.
    """

    value: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a threshold of {self.value} is no number; give a finite one")
        object.__setattr__(self, "value", float(self.value) + 0.0)

    def __str__(self) -> str:
        return repr(self.value).removesuffix(".0")


@dataclass(frozen=True)
class Percentile:
    """A threshold that moves: a percentile of the signal's own history, or of its forecast.

    Raises:
        ValueError: a rank that is not from 0 to 100, or a span that is not from a minute to 90 days.
    """

    rank: float
    of: Literal["history", "forecast"] = "history"
    span: timedelta = LOOK_BACK

    def __post_init__(self) -> None:
        if not 0.0 <= self.rank <= 100.0:
            raise ValueError(f"percentile {self.rank:g} does not exist; give one from 0 to 100")
        if not timedelta(minutes=1) <= self.span <= LONGEST or self.span % timedelta(minutes=1):
            raise ValueError(f"a span of {self.span} cannot be used; give whole minutes, from 1m to {LONGEST.days}d")
        object.__setattr__(self, "rank", float(self.rank) + 0.0)

    def __str__(self) -> str:
        word, usual = ("p", LOOK_BACK) if self.of == "history" else ("ahead", LOOK_AHEAD)
        rank = repr(self.rank).removesuffix(".0")
        return f"{word}{rank}" + ("" if self.span == usual else f"@{span_text(self.span)}")


Threshold = Absolute | Percentile


@dataclass(frozen=True)
class Limit:
    """One signal against its two thresholds.

    Where a moving close threshold lies on the wrong side of the open one, a value beyond it is dirty whatever the open
    one says.

    Raises:
        ValueError: a name that no signal can have, or thresholds that never leave room between them.
    """

    signal: str
    comparison: Literal["<", ">"]
    open: Threshold
    close: Threshold

    def __post_init__(self) -> None:
        if not SIGNAL.fullmatch(self.signal):
            raise ValueError(f"{self.signal!r} cannot name a signal; use small letters, digits and inner dashes")
        if (room := self._room()) is not None and room < 0.0:
            side = "below" if self.comparison == "<" else "above"
            raise ValueError(f"close threshold {self.close} is {side} open threshold {self.open}; swap or equal them")

    def _room(self) -> float | None:
        """How far the band reaches, where that can be told without a history or a forecast."""
        sign = 1.0 if self.comparison == "<" else -1.0
        match self.open, self.close:
            case Absolute(opens), Absolute(closes):
                return sign * (closes - opens)
            case Percentile(opens, of, span), Percentile(closes, other, length) if (of, span) == (other, length):
                return sign * (closes - opens)
            case _:
                return None

    def __str__(self) -> str:
        alone = self.close == self.open == usual_close(self.comparison, self.open)
        return f"{self.signal} {self.comparison} {self.open}" + ("" if alone else f"..{self.close}")


@dataclass(frozen=True)
class And:
    """As clean as the dirtiest of its parts, of which it has at least two."""

    parts: "tuple[Rule, ...]"

    def __post_init__(self) -> None:
        _joined(self.parts)

    def __str__(self) -> str:
        return " and ".join(f"({part})" if isinstance(part, And | Or) else str(part) for part in self.parts)


@dataclass(frozen=True)
class Or:
    """As clean as the cleanest of its parts, of which it has at least two."""

    parts: "tuple[Rule, ...]"

    def __post_init__(self) -> None:
        _joined(self.parts)

    def __str__(self) -> str:
        return " or ".join(f"({part})" if isinstance(part, Or) else str(part) for part in self.parts)


Rule = Limit | And | Or
"""``str(rule)`` is its text, which parses to the same rule."""


def below(signal: str, open_below: float, close_above: float) -> Limit:
    """The rule of one signal that is good when it is low.

    Raises:
        ValueError: the thresholds are the wrong way round.
    """
    return Limit(signal, "<", Absolute(open_below), Absolute(close_above))


def usual_close(comparison: Literal["<", ">"], opens: Threshold) -> Threshold:
    """The close threshold when none is given."""
    if comparison == "<" and isinstance(opens, Absolute) and opens.value >= 0.0:
        return Absolute(min(opens.value * WIDENING, _MOST))
    return opens


def limits(rule: Rule) -> Iterator[Limit]:
    """Every limit in the order in which it is written."""
    if isinstance(rule, Limit):
        yield rule
        return
    for part in rule.parts:
        yield from limits(part)


def signals(rule: Rule) -> tuple[str, ...]:
    """The names that a rule reads, each once, in the order in which they are written."""
    return tuple(dict.fromkeys(limit.signal for limit in limits(rule)))


def look_back(rule: Rule, signal: str) -> timedelta:
    """How long a history of the signal the rule reads; zero when it reads none."""
    return _reach(rule, signal, "history")


def look_ahead(rule: Rule, signal: str) -> timedelta:
    """How far ahead the thresholds of the rule read the signal's forecast; zero when they do not."""
    return _reach(rule, signal, "forecast")


def span_text(span: timedelta) -> str:
    """``14d``, ``36h`` or ``90m``: the largest unit that holds it exactly."""
    minutes = span // timedelta(minutes=1)
    for letter, size in (("d", 1440), ("h", 60)):
        if minutes % size == 0:
            return f"{minutes // size}{letter}"
    return f"{minutes}m"


_MOST: Final = 1.7976931348623157e308


def _reach(rule: Rule, signal: str, of: Literal["history", "forecast"]) -> timedelta:
    own = [limit for limit in limits(rule) if limit.signal == signal]
    thresholds = [threshold for limit in own for threshold in (limit.open, limit.close)]
    spans = [threshold.span for threshold in thresholds if isinstance(threshold, Percentile) and threshold.of == of]
    return max(spans, default=timedelta(0))


def _joined(parts: Sequence[Rule]) -> None:
    if len(parts) < 2:
        raise ValueError(f"{len(parts)} parts cannot be joined; give at least two")
