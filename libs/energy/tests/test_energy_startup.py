"""What a site's start-up and drain take: one window after the other, words out of order, and hard outliers."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import (
    NodeReady,
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.energy.startup import FORGOTTEN_AFTER, KEPT, Startup, drain_time, lead, learn, start_up, unused

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NONE = timedelta(0)
KINDS: dict[str, type[Message]] = {
    "expected": WindowExpected,
    "withdrawn": WindowWithdrawn,
    "opened": WindowOpened,
    "ready": NodeReady,
    "started": TrainingStarted,
    "closing": WindowClosing,
    "closed": WindowClosed,
    "drained": SiteDrained,
}


def told(startup: Startup, words: str, window: int = 1) -> Startup:
    """Words like ``expected@0 ready@90``, each at its second."""
    for word in words.split():
        name, _, second = word.partition("@")
        startup = learn(startup, sentence(name, window), NOON + timedelta(seconds=float(second)))
    return startup


def sentence(name: str, window: int = 1) -> Message:
    values: dict[str, Any] = {
        "id": UUID(int=9),
        # Long past: what counts is when it was heard.
        "at": NOON - timedelta(days=1),
        "site": "site-a",
        "window_id": UUID(int=window),
        "lease_id": UUID(int=8),
        "opens_at": NOON,
        "closes_at": NOON + timedelta(seconds=1000),
        "crossed_at": NOON,
        "reason": "dirty",
        "lease_token": 1,
        "node": "site-a-1",
        "backend": "process",
        "federation": "demo",
        "round": 0,
        "delivered": True,
        "confidence": 0.5,
        "expected_close_at": None,
        "intensity_g_per_kwh": 20,
    }
    return KINDS[name].model_validate(values)


@pytest.mark.parametrize(
    ("words", "ready", "begin", "drain"),
    [
        pytest.param("opened@0 ready@240 started@255", [240], [15], [], id="cold"),
        pytest.param("expected@0 ready@240 opened@300 started@304", [240], [4], [], id="warm"),
        pytest.param("expected@0 opened@60 ready@240 started@250", [240], [10], [], id="opened before it was warm"),
        pytest.param("expected@0 expected@9 ready@240 ready@250", [240], [], [], id="words twice"),
        pytest.param("expected@0 ready@240 withdrawn@300 drained@301", [240], [], [], id="withdrawn"),
        pytest.param("ready@240 started@255 drained@300", [], [], [], id="a window that nobody spoke of"),
        pytest.param("opened@0 started@255", [], [], [], id="ready was not heard"),
        pytest.param("opened@0 ready@9 started@9 closed@900 drained@921", [9], [0], [21], id="closed at once"),
        pytest.param("opened@0 ready@9 started@9 closing@700 drained@990", [9], [0], [], id="warned in time"),
        pytest.param("opened@0 ready@9 started@9 closing@990 drained@1030", [9], [0], [40], id="warned too late"),
        pytest.param("opened@0 ready@9 closed@900 drained@901", [9], [], [], id="never trained"),
        pytest.param("opened@9 ready@0", [], [], [], id="a clock set back"),
    ],
)
def test_one_window(words: str, ready: list[float], begin: list[float], drain: list[float]) -> None:
    known = told(Startup(), words)
    assert (list(known.ready_s), list(known.begin_s), list(known.drain_s)) == (ready, begin, drain)
    assert Startup.model_validate_json(known.model_dump_json()) == known


def test_words_of_another_window_are_not_this_ones() -> None:
    known = told(told(Startup(), "expected@0"), "ready@100 started@120 drained@130", window=2)
    assert known == told(Startup(), "expected@0")


def test_nothing_known_is_the_floor() -> None:
    floor = timedelta(minutes=4)
    assert lead(Startup(), floor) == start_up(Startup(), floor) == drain_time(Startup(), floor) == floor


def test_estimates_follow_the_newest_and_ignore_one_in_ten() -> None:
    known = Startup()
    for window in range(1, 2 * KEPT + 1):
        slow = 3600 if window % 10 == 0 else 200 + window
        known = told(known, f"opened@0 ready@{slow} started@{slow + 10} closed@9000 drained@9005", window)
    assert len(known.ready_s) == len(known.begin_s) == len(known.drain_s) == KEPT
    assert lead(known, NONE) == timedelta(seconds=239)
    assert start_up(known, NONE) == timedelta(seconds=249)
    assert drain_time(known, NONE) == timedelta(seconds=5)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=KEPT))
def test_nine_in_ten_are_covered(measured_s: list[float]) -> None:
    estimate = lead(Startup(ready_s=tuple(measured_s)), NONE).total_seconds()
    assert sum(one <= estimate + 1e-6 for one in measured_s) >= 0.9 * len(measured_s)
    assert estimate == pytest.approx(min(one for one in measured_s if one >= estimate - 1e-6), abs=1e-6)


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 3), st.floats(0, 1e4)), max_size=40))
def test_whatever_is_said_in_whatever_order_it_stays_bounded(words: list[tuple[str, int, float]]) -> None:
    known = Startup()
    for name, window, second in words:
        known = learn(known, sentence(name, window), NOON + timedelta(seconds=second))
        for measured in (known.ready_s, known.begin_s, known.drain_s):
            assert len(measured) <= KEPT
            assert all(0 <= one <= 1e4 for one in measured)


def test_one_start_that_took_hours_does_not_shut_a_site_for_ever() -> None:
    slow = told(Startup(), "opened@0 ready@36000 started@36010")
    assert start_up(slow, NONE) == timedelta(seconds=36010)
    assert unused(slow, NOON + FORGOTTEN_AFTER - timedelta.resolution) == slow
    assert start_up(unused(slow, NOON + FORGOTTEN_AFTER), NONE) == NONE
    assert start_up(unused(slow, NOON - FORGOTTEN_AFTER), NONE) == NONE, "the clock was set back"


def test_the_slowest_is_forgotten_once_a_day_until_a_window_is_tried() -> None:
    known = Startup()
    for window, ready in enumerate((240, 9000, 300), 1):
        known = told(known, f"opened@0 ready@{ready}", window)
    for hour in range(24, 48):
        known = unused(known, NOON + timedelta(hours=hour))
    assert known.ready_s == (240, 300)
    tried = told(known, "opened@172000 ready@172200", 4)
    assert tried.ready_s == (240, 300, 200)
    assert unused(tried, NOON + timedelta(days=2)) == tried
    for day in range(4, 9):
        tried = unused(tried, NOON + timedelta(days=day))
    assert (tried.ready_s, tried.begin_s, tried.drain_s) == ((), (), ())
    assert unused(tried, NOON + timedelta(days=99)) == tried, "there is nothing to forget"
