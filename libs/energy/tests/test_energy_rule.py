"""The surplus rule as tables and properties: text in, verdict and sentence out."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import SignalKind
from windfall.energy.grammar import RuleError, parse
from windfall.energy.judgement import answered, judge, judge_ahead
from windfall.energy.quotes import Quote
from windfall.energy.rule import (
    SIGNAL,
    Absolute,
    And,
    Limit,
    Or,
    Percentile,
    Rule,
    Threshold,
    below,
    limits,
    look_ahead,
    look_back,
    signals,
)
from windfall.energy.thresholds import percentile
from windfall.energy.verdict import Verdict

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
COMPARISONS: tuple[Literal["<", ">"], ...] = ("<", ">")
KINDS = {"carbon": SignalKind.MARGINAL, "price": SignalKind.PRICE, "surplus": SignalKind.SURPLUS}
CLEAN, BETWEEN, DIRTY = Verdict.CLEAN, Verdict.BETWEEN, Verdict.DIRTY


def quote(signal: str, value: float, hours: float = 0) -> Quote:
    return Quote(KINDS[signal], NOON + hours * HOUR, value)


def quotes(signal: str, values: Sequence[float], step: float = 1, start: float = 0) -> list[Quote]:
    return [quote(signal, value, start + place * step) for place, value in enumerate(values)]


def now(**values: float) -> dict[str, Quote]:
    return {name: quote(name, value) for name, value in values.items()}


def thresholds() -> st.SearchStrategy[Threshold]:
    ranks = st.floats(0, 100)
    spans = st.integers(1, 90 * 1440).map(lambda minutes: timedelta(minutes=minutes))
    return st.one_of(
        st.floats(allow_nan=False, allow_infinity=False).map(Absolute),
        st.builds(Percentile, ranks, st.sampled_from(["history", "forecast"]), spans),
    )


@st.composite
def any_limit(draw: st.DrawFn) -> Limit:
    name = draw(
        st.one_of(
            st.sampled_from(["carbon", "p25", "ahead25", "or-else", "e10"]), st.from_regex(SIGNAL, fullmatch=True)
        )
    )
    first, second = draw(thresholds()), draw(thresholds())
    comparison = draw(st.sampled_from(COMPARISONS))
    try:
        return Limit(name, comparison, first, second)
    except ValueError:
        return Limit(name, comparison, second, first)


def rules() -> st.SearchStrategy[Rule]:
    def joined(parts: st.SearchStrategy[Rule]) -> st.SearchStrategy[Rule]:
        several = st.lists(parts, min_size=2, max_size=3).map(tuple)
        return several.map(And) | several.map(Or)

    return st.recursive(any_limit(), joined, max_leaves=8)


@given(rules())
def test_the_text_of_a_rule_is_the_rule(rule: Rule) -> None:
    assert parse(str(rule)) == rule


@given(st.text(alphabet="carbon<>().p25@dahe -or0", max_size=40) | st.text(max_size=30))
def test_a_text_is_a_rule_or_one_clear_line(text: str) -> None:
    try:
        rule = parse(text)
    except RuleError as error:
        assert error.cause and error.cure and "\n" not in str(error)
    else:
        assert parse(str(rule)) == rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("carbon < 100..150", below("carbon", 100, 150)),
        ("carbon<100", below("carbon", 100, 150)),
        ("carbon < 0", below("carbon", 0, 0)),
        ("price < -20", below("price", -20, -20)),
        ("surplus > 5000", Limit("surplus", ">", Absolute(5000), Absolute(5000))),
        ("surplus > 5000..3000", Limit("surplus", ">", Absolute(5000), Absolute(3000))),
        ("carbon < p25", Limit("carbon", "<", Percentile(25), Percentile(25))),
        (
            "carbon < p25@14d..p40@14d",
            Limit("carbon", "<", Percentile(25, span=14 * 24 * HOUR), Percentile(40, span=14 * 24 * HOUR)),
        ),
        (
            "carbon < ahead12.5@48h..180",
            Limit("carbon", "<", Percentile(12.5, "forecast", 48 * HOUR), Absolute(180)),
        ),
        (
            "carbon < 1 and price < 2 or surplus > 3",
            Or((And((below("carbon", 1, 1.5), below("price", 2, 3))), Limit("surplus", ">", Absolute(3), Absolute(3)))),
        ),
        (
            "carbon < 1 and (price < 2 or price < 3)",
            And((below("carbon", 1, 1.5), Or((below("price", 2, 3), below("price", 3, 4.5))))),
        ),
    ],
)
def test_what_a_text_means(text: str, rule: Rule) -> None:
    assert parse(text) == rule


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at the end of '': the name of a signal is missing; write a limit like carbon < 100..150"),
        ("carbon", "at the end of 'carbon': '<' or '>' is missing"),
        ("carbon = 5", "column 8, at '= 5': '<' or '>' is missing"),
        ("carbon <= 5", "column 9, at '= 5': a threshold is missing; write a number like 100, p25"),
        ("carbon < lots", "column 10, at 'lots': a threshold is missing"),
        ("carbon < 5 gCO2", "column 12, at 'gCO2': 'and', 'or' or the end is missing"),
        ("Carbon < 5", "column 1, at 'Carbon < 5': the name of a signal is missing"),
        ("and < 5", "column 1, at 'and < 5': the name of a signal is missing"),
        ("(carbon < 5", "at the end of '(carbon < 5': ')' is missing"),
        ("carbon < 5)", "column 11, at ')': 'and', 'or' or the end is missing"),
        (
            "carbon < 150..100",
            "column 1, at 'carbon < 150..100': close threshold 100 is below open threshold 150; swap",
        ),
        ("surplus > 1..2", "close threshold 2 is above open threshold 1"),
        ("carbon < p25..p20", "close threshold p20 is below open threshold p25"),
        ("carbon < p101", "column 10, at 'p101': percentile 101 does not exist; give one from 0 to 100"),
        ("carbon < p25@400d", "a span of 400 days, 0:00:00 cannot be used; give whole minutes"),
        ("carbon < p25@14w", "column 10, at 'p25@14w': a threshold is missing"),
        ("carbon < 1e999", "a threshold of inf is no number; give a finite one"),
        ("carbon < nan", "a threshold is missing"),
        ("carbon < 5 and", "at the end of 'carbon < 5 and': the name of a signal is missing"),
        ("(" * 21 + "carbon < 5", "too many parentheses within each other; use at most 20"),
        ("(" * 5000, "the rule has 5000 characters; use at most 4000"),
    ],
)
def test_what_is_wrong_with_a_text(text: str, says: str) -> None:
    with pytest.raises(RuleError) as refused:
        parse(text)
    assert says in str(refused.value)


def test_what_a_rule_reads() -> None:
    rule = parse("carbon < p25@2d..p30@3d and price < ahead10 or carbon > 5000")
    assert signals(rule) == ("carbon", "price")
    assert (look_back(rule, "carbon"), look_back(rule, "price")) == (72 * HOUR, 0 * HOUR)
    assert (look_ahead(rule, "carbon"), look_ahead(rule, "price")) == (0 * HOUR, 24 * HOUR)


@pytest.mark.parametrize(
    ("rule", "values", "verdict"),
    [
        ("carbon < 100..150", {"carbon": 99.9}, CLEAN),
        ("carbon < 100..150", {"carbon": 100}, BETWEEN),
        ("carbon < 100..150", {"carbon": 150}, BETWEEN),
        ("carbon < 100..150", {"carbon": 150.1}, DIRTY),
        ("surplus > 5000..3000", {"surplus": 5001}, CLEAN),
        ("surplus > 5000..3000", {"surplus": 5000}, BETWEEN),
        ("surplus > 5000..3000", {"surplus": 2999}, DIRTY),
        ("carbon < 100..100", {"carbon": 100}, BETWEEN),
        ("carbon < 100..150 and price < 20..40", {"carbon": 50, "price": 30}, BETWEEN),
        ("carbon < 100..150 and price < 20..40", {"carbon": 50}, DIRTY),
        ("carbon < 100..150 or surplus > 5000", {"carbon": 50}, CLEAN),
        ("carbon < 100..150", {}, DIRTY),
    ],
)
def test_verdicts(rule: str, values: dict[str, float], verdict: Verdict) -> None:
    assert judge(parse(rule), now(**values), now=NOON).verdict is verdict


BOTH, EITHER = "carbon < 100..150 and price < 20..40", "carbon < 100..150 or surplus > 5000..3000"


@pytest.mark.parametrize(
    ("rule", "values", "inside", "because", "would_change"),
    [
        (
            "carbon < 100..150",
            {"carbon": 412},
            False,
            "412 gCO2/kWh is not below 100",
            "on when carbon is below 100 gCO2/kWh",
        ),
        (
            "carbon < 100..150",
            {"carbon": 45.3592},
            True,
            "45.359 gCO2/kWh is not above 150",
            "off when carbon is above 150 gCO2/kWh",
        ),
        (
            "carbon < 100..150",
            {"carbon": 160},
            True,
            "160 gCO2/kWh is above 150",
            "stays on when carbon is not above 150 gCO2/kWh",
        ),
        (
            "carbon < 100..150",
            {"carbon": 90},
            False,
            "90 gCO2/kWh is below 100",
            "stays off when carbon is not below 100 gCO2/kWh",
        ),
        (
            "surplus > 5000..3000",
            {"surplus": -1500000},
            False,
            "-1500000 W is not above 5000",
            "on when surplus is above 5000 W",
        ),
        (
            "surplus > 5000..3000",
            {"surplus": 4000},
            True,
            "4000 W is not below 3000",
            "off when surplus is below 3000 W",
        ),
        (
            BOTH,
            {"price": 12, "carbon": 80},
            False,
            "carbon 80 gCO2/kWh is below 100 and price 12 EUR/MWh is below 20",
            "stays off when carbon is not below 100 gCO2/kWh or price is not below 20 EUR/MWh",
        ),
        (
            BOTH,
            {"price": 12, "carbon": 800},
            False,
            "carbon 800 gCO2/kWh is not below 100",
            "on when carbon is below 100 gCO2/kWh",
        ),
        (
            BOTH,
            {"price": 50, "carbon": 800},
            False,
            "carbon 800 gCO2/kWh is not below 100 and price 50 EUR/MWh is not below 20",
            "on when carbon is below 100 gCO2/kWh and price is below 20 EUR/MWh",
        ),
        (
            EITHER,
            {"carbon": 80, "surplus": 0},
            True,
            "carbon 80 gCO2/kWh is not above 150",
            "off when carbon is above 150 gCO2/kWh",
        ),
        (
            EITHER,
            {"carbon": 180, "surplus": 0},
            False,
            "carbon 180 gCO2/kWh is not below 100 and surplus 0 W is not above 5000",
            "on when carbon is below 100 gCO2/kWh or surplus is above 5000 W",
        ),
        ("carbon < 100..150", {}, False, "nothing fresh is known of carbon", "on when carbon is known and below 100"),
        (
            "carbon < p25",
            {"carbon": 80},
            False,
            "carbon has too short a history for p25",
            "on when carbon has a history of 1d",
        ),
        (
            "carbon < ahead25@6h",
            {"carbon": 80},
            True,
            "carbon has too short a forecast for ahead25@6h",
            "stays on when carbon has a forecast of 3h",
        ),
        (
            "carbon < 50 and price < 5 or surplus > 9000",
            {"carbon": 80, "price": 9, "surplus": 0},
            False,
            "carbon 80 gCO2/kWh is not below 50 and price 9 EUR/MWh is not below 5 and surplus 0 W is not above 9000",
            "on when (carbon is below 50 gCO2/kWh and price is below 5 EUR/MWh) or surplus is above 9000 W",
        ),
    ],
)
def test_sentences(rule: str, values: dict[str, float], inside: bool, because: str, would_change: str) -> None:
    judgement = judge(parse(rule), now(**values), now=NOON, inside=inside)
    assert (judgement.because, judgement.would_change) == (because, would_change)


def test_a_percentile_of_the_history_says_where_it_comes_from() -> None:
    history = {"carbon": quotes("carbon", [100 + hour for hour in range(101)], start=-100)}
    judgement = judge(parse("carbon < p25..p50"), now(carbon=120), history, now=NOON)
    assert judgement.verdict is CLEAN and judgement.unknown == ()
    assert judgement.because == "120 gCO2/kWh is below 125 (p25)"
    inside = judge(parse("carbon < p25..p50"), now(carbon=151), history, now=NOON, inside=True)
    assert inside.because == "151 gCO2/kWh is above 150 (p50)"


def test_a_look_back_sees_no_further_than_it_says() -> None:
    history = {"carbon": [*quotes("carbon", [500] * 50, start=-100), *quotes("carbon", [100] * 50, start=-49)]}
    assert judge(parse("carbon < p50@2d"), now(carbon=101), history, now=NOON).verdict is DIRTY
    assert judge(parse("carbon < p90@7d..p90@7d"), now(carbon=101), history, now=NOON).verdict is CLEAN


def test_a_forecast_makes_thresholds() -> None:
    forecast = {"carbon": quotes("carbon", [100, 200, 300, 400, 500], step=5, start=1)}
    assert judge(parse("carbon < ahead25..ahead50"), now(carbon=199), forecast=forecast, now=NOON).verdict is CLEAN
    assert judge(parse("carbon < ahead25..ahead50"), now(carbon=300), forecast=forecast, now=NOON).verdict is BETWEEN


def test_a_moving_band_on_the_wrong_side_is_dirty_first() -> None:
    history = {"carbon": quotes("carbon", [100 + hour for hour in range(101)], start=-100)}
    rule = parse("carbon < p25..110")
    verdicts = [judge(rule, now(carbon=value), history, now=NOON).verdict for value in (105, 120, 130)]
    assert verdicts == [CLEAN, DIRTY, DIRTY]


def test_what_is_not_known_is_named() -> None:
    judgement = judge(parse("carbon < p25 and price < 5 or surplus > 1"), now(carbon=5), now=NOON)
    assert judgement.verdict is DIRTY
    assert judgement.unknown == ("carbon", "price", "surplus")


def told(steps: Sequence[tuple[datetime, Verdict]] | None) -> list[tuple[float, int]] | None:
    return None if steps is None else [((at - NOON) / HOUR, int(verdict)) for at, verdict in steps]


@pytest.mark.parametrize(
    ("rule", "ahead", "values", "steps"),
    [
        ("carbon < 100..150", {}, {"carbon": 90}, None),
        (
            "carbon < 100..150",
            {"carbon": [90, 95, 120, 160, 170, 90]},
            {"carbon": 90},
            [(1, 1), (3, 0), (4, -1), (6, 1)],
        ),
        (
            "carbon < 100 and price < 20",
            {"carbon": [90, 900, 90]},
            {"carbon": 90, "price": 9},
            [(1, 0), (2, -1), (3, 0)],
        ),
        (
            "carbon < 100 or price < 20",
            {"carbon": [90, 900, 90]},
            {"carbon": 90, "price": 99},
            [(1, 1), (2, 0), (3, 1)],
        ),
        (
            "carbon < 100 and price < 20",
            {"carbon": [90, 90], "price": [9, 9, 99, 9]},
            {"carbon": 90, "price": 9},
            [(1, 1), (3, -1), (4, 0)],
        ),
        ("carbon < ahead25", {"carbon": [10, 10]}, {"carbon": 90}, [(1, 0)]),
    ],
    ids=["no-forecast", "steps", "and-half-known", "or-half-known", "one-ends-before-the-other", "no-threshold"],
)
def test_ahead(
    rule: str,
    ahead: dict[str, Sequence[float]],
    values: dict[str, float],
    steps: list[tuple[float, int]] | None,
) -> None:
    forecast = {name: quotes(name, expected, start=1) for name, expected in ahead.items()}
    assert told(judge_ahead(parse(rule), forecast, now(**values), now=NOON)) == steps


def test_a_forecast_that_begins_later_holds_the_present_until_then() -> None:
    forecast = {"carbon": quotes("carbon", [90, 90, 90], start=1), "price": quotes("price", [99, 99], start=2)}
    steps = judge_ahead(parse("carbon < 100 and price < 20"), forecast, now(carbon=900, price=9), now=NOON)
    assert told(steps) == [(1, 1), (2, -1)]


VALUES = st.dictionaries(st.sampled_from(list(KINDS)), st.floats(-1e6, 1e6), max_size=3)


@st.composite
def known_rules(draw: st.DrawFn) -> Rule:
    def limit(draw: st.DrawFn) -> Limit:
        low, high = sorted(draw(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))))
        name = draw(st.sampled_from(list(KINDS)))
        return draw(
            st.sampled_from(
                [Limit(name, "<", Absolute(low), Absolute(high)), Limit(name, ">", Absolute(high), Absolute(low))]
            )
        )

    several = st.lists(st.composite(limit)(), min_size=2, max_size=3).map(tuple)
    parts = draw(several)
    shapes: list[Rule] = [parts[0], And(parts), Or(parts), And((Or(parts), parts[0]))]
    return draw(st.sampled_from(shapes))


@given(known_rules(), VALUES)
def test_silence_never_makes_a_verdict_better(rule: Rule, values: dict[str, float]) -> None:
    whole = judge(rule, now(**values), now=NOON)
    for name in values:
        less = judge(rule, now(**{other: value for other, value in values.items() if other != name}), now=NOON)
        assert less.verdict <= whole.verdict


@given(known_rules(), VALUES, st.dictionaries(st.sampled_from(list(KINDS)), st.floats(-1e6, 1e6), max_size=3))
def test_what_is_answered_stays_so_whatever_the_missing_signals_say(
    rule: Rule, values: dict[str, float], others: dict[str, float]
) -> None:
    if answered(rule, now(**values)):
        assert judge(rule, now(**{**others, **values})).verdict is judge(rule, now(**values)).verdict


def test_a_dead_feed_matters_only_where_it_decides() -> None:
    both, either = parse("carbon < 100 and price < 20"), parse("carbon < 100 or price < 20")
    assert answered(both, now(carbon=900)) and not answered(both, now(carbon=90))
    assert answered(either, now(carbon=90)) and not answered(either, now(carbon=900))
    assert not answered(both, {})
    assert answered(parse("carbon < p25"), now(carbon=90)), "without a history it is dirty whatever comes"


@given(known_rules(), VALUES, st.booleans())
def test_a_judgement_says_why_in_one_line(rule: Rule, values: dict[str, float], inside: bool) -> None:
    judgement = judge(rule, now(**values), now=NOON, inside=inside)
    assert judgement.because and judgement.would_change and "\n" not in judgement.because + judgement.would_change
    on = judgement.verdict >= (BETWEEN if inside else CLEAN)
    assert judgement.would_change.removeprefix("stays ").startswith("off when" if on else "on when")
    assert set(judgement.unknown) == set(signals(rule)) - set(values)


@given(known_rules(), VALUES, st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_ahead_agrees_with_what_will_be_judged(rule: Rule, values: dict[str, float], expected: list[float]) -> None:
    values = {**dict.fromkeys(KINDS, 0.0), **values}
    forecast = {name: quotes(name, expected, start=1) for name in KINDS}
    steps = judge_ahead(rule, forecast, now(**values), now=NOON)
    assert steps is not None
    assert all(earlier[1] is not later[1] for earlier, later in pairwise(steps))
    for place, value in enumerate(expected):
        at = NOON + (place + 1) * HOUR
        held = [verdict for since, verdict in steps if since <= at][-1]
        then = {name: quote(name, value, place + 1) for name in KINDS}
        assert held is judge(rule, then).verdict


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 100), st.floats(0, 100))
def test_percentiles_grow_with_their_rank(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert min(values) == percentile(values, 0) <= percentile(values, low)
    assert percentile(values, low) <= percentile(values, high) + 1e-6 <= percentile(values, 100) + 2e-6
    assert percentile(values, 100) == max(values)


def test_percentiles_of_a_few() -> None:
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([7], 99) == 7
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    assert len(list(limits(parse("carbon < 1 or price < 2 and price < 3")))) == 3
