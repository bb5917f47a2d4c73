from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.lowcomm.schedule import Box, parse_schedule, steps_by_speed

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("box", "ends_at"),
    [
        (Box(duration=timedelta(minutes=10)), START + timedelta(minutes=10)),
        (Box(duration=timedelta(minutes=10), steps=5), START + timedelta(minutes=10)),
        (Box(steps=5), None),
    ],
    ids=["time", "both", "steps"],
)
def test_a_round_ends(box: Box, ends_at: datetime | None) -> None:
    assert box.ends_at(START) == ends_at


@pytest.mark.parametrize(
    ("duration", "steps"),
    [(None, None), (timedelta(), None), (timedelta(seconds=-1), 5), (None, 0)],
    ids=["neither", "no time", "negative time", "no steps"],
)
def test_a_box_that_never_or_at_once_ends_is_refused(duration: timedelta | None, steps: int | None) -> None:
    with pytest.raises(ValueError, match="round"):
        Box(duration, steps)


FAST, SLOW = "fast", "slow"


@pytest.mark.parametrize(
    ("setting", "boxes"),
    [
        ("steps", {FAST: Box(steps=30), SLOW: Box(steps=30)}),
        ("steps:h=15", {FAST: Box(steps=15), SLOW: Box(steps=15)}),
        ("time:seconds=90", dict.fromkeys((FAST, SLOW), Box(duration=timedelta(seconds=90)))),
        ("speed:h=30", {FAST: Box(steps=45), SLOW: Box(steps=15)}),
        ("speed:h=1", {FAST: Box(steps=1), SLOW: Box(steps=1)}),
    ],
)
def test_a_setting_boxes_the_sites(setting: str, boxes: dict[str, Box]) -> None:
    plan = parse_schedule(setting).plan({FAST: 3.0, SLOW: 1.0})
    assert plan.boxes == boxes and plan.synchronises


@pytest.mark.parametrize("setting", ["steps:h=15,alone=60", "time:seconds=90,alone=60", "speed:alone=60"])
def test_one_site_alone_only_keeps_its_model(setting: str) -> None:
    plan = parse_schedule(setting).plan({FAST: 3.0})
    assert plan.boxes == {FAST: Box(duration=timedelta(seconds=60))} and not plan.synchronises


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("weekly", "unknown schedule 'weekly'; known are speed, steps, time"),
        ("steps:h=0", "at least one local step, not 0"),
        ("steps:h=1.5", "h is a whole number"),
        ("speed:h=nan", "h is a whole number"),
        ("time:seconds=0", "positive number of seconds"),
        ("time:seconds=inf", "positive number of seconds"),
        ("steps:alone=-1", "positive number of seconds"),
        ("time:h=30", "setting 'h' is unknown"),
    ],
)
def test_a_wrong_setting_is_said(setting: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_schedule(setting)


@settings(deadline=None)
@given(
    speeds=st.dictionaries(st.text(min_size=1, max_size=3), st.floats(1e-6, 1e6), min_size=1, max_size=8),
    mean=st.integers(1, 500),
)
def test_steps_follow_speed(speeds: dict[str, float], mean: int) -> None:
    counts = steps_by_speed(speeds, mean)
    assert list(counts) == list(speeds)
    assert sum(counts.values()) == mean * len(speeds)
    assert min(counts.values()) >= 1
    for one in speeds:
        for other in speeds:
            assert speeds[one] <= speeds[other] or counts[one] >= counts[other]
    # Nobody is more than a step away from the same time, but for those that a step of their own slows down.
    everybody = mean * len(speeds) / sum(speeds.values())
    if all(everybody * value >= 1 for value in speeds.values()):
        assert all(abs(counts[site] - everybody * value) < 1.001 for site, value in speeds.items())
    assert steps_by_speed(dict(reversed(speeds.items())), mean) == counts


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_is_positive(wrong: float) -> None:
    with pytest.raises(ValueError, match="speed of slow must be positive"):
        steps_by_speed({FAST: 1.0, SLOW: wrong}, 30)
    with pytest.raises(ValueError, match="at least one site"):
        parse_schedule("steps").plan({})
    with pytest.raises(ValueError, match="at least one step, not 0"):
        steps_by_speed({FAST: 1.0}, 0)
