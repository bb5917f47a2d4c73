"""The watch as tables: readings in, sentences out."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import (
    SignalStale,
    SiteEvent,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import derived_id
from windfall.energy.forecast import PERFECT, ForecastError, perfect
from windfall.energy.policy import Policy
from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import Reading, Trace, parse_trace
from windfall.energy.windows import Events, Watch, finish, next_tick, sight_of, tick, window_of
from windfall.energy.windows import observe as look_at

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAN = float("nan")
FRESH = Watch(site="site-a", watched_since=NOON)


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def at(minute: float) -> datetime:
    return NOON + minutes(minute)


def observe(watch: Watch, reading: Reading, ahead: Sequence[Reading], policy: Policy) -> tuple[Watch, Events]:
    """A carbon reading under the policy's thresholds; one that cannot be true is not seen at all."""
    sight = sight_of(reading, ahead, policy)
    return (watch, ()) if sight is None else look_at(watch, sight, policy)


def watch_all(
    readings: Sequence[tuple[float, float]], policy: Policy, horizon: timedelta = minutes(0), start: Watch = FRESH
) -> tuple[Watch, list[SiteEvent]]:
    """Every reading through ``observe``, with the readings after it as the forecast."""
    points = [Reading(at(minute), value) for minute, value in readings]
    watch, said = start, list[SiteEvent]()
    for reading in points:
        ahead = [later for later in points if reading.point_time < later.point_time <= reading.point_time + horizon]
        watch, events = observe(watch, reading, ahead, policy)
        said += events
    return watch, said


def told(events: Sequence[SiteEvent]) -> list[str]:
    """``window.opened+5``: what, and how many minutes after noon."""
    return [f"{event.topic}{(event.at - NOON) / minutes(1):+g}" for event in events]


BLIND = Policy(stale_after=minutes(60))


@pytest.mark.parametrize(
    ("policy", "readings", "said"),
    [
        (BLIND, [(0, 150)], []),
        (BLIND, [(0, 100)], []),
        (BLIND, [(0, 99)], ["window.opened+0"]),
        (BLIND, [(0, 90), (5, 150), (30, 150)], ["window.opened+0"]),
        (BLIND, [(0, 90), (5, 151), (10, 151), (15, 151)], ["window.opened+0", "window.closed+15"]),
        (BLIND, [(0, 90), (5, 151), (10, 150), (15, 151), (20, 151)], ["window.opened+0"]),
        (BLIND, [(0, 90), (5, 160), (30, 160)], ["window.opened+0", "window.closed+30"]),
        (
            BLIND,
            [(0, 90), (5, 160), (15, 160), (20, 120), (25, 90)],
            ["window.opened+0", "window.closed+15", "window.opened+25"],
        ),
        (Policy(dwell=minutes(10)), [(0, 90), (5, 90), (10, 90)], ["window.opened+10"]),
        (Policy(dwell=minutes(10)), [(0, 90), (5, 100), (10, 90), (15, 90)], []),
        (Policy(grace=minutes(0)), [(0, 90), (5, 151)], ["window.opened+0", "window.closed+5"]),
    ],
    ids=[
        "dirty",
        "not-strictly-below",
        "clean",
        "in-the-band",
        "dirty-for-the-grace",
        "flicker",
        "coarse-readings",
        "band-then-clean-again",
        "dwell",
        "dwell-interrupted",
        "no-grace",
    ],
)
def test_windows(policy: Policy, readings: list[tuple[float, float]], said: list[str]) -> None:
    assert told(watch_all(readings, policy)[1]) == said


def test_a_closed_window_names_its_crossing() -> None:
    watch, said = watch_all([(0, 90), (5, 200), (10, 200), (15, 200)], BLIND)
    opened, closed = said
    assert isinstance(opened, WindowOpened) and isinstance(closed, WindowClosed)
    assert (closed.reason, closed.crossed_at) == ("dirty", at(5))
    assert opened.window_id == closed.window_id == window_of("site-a", at(0))
    assert opened.id == derived_id(opened.window_id, "window.opened", "site-a") != closed.id
    assert (watch.window_id, watch.is_open, watch.opened_at, watch.expected_close_at) == (None, False, None, None)


