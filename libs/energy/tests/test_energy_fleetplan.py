"""The plan of a federation: what is learnt of its sites, which of them count, and what each is ordered."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import pairwise
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.contracts.events import (
    ContributionAccepted,
    EnergyRecorded,
    NodeReady,
    SignalForecast,
    SignalKind,
    SignalRecovered,
    SignalStale,
    SiteEvent,
    SiteJoined,
    SiteLeft,
    TrainingStarted,
    WindowClosed,
    WindowOpened,
)
from windfall.contracts.message import derived_id
from windfall.energy import vigil
from windfall.energy.fleet import Fleet, SiteKnown, Told, heard, is_news
from windfall.energy.fleetplan import Decision, decide, over
from windfall.energy.goal import Goal
from windfall.energy.grammar import parse
from windfall.energy.heed import heed
from windfall.energy.intake import Intake
from windfall.energy.levels import MOST_SLOTS, continued, mean_levels, slot_bounds
from windfall.energy.lookout import Lookout, Terms
from windfall.energy.planner import PATIENCE
from windfall.energy.policy import Policy
from windfall.energy.quotes import Quote
from windfall.energy.windows import Watch

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = UUID(int=7)
INSTANT = Told(start_up_s=0.0)
"""A site that starts at no cost."""


def at(hours: float) -> datetime:
    return NOON + hours * HOUR


def said(kind: type[SiteEvent], site: str, hours: float = 0.0, /, **fields: Any) -> Any:
    key = derived_id(f"{hours}/{sorted(fields.items())}", kind.topic, site)
    return kind.model_validate({"id": key, "at": at(hours), "site": site, **fields})


def forecast(
    site: str, values: Sequence[float], hours: float = 0.0, step: timedelta = HOUR, kind: str = "marginal"
) -> Any:
    fields = {"kind": kind, "issued_at": at(hours), "step_s": step.total_seconds(), "values": tuple(values)}
    return said(SignalForecast, site, hours, **fields)


def joined(site: str, hours: float) -> Any:
    return said(SiteJoined, site, hours, federation="demo", window_id=WINDOW, lease_token=1, attempt=1, round=0)


def accepted(site: str, hours: float, tokens: int) -> Any:
    counts = {"round": 0, "attempt": 1, "steps": 1, "loss_nats": 1.0, "bytes_up": 1, "partial": False}
    return said(ContributionAccepted, site, hours, federation="demo", tokens=tokens, **counts)


def recorded(site: str, sequence: int, start: float, kg: float) -> Any:
    energy = {"energy_kwh": 1.0, "emissions_kg": kg, "clean_energy_kwh": 0.0, "method": "modelled"}
    span = {"window_id": None, "state": "training", "start": at(start), "end": at(start + 1), "entry_hash": "0" * 64}
    return said(EnergyRecorded, site, start + 1, sequence=sequence, **span, **energy)


def fleet(*events: SiteEvent, sites: str = "ab") -> Fleet:
    empty = Fleet({f"site-{name}": SiteKnown() for name in sites}, since=NOON)
    return reduce(heard, events, empty)


def goal(**changes: Any) -> Goal:
    told = {f"site-{name}": INSTANT for name in "abc"}
    asked = {"objective": "carbon", "deadline": at(6), "tokens_per_hour": 100.0, "told": told, "work_tokens": 200}
    return Goal("demo", **{**asked, **changes})


def decided(known: Fleet, aim: Goal, done: int = 0, now: datetime = NOON) -> Decision:
    found = decide(known, aim, done, now)
    assert found is not None
    return found


def spans(decision: Decision) -> dict[str, list[str]]:
    return {order.site: [f"{span.start:%H:%M}-{span.end:%H:%M}" for span in order.spans] for order in decision.orders}


# --- what is learnt ---------------------------------------------------------------------------------------------------


def test_speed_is_the_median_of_what_was_brought_while_a_member() -> None:
    events = [joined("site-a", 0), *(accepted("site-a", 1 + n, tokens) for n, tokens in enumerate((100, 120, 5)))]
    known = fleet(*events).sites["site-a"]
    assert known.tokens_per_hour == pytest.approx((100, 120, 5))
    assert known.measured == pytest.approx(100)


def test_what_came_before_the_first_step_does_not_count() -> None:
    first_step = said(TrainingStarted, "site-a", 0.5, federation="demo", window_id=WINDOW, lease_token=1, round=0)
    assert fleet(joined("site-a", 0), first_step, accepted("site-a", 1, 50)).sites["site-a"].measured == 100
    late = fleet(joined("site-a", 0), accepted("site-a", 1, 50), first_step, accepted("site-a", 2, 50))
    assert late.sites["site-a"].measured == 50


def test_who_left_does_not_train_meanwhile() -> None:
    left = said(SiteLeft, "site-a", 1, federation="demo", attempt=1, reason="drained")
    known = fleet(joined("site-a", 0), left, joined("site-a", 5), accepted("site-a", 6, 70)).sites["site-a"]
    assert known.member and known.measured == pytest.approx(70)


def test_a_member_from_before_is_measured_from_its_first_word_on() -> None:
    known = fleet(accepted("site-a", 1, 70), accepted("site-a", 2, 80)).sites["site-a"]
    assert known.member and known.measured == pytest.approx(80)


def test_start_up_is_learnt_from_windows() -> None:
    opened = said(
        WindowOpened, "site-a", 0, window_id=WINDOW, intensity_g_per_kwh=1.0, expected_close_at=None, confidence=None
    )
    lease = {"window_id": WINDOW, "lease_id": UUID(int=1), "lease_token": 1}
    ready = said(NodeReady, "site-a", 0.1, **lease, node="n", backend="process")
    first = said(TrainingStarted, "site-a", 0.25, federation="demo", window_id=WINDOW, lease_token=1, round=0)
    running = fleet(opened, ready, first).sites["site-a"].capacity("site-a", Told(), 100.0)
    assert (running.start_up_s, running.is_on) == (900.0, True)
    closed = said(WindowClosed, "site-a", 1, window_id=WINDOW, reason="dirty", crossed_at=at(1))
    stopped = fleet(opened, ready, closed).sites["site-a"].capacity("site-a", Told(), 100.0)
    assert (stopped.start_up_s, stopped.is_on) == (360.0, False)
    assert fleet().sites["site-a"].capacity("site-a", Told(), 100.0).start_up_s == 240.0


def test_every_entry_of_a_ledger_counts_once_and_only_since_the_beginning() -> None:
    entries = [recorded("site-a", n, n - 3.0, 0.25) for n in (1, 2, 3, 3, 4)]
    assert fleet(*entries, recorded("site-b", 1, 0, 1.0)).emitted_kg == pytest.approx(1.5)


def test_strangers_and_old_forecasts_change_nothing() -> None:
    new, old = forecast("site-a", [1.0], hours=2), forecast("site-a", [9.0], hours=1)
    assert fleet(new, old) == fleet(new)
    assert fleet(forecast("site-z", [1.0])) == fleet()


@pytest.mark.parametrize(
    ("before", "after", "news"),
    [
        ([], [50.0] * 4, True),
        ([50.0] * 4, [51.0] * 4, False),
        ([50.0] * 4, [50.0, 50.0, 50.0, 450.0], True),
        ([-20.0] * 4, [-20.0] * 4, False),
    ],
)
def test_news_is_what_says_something_else(before: list[float], after: list[float], news: bool) -> None:
    first = fleet(forecast("site-a", before, hours=-0.5)) if before else fleet()
    assert is_news(first.sites["site-a"], heard(first, forecast("site-a", after)).sites["site-a"]) is news


# --- slots ------------------------------------------------------------------------------------------------------------


def test_slots_begin_now_and_end_with_the_deadline() -> None:
    bounds = slot_bounds(at(0.3), at(2.5), 3600.0)
    assert ((bounds - NOON.timestamp()) / 3600).tolist() == pytest.approx([0.3, 1, 2, 2.5])
    assert len(slot_bounds(NOON, at(24 * 30), 300.0)) <= MOST_SLOTS + 1


def test_levels_are_means_and_the_last_day_repeats() -> None:
    bounds = slot_bounds(at(0.5), at(3), 3600.0)
    assert mean_levels(forecast("site-a", [10, 20, 30]), bounds).tolist() == pytest.approx([10, 20, 30])
    coarse = np.array([at(0).timestamp(), at(2).timestamp()])
    assert mean_levels(forecast("site-a", [10, 20]), coarse).tolist() == pytest.approx([15])
    days = np.arange(30.0)
    assert continued(days, 3600.0, 56).tolist() == [*range(30), *range(6, 30), 6, 7]


# --- what is decided --------------------------------------------------------------------------------------------------


CLEAN_LATER = [400.0, 300.0, 20.0, 30.0, 500.0, 500.0]
CLEAN_NOW = [60.0, 61.0, 400.0, 400.0, 400.0, 400.0]


def test_the_cheapest_hours_in_time_are_ordered_and_explained() -> None:
    known = fleet(forecast("site-a", CLEAN_LATER), forecast("site-b", CLEAN_NOW))
    found = decided(known, goal(work_tokens=150))
    assert spans(found) == {"site-a": ["14:00-16:00"], "site-b": []}
    made = found.made
    assert made.finishes_at == at(3.5) and made.remaining_site_hours == pytest.approx(1.5)
    assert made.emissions_kg == pytest.approx(2.024 * (20 + 15) / 1000)
    assert made.because == (
        "the work left, 1.5 site-hours, fits at 30 gCO2/kWh or less before 18:00 UTC; done by 15:30 UTC for 0.07 kg"
    )
    assert [order.because for order in found.orders] == [
        "off until 14:00 UTC: other hours or sites are cleaner",
        "off: other hours or sites are cleaner",
    ]
    assert {order.valid_until for order in found.orders} == {NOON + timedelta(minutes=30)}
    more = decided(known, goal(work_tokens=300))
    assert spans(more) == {"site-a": ["14:00-16:00"], "site-b": ["12:00-14:00"]}
    assert more.orders[1].because == ("on 12:00–14:00 UTC, because its power is within the plan's price of 61 gCO2/kWh")


def test_what_is_done_already_is_not_planned_again() -> None:
    known = fleet(forecast("site-a", CLEAN_LATER))
    assert decided(known, goal(), done=150).made.remaining_site_hours == pytest.approx(0.5)
    done = decided(known, goal(), done=500)
    assert (done.made.remaining_site_hours, done.made.because) == (
        0.0,
        "no work is left; site-b is not counted on: it told no forecast",
    )
    assert spans(done) == {"site-a": []}


def test_work_and_speeds_are_told_by_what_was_measured() -> None:
    events = [joined("site-a", -1), accepted("site-a", 0, 1000), joined("site-b", -1), accepted("site-b", 0, 3000)]
    known = fleet(*events, forecast("site-a", [50.0] * 6), forecast("site-b", [90.0] * 6))
    made = decided(known, goal(work_tokens=8000)).made
    # The reference is half-way between the two, so the work is 4 of its hours. Speed is worth dirtier power.
    assert made.remaining_site_hours == pytest.approx(4.0)
    assert made.site_hours["site-b"] >= 4.0 and made.site_hours["site-a"] == 0.0


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ([], "it told no forecast"),
        ([forecast("site-b", [5.0] * 90, hours=-27)], "its forecast is 27 hours old"),
        ([forecast("site-b", [5.0] * 3, hours=-3)], "its forecast is over"),
        ([forecast("site-b", [])], "its forecast is over"),
        ([forecast("site-b", [5.0], kind="price")], "it told no forecast"),
        (
            [forecast("site-b", [5.0] * 9), said(SignalStale, "site-b", last_point_time=None, limit_s=900.0)],
            "its signal is silent",
        ),
    ],
)
def test_who_is_not_known_is_not_counted_on_and_gets_no_order(events: list[SiteEvent], why: str) -> None:
    found = decided(fleet(forecast("site-a", CLEAN_NOW), *events), goal())
    assert set(spans(found)) == {"site-a"} == set(found.made.site_hours)
    assert found.made.because.endswith(f"; site-b is not counted on: {why}")


def test_a_signal_that_recovered_counts_again() -> None:
    stale = said(SignalStale, "site-a", 1, last_point_time=None, limit_s=900.0)
    known = fleet(forecast("site-a", CLEAN_NOW), stale)
    assert decide(known, goal(), 0, at(1)) is None
    back = heard(known, said(SignalRecovered, "site-a", 1.5, point_time=at(1.5)))
    assert decide(back, goal(), 0, at(2)) is not None


def test_nobody_who_is_known_or_measured_is_no_plan() -> None:
    assert decide(fleet(), goal(), 0, NOON) is None
    unmeasured = fleet(forecast("site-a", CLEAN_NOW))
    assert decide(unmeasured, goal(tokens_per_hour=None), 0, NOON) is None
    measured = reduce(heard, [joined("site-a", -1), accepted("site-a", 0, 100)], unmeasured)
    assert decide(measured, goal(tokens_per_hour=None), 0, NOON) is not None


def test_too_much_work_runs_everything() -> None:
    known = fleet(forecast("site-a", [500.0] * 6), forecast("site-b", CLEAN_NOW))
    found = decided(known, goal(work_tokens=1600))
    assert found.made.finishes_at == at(8)
    late = "no plan can do the work in time: everything runs; done at 20:00 UTC instead of 18:00 UTC"
    assert found.made.because.startswith(f"{late} for ")
    for order in found.orders:
        assert order.because == f"on: {late}"
        assert order.spans[0].start == NOON and order.spans[-1].end >= at(8)
    after = decided(known, goal(work_tokens=100, deadline=at(-1)))
    assert [len(order.spans) for order in after.orders] == [1, 1]


def test_a_budget_decides_how_early_it_can_be() -> None:
    levels = [400.0, 400.0, 50.0, 51.0, 5.0, 6.0]
    known = fleet(forecast("site-a", levels), sites="a")
    ample = goal(objective="budget", budget_kg=2.024 * 0.112, work_tokens=180)
    assert spans(decided(known, ample)) == {"site-a": ["14:00-16:00"]}
    assert "of the 0.23 kg that are left" in decided(known, ample).made.because
    spent = heard(known, recorded("site-a", 1, 0.0, 2.024 * 0.1))
    assert spans(decided(spent, ample)) == {"site-a": ["16:00-18:00"]}
    poor = decided(known, replace(ample, budget_kg=0.011))
    assert poor.made.finishes_at is None and poor.made.emissions_kg <= 0.011
    assert (
        poor.made.because
        == "1.0 of the 1.8 site-hours of work that are left fit, for 0.01 of the 0.01 kg that are left"
    )
    no_deadline = decided(known, replace(ample, deadline=None))
    assert no_deadline.made.finishes_at is not None


def test_a_cost_is_weighed_by_prices_and_told_with_its_carbon() -> None:
    known = fleet(
        forecast("site-a", [80.0, -20.0, 40.0, 90.0, 90.0, 90.0], kind="price"),
        forecast("site-a", [100.0] * 6, kind="average"),
        sites="a",
    )
    found = decided(known, goal(objective="cost", work_tokens=180))
    assert spans(found) == {"site-a": ["13:00-15:00"]}
    assert found.made.emissions_kg == pytest.approx(0.36432)
    assert "at 40 EUR/MWh or less" in found.made.because and "for 0.02 EUR" in found.made.because
    assert found.orders[0].because == "off until 13:00 UTC: other hours or sites are cheaper"


def test_the_last_orders_are_empty_until_the_deadline() -> None:
    orders = over(fleet(), goal(), "the work is done", NOON)
    assert [(order.site, order.spans, order.valid_until) for order in orders] == [
        ("site-a", (), at(6)),
        ("site-b", (), at(6)),
    ]
    made = decided(fleet(forecast("site-a", CLEAN_NOW)), goal()).orders
    assert not {order.id for order in orders} & {order.id for order in made}


@pytest.mark.parametrize("wrong", [{"deadline": None}, {"objective": "budget", "budget_kg": None}])
def test_a_goal_that_lacks_something_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs a"):
        goal(**wrong)


# --- both sides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 600.0], ids=["narrowed", "lent"])
def test_a_site_opens_its_windows_in_the_spans_that_it_was_ordered_and_ends_in_time(limit: float | None) -> None:
    minute = timedelta(minutes=1)
    hours = np.arange(288) / 12
    values = np.round((250 if limit else 150) + 120 * np.sin(hours * 3), 1).tolist()
    quotes = [Quote(SignalKind.MARGINAL, NOON + place * 5 * minute, value) for place, value in enumerate(values)]
    policy = Policy(stale_after=20 * minute, drain=2 * minute, start_up=4 * minute)
    terms = Terms(parse("carbon < 100..150"), policy, plan_limit_g_per_kwh=limit)
    intake = Intake(site="site-a", signal="carbon", kind=SignalKind.MARGINAL)
    site = Lookout(Watch(site="site-a", watched_since=NOON), {"carbon": intake})
    hub = fleet(forecast("site-a", values, step=5 * minute), sites="a")
    aim = goal(work_tokens=400, deadline=at(12), told={})
    steps: vigil.Steps = []
    done, order = 0.0, decided(hub, aim).orders[0]
    for now in (NOON + place * minute for place in range(12 * 60)):
        ahead = {"carbon": [quote for quote in quotes if quote.point_time > now]}
        steps = []
        if now.minute % 15 == 0:
            order = decided(hub, aim, int(done), now).orders[0]
            steps = vigil.follow(site, order, ahead, now, terms)
        fresh = [quote for quote in quotes if quote.point_time == now]
        steps += vigil.look(steps[-1][0] if steps else site, {"carbon": fresh}, ahead, now, terms)
        steps += vigil.pass_time(steps[-1][0] if steps else site, ahead, now, terms)
        site = steps[-1][0]
        for event in (event for _, events in steps for event in events):
            hub = heard(hub, event)
        ordered = heed(order, now)
        assert ordered is not None
        assert ordered.runs or not site.watch.is_open
        done += 100 / 60 * site.watch.is_open
        if done >= aim.work_tokens:
            break
    assert done >= aim.work_tokens


# --- promises ---------------------------------------------------------------------------------------------------------

LEVELS = st.lists(st.sampled_from([0.0, 15.0, 60.0, 90.0, 450.0, 700.0]), min_size=3, max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.tuples(LEVELS, LEVELS), st.integers(1, 2000), st.floats(0.0, 2.5), st.sampled_from([0.0, 240.0, 1800.0]))
def test_what_every_plan_promises(
    levels: tuple[list[float], list[float]], tokens: int, late: float, start_up_s: float
) -> None:
    known = fleet(forecast("site-a", levels[0]), forecast("site-b", levels[1]))
    told = {site: Told(start_up_s=start_up_s) for site in known.sites}
    aim, now = goal(work_tokens=tokens, told=told), at(late)
    found = decided(known, aim, 0, now)
    again = decided(known, aim, 0, now)
    assert (found.made, found.orders) == (again.made, again.orders)
    hurries = "everything runs" in found.made.because
    for order in found.orders:
        assert all(one.end < other.start for one, other in pairwise(order.spans))
        assert all(now <= span.start for span in order.spans)
        assert hurries or all(span.end <= at(6) for span in order.spans)
    if not hurries:
        assert found.made.finishes_at is not None and found.made.finishes_at <= at(6)
    if not hurries and start_up_s == 0.0:
        _cheapest_first(found, known, now)


def _cheapest_first(found: Decision, known: Fleet, now: datetime) -> None:
    """No hour is used while a much cleaner one is not; the planner counts an early one a little dearer."""
    bounds = slot_bounds(now, at(6), 3600.0)
    used, unused = [0.0], [np.inf]
    for order in found.orders:
        told = mean_levels(known.sites[order.site].forecasts[SignalKind.MARGINAL], bounds)
        for start, level in zip(bounds[:-1], told.tolist(), strict=True):
            seen = heed(order.model_copy(update={"valid_until": at(9)}), datetime.fromtimestamp(start, UTC))
            assert seen is not None
            (used if seen.runs else unused).append(level)
    assert max(used) <= min(unused) * (1.0 + PATIENCE) + 1e-6
