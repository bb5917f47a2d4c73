"""What is believed of a signal, and what is refused and said: tables and properties over the memory of one signal."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import SignalKind, SignalRefused
from windfall.energy.intake import EARLY, MOST_POINTS, Intake, take
from windfall.energy.quotes import Quote, Unbelievable

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")
FRESH = Intake(site="site-a", signal="carbon", kind=SignalKind.MARGINAL)
WEEK = timedelta(days=7)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def grams(minute: float, value: float, kind: SignalKind = SignalKind.MARGINAL) -> Quote:
    return Quote(kind, at(minute), value)


def take_all(
    given: Sequence[tuple[float, Quote | Unbelievable]], intake: Intake = FRESH, look_back: timedelta = timedelta(0)
) -> tuple[Intake, list[SignalRefused]]:
    """Each at its minute by our clock."""
    said: list[SignalRefused] = []
    for minute, one in given:
        intake, events = take(intake, one, at(minute), look_back=look_back)
        said += events
    return intake, said


BEFORE = (5.0, grams(5, 90))


@pytest.mark.parametrize(
    ("bad", "reason", "detail"),
    [
        (grams(6, NAN), "not-finite", "nan gCO2/kWh"),
        (grams(6, INF), "not-finite", "inf gCO2/kWh"),
        (grams(6, -1), "implausible", "-1 gCO2/kWh is not from 0 to 5000"),
        (grams(6, 9000), "implausible", "9000 gCO2/kWh is not from 0 to 5000"),
        (grams(6, 40, SignalKind.PERCENTILE), "kind", "percentile instead of marginal"),
        (grams(4, 300), "order", "a value of 2026-01-01T12:04:00Z after one of 2026-01-01T12:05:00Z"),
        (grams(5, 300), "order", "90 and then 300 gCO2/kWh for the same instant 2026-01-01T12:05:00Z"),
        (grams(8, 90), "future", "a value of 2026-01-01T12:08:00Z at 2026-01-01T12:06:00Z"),
        (Unbelievable("unit", "lb/MWh instead of gCO2/kWh", at(6)), "unit", "lb/MWh instead of gCO2/kWh"),
    ],
    ids=["nan", "infinite", "negative", "absurd", "kind", "order", "two-for-one-instant", "future", "refused-before"],
)
def test_what_is_refused_changes_nothing_and_is_said(bad: Quote | Unbelievable, reason: str, detail: str) -> None:
    before, _ = take_all([BEFORE], look_back=WEEK)
    after, (said,) = take_all([(6, bad)], before, WEEK)
    assert (said.site, said.signal, said.reason, said.detail) == ("site-a", "carbon", reason, detail)
    assert said.at == at(6)
    assert said.point_time == bad.point_time
    assert (after.last, after.history) == (before.last, before.history)


def test_the_same_again_is_passed_over_without_a_word() -> None:
    before, _ = take_all([BEFORE])
    assert take_all([(6, grams(5, 90)), (7, grams(5, 90))], before) == (before, [])


def test_a_reason_is_said_once_until_a_value_is_believed() -> None:
    _, said = take_all(
        [
            (1, grams(1, NAN)),
            (2, grams(2, NAN)),
            (3, grams(3, -1)),
            (4, grams(4, NAN)),
            (5, grams(5, 90)),
            (6, grams(6, NAN)),
            (7, grams(6, INF)),
        ]
    )
    assert [(event.reason, event.at) for event in said] == [
        ("not-finite", at(1)),
        ("implausible", at(3)),
        ("not-finite", at(6)),
    ]
    assert len({event.id for event in said}) == 3


def test_a_retry_says_the_same_sentence() -> None:
    before, _ = take_all([BEFORE])
    (_, once), (_, again) = take_all([(6, grams(6, NAN))], before), take_all([(6, grams(6, NAN))], before)
    assert once == again


def test_a_clock_that_is_set_back_forgets_what_came_from_its_future() -> None:
    ahead = 24 * 60
    # The value is stamped by our own clock, which is a day ahead for a while.
    jumped, said = take_all([(0, grams(0, 90)), (ahead, grams(ahead, 80))], look_back=WEEK)
    assert said == []
    back, (future,) = take_all([(5, grams(5, 95))], jumped, WEEK)
    assert (future.reason, future.point_time) == ("future", at(ahead))
    assert future.detail == "the last value is of 2026-01-02T12:00:00Z and the clock now says 2026-01-01T12:05:00Z"
    assert back.last == grams(5, 95)
    assert [point.point_time for point in back.history] == [at(0), at(5)]


def test_a_clock_that_jumps_ahead_refuses_nothing() -> None:
    intake, said = take_all([(0, grams(0, 90)), (24 * 60, grams(5, 95))])
    assert (intake.last, said) == (grams(5, 95), [])


def test_two_honest_clocks_may_differ_a_little() -> None:
    intake, said = take_all([(0, Quote(SignalKind.MARGINAL, NOON + EARLY, 90))])
    assert intake.last is not None and said == []


def test_the_hour_that_summer_time_repeats_is_two_hours() -> None:
    summer, winter = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))
    times = [
        datetime(2026, 10, 25, 2, 30, tzinfo=summer),
        datetime(2026, 10, 25, 2, 0, tzinfo=winter),
        datetime(2026, 10, 25, 2, 30, tzinfo=winter),
    ]
    intake, said = FRESH, list[SignalRefused]()
    for hour, point_time in enumerate(times):
        quote = Quote(SignalKind.MARGINAL, point_time, 90 + hour)
        intake, events = take(intake, quote, point_time, look_back=WEEK)
        said += events
    assert said == [] and len(intake.history) == 3
    assert all(later.point_time > earlier.point_time for earlier, later in pairwise(intake.history))


def test_a_history_is_kept_as_far_as_the_rule_looks_back() -> None:
    day = timedelta(days=1)
    intake, _ = take_all([(minute, grams(minute, 90)) for minute in range(0, 4 * 1440, 60)], look_back=day)
    assert len(intake.history) == 25
    none, _ = take_all([(0, grams(0, 90))], look_back=timedelta(0))
    assert none.history == ()


def test_a_fast_signal_is_kept_coarsely() -> None:
    day = timedelta(days=1)
    intake = FRESH
    for second in range(0, 86400 * 2, 20):
        intake, _ = take(intake, Quote(SignalKind.MARGINAL, at(second / 60), 90), at(second / 60), look_back=day)
    assert MOST_POINTS * 0.6 < len(intake.history) <= MOST_POINTS
    assert intake.history[-1].point_time - intake.history[0].point_time > day * 0.99


QUOTES = st.builds(
    grams,
    st.integers(-30, 60),
    st.floats(allow_nan=True) | st.floats(0, 5000),
    st.sampled_from([SignalKind.MARGINAL, SignalKind.MARGINAL, SignalKind.PRICE]),
)
CLOCKS = st.lists(st.tuples(st.integers(0, 60), QUOTES), max_size=30)


@given(CLOCKS)
def test_whatever_comes_the_memory_is_believable_and_survives_a_restart(given: list[tuple[int, Quote]]) -> None:
    intake = FRESH
    for minute, quote in given:
        before = intake
        intake, said = take(intake, quote, at(minute), look_back=timedelta(minutes=20))
        assert Intake.model_validate_json(intake.model_dump_json()) == intake
        assert len({event.reason for event in said}) == len(said)
        assert all(event.reason in intake.refused or intake.last == quote for event in said)
        assert all(later.point_time > earlier.point_time for earlier, later in pairwise(intake.history))
        if intake.last is not None:
            assert 0 <= intake.last.value <= 5000 and intake.last.kind is SignalKind.MARGINAL
            assert intake.last.point_time <= at(minute) + EARLY
            assert intake.last in (before.last, quote)
        # The same again is no news.
        assert take(intake, quote, at(minute), look_back=timedelta(minutes=20)) == (intake, ())