@pytest.mark.parametrize(
    "bad",
    [(7, NAN), (7, float("inf")), (7, -1), (7, 6000), (5, 300), (2, 300)],
    ids=["nan", "infinite", "negative", "absurd", "duplicate", "out-of-order"],
)
@pytest.mark.parametrize("before", [[(0, 90), (5, 90)], [(0, 300), (5, 300)]], ids=["inside", "outside"])
def test_a_reading_that_cannot_be_believed_changes_nothing(
    before: list[tuple[float, float]], bad: tuple[float, float]
) -> None:
    watch, _ = watch_all(before, BLIND)
    assert watch_all([bad], BLIND, start=watch) == (watch, [])


FORESEEN = Policy(closing_lead=minutes(7), stale_after=minutes(60), error=PERFECT)
HOUR = minutes(60)


@pytest.mark.parametrize(
    ("policy", "horizon", "readings", "said"),
    [
        (
            FORESEEN,
            HOUR,
            [(0, 90), (5, 90), (10, 200), (15, 200), (20, 200)],
            ["window.opened+0", "window.closing+5", "window.closed+10"],
        ),
        (
            replace(FORESEEN, ride_through=minutes(5)),
            HOUR,
            [(0, 90), (5, 200), (10, 90), (15, 90)],
            ["window.opened+0"],
        ),
        (
            FORESEEN,
            HOUR,
            [(0, 90), (5, 200), (10, 90), (15, 90)],
            ["window.opened+0", "window.closing+0", "window.closed+5", "window.opened+10"],
        ),
        (
            FORESEEN,
            minutes(5),
            [(0, 90), (5, 90), (10, 200), (15, 200)],
            ["window.opened+0", "window.closing+5", "window.closed+10"],
        ),
        (replace(FORESEEN, minimum_window=minutes(15)), HOUR, [(0, 90), (5, 90), (10, 200), (15, 200)], []),
        (
            replace(FORESEEN, minimum_window=minutes(15), closing_lead=minutes(0)),
            HOUR,
            [(0, 90), (5, 90), (10, 90), (15, 200), (20, 200)],
            ["window.opened+0", "window.closed+15"],
        ),
        (
            Policy(minimum_window=minutes(15)),
            minutes(0),
            [(0, 90), (5, 200), (10, 200), (15, 200)],
            ["window.opened+0", "window.closed+15"],
        ),
    ],
    ids=[
        "closing-before-the-crossing",
        "a-dip-that-is-ridden-through",
        "a-dip-is-an-end",
        "seen-just-in-time",
        "too-short-to-open",
        "long-enough",
        "no-forecast-opens-and-is-never-held",
    ],
)
def test_windows_with_a_forecast(
    policy: Policy, horizon: timedelta, readings: list[tuple[float, float]], said: list[str]
) -> None:
    assert told(watch_all(readings, policy, horizon)[1]) == said


def test_closing_names_the_crossing() -> None:
    points = [(0.0, 90.0), (30.0, 200.0), (40.0, 200.0)]
    ahead = [Reading(at(minute), value) for minute, value in points[1:]]
    opened, _ = observe(FRESH, Reading(at(0), 90.0), ahead, FORESEEN)
    assert next_tick(opened, FORESEEN) == at(23)
    assert tick(opened, at(22.9), FORESEEN) == (opened, ())
    watch, (closing,) = tick(opened, at(23), FORESEEN)
    assert isinstance(closing, WindowClosing)
    assert (closing.at, closing.closes_at) == (at(23), at(30))
    assert tick(watch, at(24), FORESEEN) == (watch, ())


