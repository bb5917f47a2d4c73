"""What a surplus rule says of an instant, why, and what would change it; and what it says of the hours ahead.

Outside a window the only question is whether the power is clean; inside, whether it is dirty. So a sentence depends on
where the site is, and names the limits that decide, no others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import groupby

from windfall.energy.quotes import Quote
from windfall.energy.rule import And, Limit, Percentile, Rule, limits, signals, span_text
from windfall.energy.thresholds import Resolved, Series, Valued, enough, resolve
from windfall.energy.verdict import Verdict

Verdicts = tuple[tuple[datetime, Verdict], ...]
"""Each holds from its instant until the next."""


_Limits = Mapping[Limit, Resolved]


@dataclass(frozen=True)
class Judgement:
    """A verdict with its reason."""

    verdict: Verdict
    because: str
    """One sentence, like ``412 gCO2/kWh is not below 100``."""
    would_change: str
    """One sentence, like ``on when carbon is below 100 gCO2/kWh``."""
    unknown: tuple[str, ...] = ()
    """Signals of which something that the rule reads is not known; each fails closed."""
    deciding: tuple[str, ...] = ()
    """The limits that decide, as the rule has them: they change less often than the values in the sentence."""


def judge(
    rule: Rule,
    values: Mapping[str, Quote],
    history: Series | None = None,
    forecast: Series | None = None,
    now: datetime | None = None,
    *,
    inside: bool = False,
) -> Judgement:
    """What the rule says of the present values.

    Args:
        rule: what the site calls surplus.
        values: the present value of each signal; one that is missing or stale is left out, and fails closed.
        history: of signals whose thresholds are percentiles of it.
        forecast: of signals whose thresholds are percentiles of it.
        now: where look-backs end and look-aheads begin; none takes the newest of the values.
        inside: whether a window is open, which decides what the sentences are about.
    """
    now = now or _newest(values)
    known = resolve(rule, history or {}, forecast or {}, now)
    teller = _Teller(values, known, inside, alone=len(signals(rule)) == 1)
    return Judgement(
        teller.verdict(rule),
        " and ".join(dict.fromkeys(teller.fact(limit) for limit in teller.deciding(rule))),
        f"{teller.outcome(rule)} when {teller.condition(rule)}",
        tuple(dict.fromkeys(limit.signal for limit in limits(rule) if teller.mute(limit))),
        tuple(dict.fromkeys(str(limit) for limit in teller.deciding(rule))),
    )


def answered(
    rule: Rule,
    values: Mapping[str, Quote],
    history: Series | None = None,
    forecast: Series | None = None,
    now: datetime | None = None,
) -> bool:
    """Whether the verdict is the same whatever the signals that are missing from ``values`` would say.

    A dead price feed matters to ``carbon < 100 and price < 20`` only while the power is clean.
    """
    known = resolve(rule, history or {}, forecast or {}, now or _newest(values))
    numbers = {name: quote.value for name, quote in values.items()}

    def leaf(missing: Verdict, limit: Limit) -> Verdict:
        return _or_else(Verdict.DIRTY if limit.signal in values else missing, known, numbers, limit)

    return _fold(rule, partial(leaf, Verdict.DIRTY)) is _fold(rule, partial(leaf, Verdict.CLEAN))


def judge_ahead(
    rule: Rule,
    forecast: Series,
    values: Mapping[str, Quote],
    history: Series | None = None,
    now: datetime | None = None,
) -> Verdicts | None:
    """What the rule is expected to say after ``now``, as a step function with as few steps as it has.

    Where a signal has no forecast, or none that far, its limits are expected to change nothing: they are *between*,
    which is Kleene's unknown. Thresholds stay as they are now. None when no signal of the rule has a forecast.
    """
    now = now or _newest(values)
    read = {name: forecast[name] for name in signals(rule) if forecast.get(name)}
    if now is None or not read:
        return None
    known = resolve(rule, history or {}, forecast, now)
    news: dict[datetime, dict[str, float | None]] = {}
    for name, quotes in read.items():
        for quote in quotes:
            news.setdefault(quote.point_time, {})[name] = quote.value
        news.setdefault(_until(quotes), {}).setdefault(name, None)
    numbers: dict[str, float | None] = {name: values[name].value for name in read if name in values}
    last = max(quotes[-1].point_time for quotes in read.values())
    steps: list[tuple[datetime, Verdict]] = []
    for at in sorted(at for at in news if now < at <= last):
        numbers |= news[at]
        steps.append((at, _fold(rule, partial(_or_else, Verdict.BETWEEN, known, dict(numbers)))))
    return tuple(next(run) for _, run in groupby(steps, key=lambda step: step[1]))


def _until(quotes: Sequence[Valued]) -> datetime:
    """How long the last value holds: as long as the one before it did."""
    step = quotes[-1].point_time - quotes[-2].point_time if len(quotes) > 1 else timedelta(0)
    return quotes[-1].point_time + max(step, datetime.resolution)


def _newest(values: Mapping[str, Quote]) -> datetime | None:
    return max((quote.point_time for quote in values.values()), default=None)


def _or_else(unknown: Verdict, known: _Limits, numbers: Mapping[str, float | None], limit: Limit) -> Verdict:
    """What a limit says, and ``unknown`` where nobody can tell."""
    verdict = known[limit].verdict(numbers.get(limit.signal))
    return unknown if verdict is None else verdict


def _fold(rule: Rule, verdict_of: Callable[[Limit], Verdict]) -> Verdict:
    if isinstance(rule, Limit):
        return verdict_of(rule)
    verdicts = (_fold(part, verdict_of) for part in rule.parts)
    return min(verdicts) if isinstance(rule, And) else max(verdicts)


@dataclass(frozen=True)
class _Teller:
    """Says why. A rule holds when it is clean (outside), or not dirty (inside): a question with two answers."""

    values: Mapping[str, Quote]
    known: _Limits
    inside: bool
    alone: bool
    """The rule reads one signal, which then needs no name."""

    def verdict(self, rule: Rule) -> Verdict:
        numbers = {name: quote.value for name, quote in self.values.items()}
        return _fold(rule, partial(_or_else, Verdict.DIRTY, self.known, numbers))

    def holds(self, rule: Rule) -> bool:
        return self.verdict(rule) >= (Verdict.BETWEEN if self.inside else Verdict.CLEAN)

    def mute(self, limit: Limit) -> bool:
        """Something that the limit reads is not known."""
        return limit.signal not in self.values or self.known[limit].missing is not None

    def outcome(self, rule: Rule) -> str:
        stays = "" if self.holds(rule) == self.inside else "stays "
        return stays + ("off" if self.holds(rule) else "on")

    def deciding(self, rule: Rule) -> list[Limit]:
        """The limits that decide: of an ``and`` that fails those that fail, of an ``or`` that holds those that hold."""
        if isinstance(rule, Limit):
            return [rule]
        decisive = [part for part in rule.parts if self.holds(part) == self.holds(rule)]
        return [limit for part in decisive for limit in self.deciding(part)]

    def condition(self, rule: Rule) -> str:
        """What would have to be true for the other answer."""
        if isinstance(rule, Limit):
            return self._other(rule)
        decisive = [part for part in rule.parts if self.holds(part) == self.holds(rule)]
        word = " and " if isinstance(rule, And) != self.holds(rule) else " or "
        told = dict.fromkeys(self.condition(part) for part in decisive)
        return word.join(f"({text})" if " and " in text or " or " in text else text for text in told)

    def fact(self, limit: Limit) -> str:
        quote = self.values.get(limit.signal)
        if quote is None:
            return f"nothing fresh is known of {limit.signal}"
        if (missing := self.known[limit].missing) is not None:
            return f"{limit.signal} has too short a {missing.of} for {missing}"
        name = "" if self.alone else f"{limit.signal} "
        beyond = self._beyond(limit, quote.unit, self.holds(limit) != self.inside)
        return f"{name}{plain(quote.value)} {quote.unit} is {beyond.removesuffix(' ' + quote.unit)}"

    def _other(self, limit: Limit) -> str:
        if (missing := self.known[limit].missing) is not None:
            return f"{limit.signal} has a {missing.of} of {span_text(enough(missing))}"
        quote = self.values.get(limit.signal)
        beyond = self._beyond(limit, quote.unit if quote else "", self.holds(limit) == self.inside)
        return f"{limit.signal} is {beyond}" if quote else f"{limit.signal} is known and {beyond}"

    def _beyond(self, limit: Limit, unit: str, beyond: bool) -> str:
        """``not below 100 gCO2/kWh``, or ``above 150 gCO2/kWh``: on which side of the threshold that is asked for."""
        known = self.known[limit]
        number, threshold = (known.closes, limit.close) if self.inside else (known.opens, limit.open)
        side = "below" if (limit.comparison == "<") != self.inside else "above"
        moving = f" ({threshold})" if isinstance(threshold, Percentile) else ""
        assert number is not None, "only a limit that is known is told"
        return f"{'' if beyond else 'not '}{side} {plain(number)}{moving} {unit}".rstrip()


def plain(value: float) -> str:
    """A number for a sentence: three decimals at most, and never an exponent where digits will do."""
    return f"{round(value, 3) + 0.0:.12g}"
