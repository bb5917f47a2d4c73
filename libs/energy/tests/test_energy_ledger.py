"""The ledger: states from events, energy from states, and what must hold for any of them."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import (
    NodeFailed,
    NodeReady,
    NodeReleased,
    SignalRecovered,
    SiteDrained,
    SiteEvent,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowOpened,
)
from windfall.energy.ledger import Interval, Usage, account, always_on, intervals
from windfall.energy.power import PowerModel, SiteState
from windfall.energy.signals import Reading, Trace

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
POWER = PowerModel()
MINUTE = timedelta(minutes=1)
_SPACE = UUID(int=7)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def said(kind: str, minute: float, token: int = 1, site: str = "site-a", reason: str = "drained") -> SiteEvent:
    """One event; a lease's token also numbers its window."""
    shared = {"id": uuid5(_SPACE, f"{kind}{minute}{token}{site}"), "at": at(minute), "site": site}
    window, lease = UUID(int=token), UUID(int=100 + token)
    match kind:
        case "opened":
            return WindowOpened(**shared, window_id=window, intensity_g_per_kwh=50, expected_close_at=None)
        case "ready":
            return NodeReady(**shared, window_id=window, lease_id=lease, lease_token=token, node="n", backend="process")
        case "failed":
            return NodeFailed(**shared, window_id=window, lease_id=lease, lease_token=token, reason="no")
        case "training":
            return TrainingStarted(**shared, federation="f", window_id=window, lease_token=token, round=0)
        case "closing":
            return WindowClosing(**shared, window_id=window, closes_at=at(minute + 5))
        case "closed":
            return WindowClosed(**shared, window_id=window, reason="dirty", crossed_at=at(minute))
        case "drained":
            return SiteDrained(**shared, federation="f", window_id=window, lease_token=token, delivered=True)
        case "released":
            return NodeReleased(**shared, window_id=window, lease_id=lease, lease_token=token, node="n", reason=reason)
    return SignalRecovered(**shared, point_time=at(minute))


def story(*told: SiteEvent, until: float = 60) -> list[tuple[str, float]]:
    """The states with the minute at which each begins."""
    return [(span.state.value, (span.start - NOON) / MINUTE) for span in intervals(told, NOON, at(until))]


LIFE = (
    said("opened", 5),
    said("ready", 9),
    said("training", 10),
    said("closing", 20),
    said("closed", 25),
    said("drained", 26),
    said("released", 27),
)


def test_a_windows_life() -> None:
    expected = [
        ("off", 0),
        ("provisioning", 5),
        ("idle", 9),
        ("training", 10),
        ("draining", 25),
        ("idle", 26),
        ("off", 27),
    ]
    assert story(*LIFE) == expected
    assert story(*reversed(LIFE), *LIFE, said("recovered", 12)) == expected


@pytest.mark.parametrize(
    ("told", "states"),
    [
        ([], []),
        ([said("opened", 0), said("closed", 10)], [("provisioning", 0), ("off", 10)]),
        ([said("opened", 0), said("failed", 10), said("closed", 20)], [("provisioning", 0), ("off", 10)]),
        (
            [said("opened", 0), said("ready", 1), said("training", 2), said("drained", 5), said("closed", 9)],
            [("provisioning", 0), ("idle", 1), ("training", 2), ("idle", 5)],
        ),
        (
            [said("opened", 0), said("ready", 1), said("released", 5, reason="died"), said("ready", 7, 2)],
            [("provisioning", 0), ("idle", 1), ("provisioning", 5), ("idle", 7)],
        ),
        (
            [said("opened", 0), said("ready", 1), said("closed", 5), said("opened", 6, 2), said("released", 7)],
            [("provisioning", 0), ("idle", 1), ("provisioning", 7)],
        ),
        (
            [said("opened", 0), said("ready", 1), said("ready", 5, 2), said("training", 6, 2), said("released", 7)],
            [("provisioning", 0), ("idle", 1), ("training", 6)],
        ),
        (
            [said("opened", -20), said("ready", -10), said("training", -5), said("closed", 30), said("released", 90)],
            [("training", 0), ("draining", 30)],
        ),
    ],
    ids=[
        "silent",
        "never-ready",
        "failed",
        "drained-before-the-close",
        "died-and-tried-again",
        "next-window-before-the-release",
        "an-old-lease-has-no-say",
        "cut-at-both-ends",
    ],
)
def test_states(told: list[SiteEvent], states: list[tuple[str, float]]) -> None:
    assert story(*told) == states


