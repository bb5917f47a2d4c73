"""Several signals, plans, a second source and the sentences that explain, on virtual time with a real journal."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from windfall.contracts.commands import FollowPlan, Span
from windfall.contracts.events import (
    Point,
    SignalForecast,
    SignalKind,
    SignalObserved,
    SignalRefused,
    WindowClosed,
    WindowOpened,
)
from windfall.energy.quotes import Quote
from windfall.energy_watcher.testing.site import DAY, Scripted, Site, clock_of, site_at
from windfall.servicekit import telemetry
from windfall.servicekit.errors import Mistake
from windfall.servicekit.testing.virtual import run_virtual

MINUTE = timedelta(minutes=1)
SEVERAL = {name: {"provider": "static", "value": 1} for name in ("carbon", "price", "second")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    telemetry.set_up("energy-watcher", "site-a", None, {})
    return tmp_path


def plan(at: str, *spans: tuple[str, str], until: str = "24:00") -> FollowPlan:
    return FollowPlan(
        id=uuid4(),
        at=clock_of(at),
        site="site-a",
        federation="demo",
        spans=tuple(Span(start=clock_of(start), end=clock_of(end)) for start, end in spans),
        valid_until=clock_of(until),
        because="the cleaner sites suffice",
    )


def constant(value: float, kind: SignalKind = SignalKind.MARGINAL) -> Scripted:
    return Scripted([(DAY, value)], kind=kind)


async def watched(folder: Path, until: str, *said: tuple[str, FollowPlan], **asked: object) -> Site:
    """A site under plans, each given at its time."""
    folder.mkdir(exist_ok=True)
    site = site_at(folder, 0)
    providers = {name: given for name, given in asked.items() if isinstance(given, Scripted)}
    told = {name: given for name, given in asked.items() if name not in providers}
    async with site.watched(site.settings(**told), **providers):
        for at, order in said:
            await site.until(at)
            site.publish(order)
        await site.until(until)
    return site


def test_both_must_be_good(folder: Path) -> None:
    price = Scripted([(DAY, 50.0), (clock_of("01:00"), 12.0), (clock_of("02:00"), 45.0)], kind=SignalKind.PRICE)
    rule = "carbon < 100..150 and price < 20..40"
    asked = {"signals": SEVERAL, "rule": rule, "carbon": constant(80), "price": price}
    site = run_virtual(watched(folder, "02:30", **asked))
    assert site.told() == ["window.opened 01:00", "window.closed 02:10"]
    opened, closed = site.said()
    assert isinstance(opened, WindowOpened) and isinstance(closed, WindowClosed)
    assert opened.because == "carbon 80 gCO2/kWh is below 100 and price 12 EUR/MWh is below 20"
    assert opened.intensity_g_per_kwh == 80
    assert closed.because == "price 45 EUR/MWh is above 40"
    assert [(event.state, event.because, event.would_change) for event in site.explained()] == [
        ("off", "price 50 EUR/MWh is not below 20", "on when price is below 20 EUR/MWh"),
        (
            "on",
            "carbon 80 gCO2/kWh is not above 150 and price 12 EUR/MWh is not above 40",
            "off when carbon is above 150 gCO2/kWh or price is above 40 EUR/MWh",
        ),
        (
            "on",
            "price 45 EUR/MWh is above 40, though not yet for 10 minutes",
            "stays on when price is not above 40 EUR/MWh",
        ),
        ("off", "price 45 EUR/MWh is not below 20", "on when price is below 20 EUR/MWh"),
    ]


def test_clean_power_that_is_not_worth_a_start_is_said_to_be_so_when_it_comes_and_when_it_goes(folder: Path) -> None:
    values = [("00:00", 400.0), ("01:00", 20.0), ("01:30", 400.0)]
    ahead = tuple(Quote(SignalKind.MARGINAL, clock_of(at), value) for at, value in values)
    carbon = Scripted([(clock_of(at), value) for at, value in values], expected=ahead)
    site = run_virtual(watched(folder, "02:00", carbon=carbon, start_up=timedelta(minutes=20)))
    assert not site.told()
    assert [(f"{event.at:%H:%M}", event.state, event.because) for event in site.explained()] == [
        ("00:00", "off", "400 gCO2/kWh is not below 100"),
        ("01:00", "off", "20 gCO2/kWh is below 100, though for too short a time to pay back a start"),
        ("01:30", "off", "400 gCO2/kWh is not below 100"),
    ]


def test_a_plan_narrows_and_never_widens(folder: Path) -> None:
    orders = ("00:30", plan("00:30", ("01:00", "02:00"), until="03:00"))
    clean = run_virtual(watched(folder, "04:00", orders, carbon=constant(20)))
    assert clean.told() == [
        "window.opened 00:00",
        "window.closed 00:30",
        "window.opened 01:00",
        "window.closing 01:55",
        "window.closed 02:00",
        "window.opened 03:00",
    ]
    reasons = [(event.reason, event.because) for event in clean.said() if isinstance(event, WindowClosed)]
    assert reasons == [("planned", "the plan of demo has no use for it now")] * 2
    said = [(f"{event.at:%H:%M}", event.state, event.would_change) for event in clean.explained()]
    assert said[1] == (
        "00:30",
        "off",
        "on when the plan has a use for it or is over, 2026-01-01 01:00 UTC at the soonest",
    )


def test_a_plan_does_not_run_a_dirty_site(folder: Path) -> None:
    orders = ("00:30", plan("00:30", ("01:00", "02:00")))
    assert run_virtual(watched(folder, "04:00", orders, carbon=constant(180))).told() == []


def test_an_owner_may_lend_a_plan_dirtier_power(folder: Path) -> None:
    orders = ("00:30", plan("00:30", ("01:00", "02:00"), until="03:00"))
    site = run_virtual(watched(folder, "04:00", orders, carbon=constant(180), plan_limit=200))
    assert site.told() == ["window.opened 01:00", "window.closing 01:55", "window.closed 02:00"]
    opened = site.said()[0]
    assert isinstance(opened, WindowOpened) and opened.because == "180 gCO2/kWh is below 200"
    dirtier = run_virtual(watched(folder / "dirtier", "04:00", orders, carbon=constant(220), plan_limit=200))
    assert dirtier.told() == []


def test_an_older_plan_that_comes_late_changes_nothing(folder: Path) -> None:
    orders = [("00:30", plan("00:30", ("00:00", "05:00"))), ("00:31", plan("00:20"))]
    assert run_virtual(watched(folder, "01:00", *orders, carbon=constant(20))).told() == ["window.opened 00:00"]


def test_a_plan_survives_a_restart(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(), carbon=constant(20)):
            await site.until("00:03")
            site.publish(plan("00:03"))
            await site.until("00:05")
        async with site.watched(site.settings(), carbon=constant(20)):
            await site.until("02:00")
        return site

    assert run_virtual(morning()).told() == ["window.opened 00:00", "window.closed 00:03"]


def test_two_sources_that_tell_different_stories(folder: Path) -> None:
    second = Scripted([(DAY, 90.0), (clock_of("00:30"), 400.0), (clock_of("01:30"), 90.0)])
    asked = {"signals": SEVERAL, "rule": "carbon < 100..150", "check": "second"}
    site = run_virtual(
        watched(folder, "02:00", carbon=constant(60), second=second, price=constant(1, SignalKind.PRICE), **asked)
    )
    assert site.told() == [
        "window.opened 00:00",
        "signal.refused 00:30",
        "window.closed 00:40",
        "window.opened 01:30",
    ]
    refused = site.said()[1]
    assert isinstance(refused, SignalRefused)
    assert (refused.signal, refused.reason) == ("carbon", "disagrees")
    assert refused.detail == "60 gCO2/kWh while another source says 400"


def test_a_percentile_of_the_own_history_opens_after_a_day(folder: Path) -> None:
    # Two clean hours each day, then a constant: a quarter of the day is below the percentile.
    script = [(DAY + hour * 60 * MINUTE, 100.0 + hour % 24) for hour in range(72)]
    asked = {"signals": {"carbon": SEVERAL["carbon"]}, "rule": "carbon < p25@2d", "poll_interval": 10 * MINUTE}
    site = run_virtual(watched(folder, "50:00", carbon=Scripted(script), **asked))
    assert site.explained()[0].because == "carbon has too short a history for p25@2d"
    assert site.explained()[0].would_change == "on when carbon has a history of 1d"
    assert site.told()[0] == "window.opened 00:00"
    assert site.said()[0].at == clock_of("24:00")


def test_a_forecast_is_told_only_by_who_may(folder: Path) -> None:
    expected = [Quote(SignalKind.MARGINAL, DAY + 5 * step * MINUTE, 20.0 + step) for step in range(1, 2000)]
    dark = run_virtual(watched(folder, "05:00", carbon=Scripted([(DAY, 20.0)], expected)))
    assert not any(isinstance(event, SignalForecast) for event in dark.said())
    asked = {"publish_forecast": True, "forecast_horizon": timedelta(days=4)}
    site = run_virtual(watched(folder / "open", "05:00", carbon=Scripted([(DAY, 20.0)], expected), **asked))
    told = [event for event in site.said() if isinstance(event, SignalForecast)]
    assert [f"{event.at:%H:%M}" for event in told] == ["00:00"], "it says the same later, and reaches little further"
    (first,) = told
    assert first.step_s == 600 and len(first.values) == 577
    assert first.values[:3] == (20.0, 22.0, 24.0)


def test_a_forecast_of_the_bus_is_heeded(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        meter = {"surplus": {"provider": "bus", "kind": "surplus"}}
        async with site.watched(site.settings(signals=meter, rule="surplus > 5000..3000", stale_after="PT2H")):
            await site.until("00:05")
            word = SignalObserved(
                id=uuid4(),
                at=clock_of("00:05"),
                site="site-a",
                signal="surplus",
                kind=SignalKind.SURPLUS,
                unit="W",
                value=9000,
                point_time=clock_of("00:05"),
                forecast=(
                    Point(point_time=clock_of("00:30"), value=8000),
                    Point(point_time=clock_of("01:00"), value=10),
                ),
            )
            site.publish(word)
            await site.until("00:56")
        return site

    site = run_virtual(morning())
    assert site.told()[1:] == ["window.opened 00:05"]
    opened = site.said()[1]
    assert isinstance(opened, WindowOpened) and opened.expected_close_at == clock_of("01:00")


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"check": "price"}, "'price' has values in EUR/MWh; of the rule's signals so have: none"),
        (
            {"rule": "price < 5", "plan_limit": 9},
            "WINDFALL_PLAN_LIMIT is set and no signal of the rule is an intensity",
        ),
    ],
)
def test_what_does_not_fit_is_a_mistake_at_the_start(folder: Path, asked: dict[str, object], says: str) -> None:
    told = {"signals": SEVERAL, "rule": "carbon < 100..150", **asked}
    providers = {"carbon": constant(1), "second": constant(1), "price": constant(1, SignalKind.PRICE)}
    with pytest.raises(Mistake, match=says):
        run_virtual(watched(folder, "00:01", **providers, **told))