def test_an_end_that_moves_is_said_again_and_one_that_does_not_come_begins_a_new_window() -> None:
    ahead = [Reading(at(30), 200.0), Reading(at(40), 200.0)]
    opened, _ = observe(FRESH, Reading(at(0), 90.0), ahead, FORESEEN)
    warned, _ = tick(opened, at(23), FORESEEN)
    later, (again,) = observe(warned, Reading(at(25), 90.0), [Reading(at(35), 200.0)], FORESEEN)
    assert isinstance(again, WindowClosing) and again.closes_at == at(35)
    still_clean, said = observe(later, Reading(at(35), 90.0), [Reading(at(60), 200.0)], FORESEEN)
    assert told(said) == ["window.closed+35", "window.opened+35"]
    assert isinstance(said[0], WindowClosed) and said[0].reason == "foreseen"
    assert said[0].window_id == opened.window_id != still_clean.window_id


def test_a_forecast_that_is_not_trusted_warns_only_where_the_drain_is_worth_it() -> None:
    points = [(5.0 * place, 90.0 if place < 6 else 200.0) for place in range(12)]
    quick = replace(FORESEEN, error=ForecastError(), drain=timedelta(seconds=5))
    slow = replace(FORESEEN, error=ForecastError(), drain=minutes(3))
    assert [text for text in told(watch_all(points, quick, HOUR)[1]) if "closing" in text] == []
    assert [text for text in told(watch_all(points, slow, HOUR)[1]) if "closing" in text] == ["window.closing+25"]


WARM = Policy(start_up=minutes(4), drain=minutes(0.25), stale_after=minutes(60), error=PERFECT)


def test_a_short_window_is_expected_ahead_under_its_own_id() -> None:
    points = [Reading(at(5.0 * place), 40.0 if 6 <= place < 18 else 400.0) for place in range(24)]
    watch, said = observe(FRESH, points[0], points[1:], WARM)
    assert said == () and next_tick(watch, WARM) == at(26)
    expecting, (expected,) = tick(watch, at(26), WARM)
    assert isinstance(expected, WindowExpected)
    assert (expected.opens_at, expected.expected_close_at, expected.confidence) == (at(30), at(90), 1.0)
    opened, said = observe(expecting, points[6], points[7:], WARM)
    assert isinstance(said[0], WindowOpened) and said[0].window_id == expected.window_id
    assert opened.is_open


def test_an_expected_window_that_does_not_come_is_withdrawn() -> None:
    points = [Reading(at(5.0 * place), 40.0 if 6 <= place < 18 else 400.0) for place in range(24)]
    watch, _ = observe(FRESH, points[0], points[1:], WARM)
    expecting, (expected,) = tick(watch, at(26), WARM)
    soon, said = observe(expecting, Reading(at(27), 400.0), [Reading(at(30), 40.0), Reading(at(90), 400.0)], WARM)
    assert said == () and soon.window_id == expected.window_id
    never, (withdrawn,) = observe(expecting, Reading(at(30), 400.0), [Reading(at(35), 400.0)], WARM)
    assert isinstance(withdrawn, WindowWithdrawn) and withdrawn.window_id == expected.window_id
    assert never.window_id is None
    assert told(tick(expecting, at(61), replace(WARM, stale_after=minutes(30)))[1]) == [
        "signal.stale+30",
        "window.withdrawn+30",
    ]


def test_a_window_that_does_not_repay_its_start_up_is_not_opened() -> None:
    def opened(lasts: int, policy: Policy = WARM) -> list[str]:
        points = [(5.0 * place, 40.0 if 6 <= place < 6 + lasts else 400.0) for place in range(60)]
        return [text for text in told(watch_all(points, policy, minutes(300))[1]) if "opened" in text]

    assert opened(4) == []
    assert opened(5) == ["window.opened+30"]
    assert opened(1, replace(WARM, payback=0.0)) == ["window.opened+30"]


SHORT = Policy(stale_after=minutes(15))


