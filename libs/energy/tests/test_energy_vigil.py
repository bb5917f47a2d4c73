"""News, time and plans as properties: what a site decides does not depend on how it was told."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.contracts.commands import FollowPlan, Span
from windfall.contracts.events import Point, SignalForecast, SignalKind, SiteEvent, WindowClosed, WindowOpened
from windfall.energy import vigil
from windfall.energy.bulletin import MOST_VALUES, bulletin
from windfall.energy.gate import Phase
from windfall.energy.grammar import parse
from windfall.energy.heed import boundaries, heed, heed_ahead, newer
from windfall.energy.intake import Intake
from windfall.energy.lookout import Lookout, Terms
from windfall.energy.policy import Policy
from windfall.energy.quotes import Quote
from windfall.energy.verdict import Verdict
from windfall.energy.windows import Watch

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
KINDS = {"carbon": SignalKind.MARGINAL, "price": SignalKind.PRICE}
TERMS = Terms(
    parse("carbon < 100..150 and price < 20..40"),
    Policy(stale_after=timedelta(minutes=20), drain=timedelta(minutes=2)),
    horizon=timedelta(0),
)
FRESH = Lookout(
    Watch(site="site-a", watched_since=NOON),
    {name: Intake(site="site-a", signal=name, kind=kind) for name, kind in KINDS.items()},
)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


Told = Sequence[tuple[int, str, float]]
"""Minute, signal, value."""


def quotes(told: Told) -> dict[str, list[Quote]]:
    return {name: [Quote(KINDS[name], at(minute), value) for minute, of, value in told if of == name] for name in KINDS}


def advanced(lookout: Lookout, told: Told, minute: int, terms: Terms = TERMS) -> tuple[Lookout, list[SiteEvent]]:
    steps = vigil.look(lookout, quotes(told), {}, at(minute), terms)
    steps += vigil.pass_time(steps[-1][0] if steps else lookout, {}, at(minute), terms)
    return steps[-1][0], [event for _, said in steps for event in said]


@st.composite
def days(draw: st.DrawFn) -> Told:
    minutes = sorted(draw(st.sets(st.integers(0, 60), min_size=1, max_size=25)))
    values = st.sampled_from([("carbon", 50.0), ("carbon", 120.0), ("carbon", 400.0), ("price", 10.0), ("price", 90.0)])
    return [(minute * 5, *draw(values)) for minute in minutes]


@given(days())
@settings(max_examples=150)
def test_who_was_away_decides_what_an_attentive_one_did(told: Told) -> None:
    attentive, said = FRESH, list[SiteEvent]()
    for one in told:
        attentive, events = advanced(attentive, [one], one[0])
        said += events
    away, at_once = advanced(FRESH, told, told[-1][0])
    assert at_once == said
    assert away == attentive


@given(days(), st.integers(0, 400))
def test_windows_open_and_close_in_turn_and_end_in_silence(told: Told, later: int) -> None:
    lookout, said = advanced(FRESH, told, told[-1][0])
    lookout, more = advanced(lookout, [], told[-1][0] + later)
    moves = [event for event in (*said, *more) if isinstance(event, WindowOpened | WindowClosed)]
    assert all(type(earlier) is not type(next_) for earlier, next_ in pairwise(moves))
    assert all(earlier.at <= next_.at for earlier, next_ in pairwise(moves))
    if later > 20:
        assert lookout.watch.gate.phase is Phase.SHUT
    due = vigil.next_due(lookout, {}, at(told[-1][0] + later), TERMS)
    assert due is None or due > at(told[-1][0] + later)


@given(days())
def test_the_same_news_again_is_no_news(told: Told) -> None:
    lookout, _ = advanced(FRESH, told, told[-1][0])
    assert advanced(lookout, told[-1:], told[-1][0]) == (lookout, [])


def plan(*spans: tuple[float, float], until: float = 600, made: float = 0) -> FollowPlan:
    return FollowPlan(
        id=UUID(int=1),
        at=at(made),
        site="site-a",
        federation="demo",
        spans=tuple(Span(start=at(start), end=at(end)) for start, end in spans),
        valid_until=at(until),
        because="",
    )


def test_what_a_plan_makes_of_an_instant() -> None:
    orders = plan((60, 120), (180, 700))
    found = [heed(orders, at(minute)) for minute in (0, 60, 120, 180, 600)]
    assert [None if one is None else (one.runs, one.changes_at) for one in found] == [
        (False, at(60)),
        (True, at(120)),
        (False, at(180)),
        (True, at(600)),
        None,
    ]
    assert heed(None, NOON) is None
    assert boundaries(orders, at(0), at(600)) == (at(60), at(120), at(180), at(600))
    assert boundaries(None, at(0), at(600)) == ()


def test_the_newer_plan_counts() -> None:
    old, new = plan(made=0), plan(made=5)
    assert newer(None, old) is old and newer(old, new) is new and newer(new, old) is new


def test_what_is_expected_under_a_plan() -> None:
    own = ((at(30), Verdict.CLEAN), (at(90), Verdict.DIRTY))
    expected = heed_ahead(plan((60, 120), until=180), at(0), own, own)
    assert expected == ((at(0), Verdict.DIRTY), (at(60), Verdict.CLEAN), (at(90), Verdict.DIRTY))
    blind = heed_ahead(plan((0, 120), until=180), at(0), None, None)
    assert blind == ((at(0), Verdict.BETWEEN), (at(120), Verdict.DIRTY), (at(180), Verdict.BETWEEN))


@given(days(), st.sampled_from([(0, 60), (30, 90), (100, 300)]))
def test_a_plan_never_opens_what_the_rule_would_not(told: Told, span: tuple[float, float]) -> None:
    planned = Lookout(FRESH.watch, FRESH.intakes, plan(span))
    _, said = advanced(planned, told, told[-1][0])
    for event in said:
        if isinstance(event, WindowOpened):
            assert at(span[0]) <= event.at < at(span[1])
            values = {
                name: [value for minute, of, value in told if of == name and at(minute) <= event.at] for name in KINDS
            }
            assert values["carbon"][-1] < 100 and values["price"][-1] < 20


def points(values: Sequence[float], step: float = 5) -> list[Point]:
    return [Point(point_time=at((place + 1) * step), value=value) for place, value in enumerate(values)]


def told_of(values: Sequence[float], minute: float = 0, last: SignalForecast | None = None) -> SignalForecast | None:
    return bulletin("site-a", SignalKind.MARGINAL, 10.0, points(values), at(minute), last)


def test_a_bulletin_holds_one_value_for_each_step() -> None:
    first = told_of([20, 30, 40])
    assert first is not None
    assert (first.step_s, first.values, first.issued_at) == (300, (10, 20, 30, 40), NOON)
    assert told_of([]) is None


@pytest.mark.parametrize(
    ("values", "minute", "news"),
    [([20] * 50, 65, False), ([20] * 49 + [200], 65, True), ([20] * 49 + [200], 30, False), ([20] * 150, 65, True)],
    ids=["the-same", "another-value", "too-soon", "reaches-further"],
)
def test_a_bulletin_is_news_or_is_not_told(values: Sequence[float], minute: float, news: bool) -> None:
    first = bulletin("site-a", SignalKind.MARGINAL, 20.0, points([20] * 50), NOON, None)
    then = bulletin("site-a", SignalKind.MARGINAL, 20.0, points(values), at(minute), first)
    assert (then is not None) is news


@given(st.integers(1, 3000), st.sampled_from([1, 5, 30, 60]))
def test_a_bulletin_fits_and_reaches_as_far_as_the_forecast(count: int, step: int) -> None:
    ahead = points([float(place) for place in range(count)], step)
    told = bulletin("site-a", SignalKind.MARGINAL, 0.0, ahead, NOON, None)
    assert told is not None and len(told.values) <= MOST_VALUES
    span = timedelta(seconds=told.step_s)
    assert NOON + span * (len(told.values) - 1) <= ahead[-1].point_time < NOON + span * len(told.values)


@pytest.mark.parametrize(("marginal", "phase"), [(240.0, Phase.OPEN), (900.0, Phase.SHUT)])
def test_a_plan_gets_no_power_that_any_intensity_calls_dirtier_than_was_lent(marginal: float, phase: Phase) -> None:
    kinds = {"mean": SignalKind.AVERAGE, "marginal": SignalKind.MARGINAL}
    terms = Terms(parse("mean < 100 and marginal < 100"), Policy(), plan_limit_g_per_kwh=250.0)
    lookout = Lookout(
        Watch(site="site-a", watched_since=NOON),
        {name: Intake(site="site-a", signal=name, kind=kind) for name, kind in kinds.items()},
        plan=plan((0, 600)),
    )
    news = {name: [Quote(kinds[name], NOON, value)] for name, value in (("mean", 200.0), ("marginal", marginal))}
    assert vigil.look(lookout, news, {}, NOON, terms)[-1][0].watch.gate.phase is phase