def trace(*values: float, step: timedelta = timedelta(minutes=30)) -> Trace:
    return Trace(tuple(Reading(NOON + place * step, value) for place, value in enumerate(values)))


def test_an_account_by_hand() -> None:
    spans = (
        Interval("site-a", SiteState.PROVISIONING, at(0), at(30)),
        Interval("site-a", SiteState.TRAINING, at(30), at(75)),
        Interval("site-b", SiteState.OFF, at(0), at(60)),
    )
    found = account(spans, {"site-a": trace(200, 50, 400)}, POWER, 100)
    provisioning, clean, dirty = 0.468 * 0.5, 2.024 * 0.5, 2.024 * 0.25
    usage = found.sites["site-a"]
    assert usage.energy_kwh == pytest.approx(provisioning + clean + dirty)
    assert usage.emissions_kg == pytest.approx((provisioning * 200 + clean * 50 + dirty * 400) / 1000)
    assert usage.clean_energy_share == pytest.approx(clean / (provisioning + clean + dirty))
    assert found.sites["site-b"] == Usage() and found.sites["site-b"].clean_energy_share is None
    assert found.total == usage


def test_what_cannot_be_accounted_is_refused() -> None:
    span = Interval("site-a", SiteState.IDLE, at(-5), at(5))
    with pytest.raises(ValueError, match="no trace for 'site-a'; there are site-b"):
        account([span], {"site-b": trace(1, 2)}, POWER, 100)
    with pytest.raises(ValueError, match="begins at"):
        account([span], {"site-a": trace(1, 2)}, POWER, 100)
    with pytest.raises(ValueError, match="not finite"):
        PowerModel(idle_kw=float("nan"))


MINUTES = st.floats(0, 600)
VALUES = st.lists(st.floats(0, 1000), min_size=2, max_size=30)
KINDS = st.sampled_from(["opened", "ready", "failed", "training", "closing", "closed", "drained", "released"])
EVENTS = st.lists(
    st.builds(said, KINDS, MINUTES, st.integers(1, 3), st.sampled_from(["site-a", "site-b"])), max_size=30
)


@given(VALUES, st.lists(MINUTES, min_size=3, max_size=3).map(sorted))
def test_energy_is_additive_over_splits(values: list[float], cuts: list[float]) -> None:
    traces = {"site-a": trace(*values)}
    first, middle, last = (at(cut) for cut in cuts)

    def usage(start: datetime, end: datetime) -> Usage:
        return account([Interval("site-a", SiteState.TRAINING, start, end)], traces, POWER, 100).total

    parts, whole = usage(first, middle) + usage(middle, last), usage(first, last)
    assert parts.energy_kwh == pytest.approx(whole.energy_kwh, abs=1e-9)
    assert parts.emissions_kg == pytest.approx(whole.emissions_kg, abs=1e-9)
    assert parts.clean_energy_kwh == pytest.approx(whole.clean_energy_kwh, abs=1e-9)
    assert whole.energy_kwh == pytest.approx(2.024 * ((last - first) / timedelta(hours=1)), abs=1e-9)
    if whole.energy_kwh > 1e-6:
        assert min(values) - 1e-6 <= 1000 * whole.emissions_kg / whole.energy_kwh <= max(values) + 1e-6


@given(EVENTS, VALUES)
def test_no_schedule_draws_more_than_always_on(told: list[SiteEvent], values: list[float]) -> None:
    traces = {site: trace(*values) for site in ("site-a", "site-b")}
    spans = intervals(told, at(0), at(600))
    schedule = account(spans, traces, POWER, 100)
    always = always_on(traces, traces, at(0), at(600), POWER, 100)
    for site, usage in schedule.sites.items():
        assert usage.energy_kwh <= always.sites[site].energy_kwh + 1e-9
        assert usage.emissions_kg <= always.sites[site].emissions_kg + 1e-9
        assert 0 <= usage.clean_energy_kwh <= usage.energy_kwh


@given(EVENTS)
def test_states_cover_the_time_without_gap_or_overlap(told: list[SiteEvent]) -> None:
    spans = intervals(told, at(0), at(600))
    for site in {event.site for event in told if not isinstance(event, WindowClosing)}:
        life = [span for span in spans if span.site == site]
        assert (life[0].start, life[-1].end) == (at(0), at(600))
        for earlier, later in pairwise(life):
            assert earlier.end == later.start
            assert earlier.state is not later.state
    assert spans == intervals(reversed(told), at(0), at(600))