def test_silence_fails_closed_and_recovers() -> None:
    inside, _ = watch_all([(0, 90)], SHORT)
    assert tick(inside, at(15), SHORT) == (inside, ())
    due = next_tick(inside, SHORT)
    assert due is not None and due > at(15)
    watch, (stale, closed) = tick(inside, due, SHORT)
    assert isinstance(stale, SignalStale) and isinstance(closed, WindowClosed)
    assert (stale.last_point_time, stale.limit_s, stale.at) == (at(0), 900.0, at(15))
    assert (closed.reason, closed.crossed_at, closed.at) == ("stale", at(15), at(15))
    assert next_tick(watch, SHORT) is None
    assert tick(watch, at(300), SHORT) == (watch, ())
    _, said = watch_all([(120, 90), (125, 90)], SHORT, start=watch)
    assert told(said) == ["signal.recovered+120", "window.opened+120"]


def test_a_gap_between_two_readings_is_silence_too() -> None:
    _, said = watch_all([(0, 90), (15, 90), (31, 90)], SHORT)
    assert told(said) == [
        "window.opened+0",
        "signal.stale+30",
        "window.closed+30",
        "signal.recovered+31",
        "window.opened+31",
    ]


def test_silence_interrupts_the_dwell() -> None:
    policy = Policy(dwell=minutes(20), stale_after=minutes(15))
    _, said = watch_all([(0, 90), (16, 90), (30, 90), (36, 90)], policy)
    assert told(said) == ["signal.stale+15", "signal.recovered+16", "window.opened+36"]


def test_nonsense_is_no_sign_of_life() -> None:
    watch, _ = watch_all([(0, 90), (5, NAN), (10, -1), (14, 9999)], SHORT)
    assert told(tick(watch, at(16), SHORT)[1]) == ["signal.stale+15", "window.closed+15"]


def test_a_signal_that_never_spoke_is_stale() -> None:
    watch, (stale,) = tick(FRESH, at(20), SHORT)
    assert isinstance(stale, SignalStale)
    assert stale.last_point_time is None
    assert told(watch_all([(25, 300)], SHORT, start=watch)[1]) == ["signal.recovered+25"]


def test_the_end_of_the_source_ends_the_window() -> None:
    inside, _ = watch_all([(0, 90), (5, 200)], BLIND)
    watch, (closed,) = finish(inside, at(10), BLIND)
    assert isinstance(closed, WindowClosed)
    assert (closed.reason, closed.crossed_at, closed.at) == ("ended", at(5), at(10))
    assert finish(watch, at(11), BLIND) == (watch, ())


