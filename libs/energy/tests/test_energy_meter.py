"""Energy from what meters show: exact where they enclose an interval, and no figure where there is a doubt."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import SignalKind
from windfall.energy.intensity import Belief, Known, Step, forget, know, steps
from windfall.energy.meter import J_PER_KWH, J_PER_WH, Counter, Piece, Reading, counted_j, marginal, metered, sampled
from windfall.energy.quotes import Quote

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def shown(minute: float, energy_j: float, **counter: float) -> Reading:
    return Reading(at(minute), "nvml", {"gpu": Counter(energy_j, **counter)})


def kwh(pieces: tuple[Piece, ...] | None) -> float | None:
    return None if pieces is None else sum(piece.kwh for piece in pieces)


@pytest.mark.parametrize(
    ("earlier", "later", "counted"),
    [
        (Counter(100), Counter(400), 300),
        (Counter(400), Counter(400), 0),
        (Counter(400), Counter(100), None),
        (Counter(400, 1000, 15), Counter(100, 1000, 15), 700),
        (Counter(100, 1000, 4), Counter(400, 1000, 4), None),
        (Counter(400, 1000, 20), Counter(100, 1000, 20), None),
        (Counter(400, None, 10), Counter(1100, None, 10), None),
        (Counter(400), Counter(math.inf), None),
        (Counter(1 * J_PER_WH), Counter(3 * J_PER_WH), 7200),
    ],
    ids=[
        "counts",
        "stands",
        "set back",
        "runs over",
        "more than it can draw",
        "could have run over twice",
        "jumps",
        "infinite",
        "from Wh",
    ],
)
def test_counters_over_a_minute(earlier: Counter, later: Counter, counted: float | None) -> None:
    assert counted_j(earlier, later, MINUTE) == counted


def test_what_runs_over_is_exact() -> None:
    assert counted_j(Counter(900, 1000, 10), Counter(100, 1000, 10), MINUTE) == 200


READINGS = (shown(0, 0), shown(10, 0.1 * J_PER_KWH), shown(20, 0.4 * J_PER_KWH))


@pytest.mark.parametrize(
    ("readings", "start", "end", "expected"),
    [
        (READINGS, 0, 20, 0.4),
        (READINGS, 5, 15, 0.05 + 0.15),
        (READINGS, 12, 13, 0.03),
        (READINGS, -1, 10, None),
        (READINGS, 10, 21, None),
        ((), 0, 10, None),
        (READINGS[:1], 0, 10, None),
        ((READINGS[0], shown(10, 5), shown(20, 1)), 0, 20, None),
        ((READINGS[0], shown(10, 5), shown(20, 1)), 0, 10, 5 / J_PER_KWH),
        ((READINGS[0], Reading(at(10), "nvml", {"gpu": Counter(1), "gpu-2": Counter(1)})), 0, 10, None),
        ((READINGS[0], Reading(at(10), "rapl", {"gpu": Counter(1)})), 0, 10, None),
    ],
    ids=[
        "all",
        "between",
        "within",
        "begins too late",
        "ends too early",
        "none",
        "one",
        "reset within",
        "reset behind",
        "another device",
        "another meter",
    ],
)
def test_cumulative(readings: tuple[Reading, ...], start: float, end: float, expected: float | None) -> None:
    found = kwh(metered(readings, at(start), at(end)))
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.lists(st.floats(0.001, 100), min_size=2, max_size=20), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_a_counter_is_additive_over_splits(draws: list[float], cuts: list[float]) -> None:
    total, readings = 0.0, [shown(0, 0.0)]
    for minute, drawn in enumerate(draws, start=1):
        total += drawn
        readings.append(shown(minute, total * J_PER_KWH))
    edges = sorted({0.0, float(len(draws)), *(cut * len(draws) for cut in cuts)})
    parts = [kwh(metered(readings, at(a), at(b))) for a, b in pairwise(edges) if at(a) < at(b)]
    assert None not in parts
    assert math.fsum(part for part in parts if part is not None) == pytest.approx(total)


SAMPLES = [(at(0), 100.0), (at(6), 200.0), (at(12), 0.0), (at(30), 0.0)]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(0, 12, (15 + 10) / 1000), (3, 6, 175 * 0.05 / 1000), (0, 31, None), (-1, 6, None), (6, 30, None), (13, 14, None)],
    ids=["trapezoid", "cut", "ends too early", "begins too late", "gap", "in a gap"],
)
def test_power_samples(start: float, end: float, expected: float | None) -> None:
    found = kwh(sampled(SAMPLES, at(start), at(end), 10 * MINUTE))
    assert found == (None if expected is None else pytest.approx(expected))


def test_a_sample_that_cannot_be_true_is_no_figure() -> None:
    assert sampled([(at(0), 1.0), (at(1), math.nan)], at(0), at(1), HOUR) is None
    assert sampled([(at(0), 1.0), (at(1), -5.0)], at(0), at(1), HOUR) is None


def test_power_meets_the_intensity_of_its_hour() -> None:
    pieces = [Piece(at(0), at(30), 2.0), Piece(at(30), at(60), 1.0)]
    carbon = [
        Step(at(0), at(15), 400.0, SignalKind.AVERAGE),
        Step(at(15), at(45), 50.0, SignalKind.AVERAGE),
        Step(at(45), at(60), 100.0, SignalKind.AVERAGE),
    ]
    usage = marginal(pieces, carbon, 100.0)
    assert usage.energy_kwh == pytest.approx(1.5)
    assert usage.emissions_kg == pytest.approx(0.5 * 0.4 + 0.5 * 0.05 + 0.25 * 0.05 + 0.25 * 0.1)
    assert usage.clean_energy_kwh == pytest.approx(0.75)


def told(*values: tuple[float, float], kind: SignalKind = SignalKind.MARGINAL) -> Known:
    known = Known()
    for minute, value in values:
        known = know(known, Quote(kind, at(minute), value), 10 * MINUTE)
    return known


def held(known: Known, start: float, end: float) -> list[tuple[float, float, bool]]:
    """Minute of begin, value, and whether it was read."""
    found = list(steps(known, at(start), at(end), Belief(10 * MINUTE, 475.0)))
    assert [found[0].start, *(step.end for step in found)] == [*(step.start for step in found), at(end)]
    return [((step.start - NOON) / MINUTE, step.g_per_kwh, step.kind is not None) for step in found]


def test_readings_hold_until_the_next_and_no_longer_than_believed() -> None:
    known = told((0, 50), (5, 50), (10, 600), (40, 80))
    assert len(known.spells) == 3
    assert held(known, -5, 45) == [(-5, 475, False), (0, 50, True), (10, 600, True), (20, 600, False), (40, 80, True)]
    assert held(known, 3, 9) == [(3, 50, True)]
    assert held(known, 45, 60) == [(45, 80, True), (50, 475, False)]
    assert held(Known(), 0, 5) == [(0, 475, False)]
    assert held(forget(known, at(12)), 12, 45) == held(known, 12, 45)
    assert len(forget(known, at(12)).spells) == 2


def test_what_is_no_news_of_the_intensity_changes_nothing() -> None:
    known = told((0, 50), (10, 60))
    for quote in (
        Quote(SignalKind.PRICE, at(20), -5.0),
        Quote(SignalKind.PERCENTILE, at(20), 5.0),
        Quote(SignalKind.MARGINAL, at(10), 70.0),
        Quote(SignalKind.MARGINAL, at(5), 70.0),
    ):
        assert know(known, quote, HOUR) is known


@given(st.lists(st.tuples(st.floats(-60, 60), st.floats(0, 1000)), max_size=20), st.floats(-30, 0), st.floats(1, 90))
def test_steps_leave_no_gap(values: list[tuple[float, float]], start: float, end: float) -> None:
    found = held(told(*values), start, end)
    assert sum(1 for _, value, read in found if not read and value < 475.0) == 0
