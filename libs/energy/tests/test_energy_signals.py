"""Reading traces, and refusing what is not one."""

from datetime import UTC, datetime, timedelta

import pytest

from windfall.energy.shipped import SYNTHETIC_SITES, synthetic_trace
from windfall.energy.signals import Reading, Trace, TraceError, parse_trace, plausible, sites_of

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
STEP = timedelta(minutes=5)


def trace(*values: float, step: timedelta = STEP) -> Trace:
    return Trace(tuple(Reading(NOON + place * step, value) for place, value in enumerate(values)))


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        (0.0, True),
        (5000.0, True),
        (-0.1, False),
        (5000.1, False),
        (float("nan"), False),
        (float("inf"), False),
        (float("-inf"), False),
    ],
)
def test_plausible(value: float, fine: bool) -> None:
    assert plausible(value) is fine


def test_shipped_trace_is_a_day_of_three_sites() -> None:
    assert sites_of(synthetic_trace()) == SYNTHETIC_SITES
    for site in SYNTHETIC_SITES:
        day = parse_trace(synthetic_trace(), site)
        assert (len(day.points), day.step, day.longest_gap) == (289, STEP, STEP)
        assert day.start == datetime(2026, 1, 1, tzinfo=UTC)
        assert day.end == datetime(2026, 1, 2, 0, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "value"),
    [(-1, None), (0, 1.0), (4, 1.0), (5, 2.0), (10, 3.0), (600, 3.0)],
    ids=["before", "first", "held", "second", "last", "last-holds"],
)
def test_at_is_the_latest_reading(at: int, value: float | None) -> None:
    reading = trace(1.0, 2.0, 3.0).at(NOON + timedelta(minutes=at))
    assert (reading and reading.intensity_g_per_kwh) == value


def test_between_is_open_below_and_closed_above() -> None:
    steps = trace(1.0, 2.0, 3.0)
    assert [reading.intensity_g_per_kwh for reading in steps.between(NOON, NOON + 2 * STEP)] == [2.0, 3.0]
    assert [reading.intensity_g_per_kwh for reading in steps.between(None, NOON + STEP)] == [1.0, 2.0]
    assert steps.between(NOON + 2 * STEP, NOON + 9 * STEP) == ()


def test_segments_are_the_step_signal() -> None:
    steps = trace(1.0, 2.0, 3.0)
    minute = timedelta(minutes=1)
    assert list(steps.segments(NOON + minute, NOON + 12 * minute)) == [
        (1.0, 4 * minute),
        (2.0, 5 * minute),
        (3.0, 2 * minute),
    ]
    assert list(steps.segments(NOON + 2 * minute, NOON + 3 * minute)) == [(1.0, minute)]
    assert list(steps.segments(NOON + minute, NOON + minute)) == []
    with pytest.raises(ValueError, match="begins at 2026-01-01T12:00"):
        list(steps.segments(NOON - minute, NOON))


HEAD = "point_time,site-a,site-b"
GOOD = "2026-01-01 00:00:00+00:00,437.8,628.3"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], ["line 1", "point_time"]),
        (["time,site-a", GOOD], ["line 1", "point_time"]),
        (["point_time,site-b", "2026-01-01 00:00:00+00:00,1"], ["'site-a'", "one of these: site-b"]),
        (["point_time,site-a,site-a", GOOD], ["2 columns", "'site-a'"]),
        ([HEAD, GOOD], ["1 rows", "at least two"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00+00:00,1"], ["line 3", "2 fields", "header has 3"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00,1,2"], ["line 3", "point_time", "time zone", "write it like"]),
        ([HEAD, GOOD, "yesterday,1,2"], ["line 3", "'yesterday'"]),
        ([HEAD, GOOD, GOOD], ["line 3", "twice"]),
        ([HEAD, GOOD, "2026-01-01 00:30:00+01:00,1,2"], ["line 3", "earlier", "sort"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00+00:00,many,2"], ["line 3", "site-a", "'many'", "312.5"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00+00:00,,2"], ["line 3", "site-a", "''", "gap"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00+00:00,nan,2"], ["line 3", "site-a", "'nan'", "5000"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00+00:00,-3,2"], ["line 3", "'-3'"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00+00:00,1e9,2"], ["line 3", "'1e9'", "unit"]),
        ([HEAD, GOOD, "2026-01-01 00:05:00+00:00,\0,2"], ["line 3"]),
    ],
    ids=[
        "empty",
        "no-time",
        "unknown-column",
        "column-twice",
        "one-row",
        "short-row",
        "naive",
        "no-instant",
        "duplicate",
        "out-of-order",
        "word",
        "missing-value",
        "nan",
        "negative",
        "absurd",
        "nul-byte",
    ],
)
def test_bad_traces_are_refused_in_one_line(lines: list[str], says: list[str]) -> None:
    with pytest.raises(TraceError) as refused:
        parse_trace(lines, "site-a")
    assert "\n" not in str(refused.value)
    assert refused.value.cause and refused.value.cure
    for part in says:
        assert part in str(refused.value)


def test_zones_byte_order_mark_and_blank_lines_are_fine() -> None:
    lines = ["\ufeff" + HEAD, GOOD, "", "2026-01-01T02:00:00+01:00,99.5,1"]
    points = parse_trace(lines, "site-a").points
    assert points[1] == Reading(datetime(2026, 1, 1, 1, tzinfo=UTC), 99.5)


def test_a_reading_needs_a_zone_and_a_trace_needs_order() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Reading(NOON.replace(tzinfo=None), 1.0)
    with pytest.raises(ValueError, match="in order"):
        Trace((Reading(NOON, 1.0), Reading(NOON, 2.0)))
    with pytest.raises(ValueError, match="at least two"):
        Trace((Reading(NOON, 1.0),))