def test_a_watch_survives_its_journal() -> None:
    watch, _ = watch_all([(0, 90), (5, 200)], FORESEEN)
    watch = watch.model_copy(update={"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"})
    restored = Watch.model_validate_json(watch.model_dump_json())
    assert restored == watch
    later = [(10.0, 200.0), (15.0, 200.0)]
    assert watch_all(later, FORESEEN, start=restored) == watch_all(later, FORESEEN, start=watch)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"open_below_g_per_kwh": 151.0}, "over close above"),
        ({"open_below_g_per_kwh": NAN}, "open_below_g_per_kwh is nan"),
        ({"close_above_g_per_kwh": 9999.0}, "close_above_g_per_kwh is 9999"),
        ({"grace": minutes(-1)}, "grace is negative"),
        ({"stale_after": minutes(0)}, "stale_after"),
    ],
)
def test_policies_that_make_no_sense(wrong: dict[str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Policy(**wrong)  # type: ignore[arg-type]


# The day that ships, at 100/150 gCO2/kWh: hours and minutes of opening, crossing, and closing after ten minutes of
# grace when nobody has foreseen it.
DAY = {
    "site-a": [
        ("01:00", "04:00", "04:10"),
        ("07:00", "07:15", "07:25"),
        ("09:00", "13:00", "13:10"),
        ("20:00", "23:00", "23:10"),
    ],
    "site-b": [("03:00", "06:00", "06:10"), ("11:00", "16:30", "16:40"), ("19:00", "21:00", "21:10")],
    "site-c": [("05:00", "08:00", "08:10"), ("12:00", "15:00", "15:10"), ("21:30", "23:30", "23:40")],
}


def day_of(trace: Trace, policy: Policy, horizon: timedelta) -> list[SiteEvent]:
    watch, said = Watch(site="site-a", watched_since=trace.start), list[SiteEvent]()
    for reading in trace.points:
        watch, events = observe(watch, reading, perfect(trace, reading.point_time, horizon), policy)
        said += events
    return said + list(finish(watch, trace.end, policy)[1])


@pytest.mark.parametrize("horizon", [minutes(0), minutes(30), minutes(600)], ids=["blind", "30-min", "10-h"])
@pytest.mark.parametrize("site", sorted(DAY))
def test_the_shipped_day(site: str, horizon: timedelta) -> None:
    said = day_of(parse_trace(synthetic_trace(), site), Policy(error=PERFECT, ride_through=minutes(10)), horizon)
    opened = [event for event in said if isinstance(event, WindowOpened)]
    closed = [event for event in said if isinstance(event, WindowClosed)]
    closing = [event for event in said if isinstance(event, WindowClosing)]
    windows = [
        (f"{first.at:%H:%M}", f"{last.crossed_at:%H:%M}", f"{last.at:%H:%M}")
        for first, last in zip(opened, closed, strict=True)
    ]
    assert windows == [(a, b, b if horizon else c) for a, b, c in DAY[site]]
    if horizon:
        assert [event.closes_at for event in closing] == [event.crossed_at for event in closed]
        assert all(event.at == event.closes_at - minutes(5) for event in closing)
    else:
        assert closing == []


def test_a_minimum_window_skips_the_blip() -> None:
    said = day_of(parse_trace(synthetic_trace(), "site-a"), Policy(minimum_window=minutes(30)), minutes(60))
    assert [f"{event.at:%H:%M}" for event in said if isinstance(event, WindowOpened)] == ["01:00", "09:00", "20:00"]


VALUES = st.lists(st.sampled_from([50.0, 99.0, 100.0, 120.0, 150.0, 151.0, 400.0, NAN]), max_size=40)
PATIENCE = st.sampled_from([minutes(0), minutes(5), minutes(12)])


@given(VALUES, PATIENCE, PATIENCE, PATIENCE, PATIENCE)
def test_windows_open_clean_close_dirty_and_never_overlap(
    values: list[float], dwell: timedelta, grace: timedelta, minimum: timedelta, horizon: timedelta
) -> None:
    policy = Policy(dwell=dwell, grace=grace, minimum_window=minimum, stale_after=minutes(14), error=PERFECT)
    readings = [(5.0 * place, value) for place, value in enumerate(values)]
    signal = {at(minute): value for minute, value in readings}
    watch, said = watch_all(readings, policy, horizon)
    assert [event.at for event in said] == sorted(event.at for event in said)
    assert len({event.id for event in said}) == len(said)
    open_window = None
    for event in said:
        match event:
            case WindowOpened():
                assert open_window is None and signal[event.at] < 100
                open_window = event.window_id
            case WindowClosing():
                assert open_window == event.window_id
            case WindowClosed():
                assert open_window == event.window_id
                if event.reason == "dirty":
                    assert signal[event.at] > 150 and (horizon or event.at - event.crossed_at >= grace)
                open_window = None
    assert open_window == watch.window_id


@given(VALUES, st.integers(0, 40))
def test_a_journal_in_between_changes_nothing(values: list[float], cut: int) -> None:
    readings = [(5.0 * place, value) for place, value in enumerate(values)]
    whole, said = watch_all(readings, SHORT)
    halfway, before = watch_all(readings[:cut], SHORT)
    end, after = watch_all(readings[cut:], SHORT, start=Watch.model_validate_json(halfway.model_dump_json()))
    assert (end, before + after) == (whole, said)
    # Heard again from the start, as after a lost acknowledgement: not a word.
    assert watch_all(readings, SHORT, start=whole) == (whole, [])
