"""Whatever comes in, on virtual time with a real journal: each mistake a clear event, and no wrong decision."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

import pytest

from windfall.contracts.envelope import Letter, seal
from windfall.contracts.events import Point, SignalKind, SignalObserved, SignalRefused, WindowClosed, WindowOpened
from windfall.contracts.subjects import DEAD_STREAM, EVENTS_STREAM
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy_watcher.asking import LONGEST_REST, Asking
from windfall.energy_watcher.testing.site import DAY, Scripted, Site, clock_of, site_at
from windfall.servicekit import telemetry
from windfall.servicekit.bus import DEAD_REASON
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import Transient
from windfall.servicekit.testing.virtual import run_virtual

METER = {"surplus": {"provider": "bus", "kind": "surplus"}}
RULE = "surplus > 5000..3000"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    telemetry.set_up("energy-watcher", "site-a", None, {})
    return tmp_path


def observed(value: float, at: str, **changes: object) -> SignalObserved:
    told = {
        "id": uuid4(),
        "at": clock_of(at),
        "site": "site-a",
        "signal": "surplus",
        "kind": SignalKind.SURPLUS,
        "unit": "W",
        "value": value,
        "point_time": clock_of(at),
        **changes,
    }
    return SignalObserved.model_validate(told)


async def metered(folder: Path, *said: tuple[str, SignalObserved], until: str) -> Site:
    """A site whose meter speaks on the bus, each word at its time."""
    site = site_at(folder, 0)
    async with site.watched(site.settings(signals=METER, rule=RULE)):
        for at, word in said:
            await site.clock.sleep_until(clock_of(at))
            site.publish(word)
        await site.until(until)
    return site


def test_a_meter_on_the_bus_opens_and_closes(folder: Path) -> None:
    words = [("00:05", observed(6000, "00:05")), ("00:10", observed(4000, "00:10")), ("00:15", observed(100, "00:15"))]
    words += [("00:20", observed(100, "00:20")), ("00:25", observed(100, "00:25"))]
    site = run_virtual(metered(folder, *words, until="00:26"))
    opened, closed = (event for event in site.said() if not isinstance(event, SignalObserved))
    assert isinstance(opened, WindowOpened) and isinstance(closed, WindowClosed)
    assert (opened.because, opened.intensity_g_per_kwh) == ("6000 W is above 5000", None)
    assert (closed.because, closed.reason, closed.crossed_at) == ("100 W is below 3000", "dirty", clock_of("00:15"))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (observed(2e9, "00:10"), "implausible"),
        (observed(-2e9, "00:10"), "implausible"),
        (observed(9000, "00:10", unit="kW"), "unit"),
        (observed(9000, "00:10", kind=SignalKind.PRICE, unit="EUR/MWh"), "kind"),
        (observed(9000, "00:04"), "order"),
        (observed(9000, "00:05"), "order"),
        (observed(9000, "02:00"), "future"),
        (observed(9000, "00:10", forecast=[Point(point_time=clock_of("00:09"), value=1)]), "order"),
    ],
    ids=["absurd", "negative", "wrong-unit", "wrong-kind", "out-of-order", "two-for-one", "future", "forecast-order"],
)
def test_what_cannot_be_believed_is_said_and_changes_nothing(folder: Path, bad: SignalObserved, reason: str) -> None:
    words = [("00:05", observed(100, "00:05")), ("00:10", bad), ("00:11", bad.model_copy(update={"id": uuid4()}))]
    site = run_virtual(metered(folder, *words, until="00:12"))
    refused = [event for event in site.said() if isinstance(event, SignalRefused)]
    assert [(event.signal, event.reason) for event in refused] == [("surplus", reason)]
    assert not any(isinstance(event, WindowOpened) for event in site.said())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_not_a_number_never_gets_past_the_contracts(folder: Path, number: str) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(signals=METER, rule=RULE)):
            await site.until("00:01")
            whole = seal(observed(9000, "00:01"), "/windfall/test")
            # The envelope is in order: only the number is not.
            body = whole.body.replace(b"9000.0", number.encode())
            assert body != whole.body
            site.domain.store(Letter(whole.subject, whole.headers, body))
            await site.until("00:02")
        return site

    site = run_virtual(morning())
    (dead,) = site.domain.letters(DEAD_STREAM)
    assert dead.headers[DEAD_REASON] == "signal.observed: value: Input should be a finite number"
    assert not any("window.opened" in letter.subject for letter in site.domain.letters(EVENTS_STREAM))


def test_a_value_of_no_signal_of_the_site_is_buried_with_the_reason(folder: Path) -> None:
    words = [("00:05", observed(9000, "00:05", signal="wind"))]
    site = run_virtual(metered(folder, *words, until="00:06"))
    (dead,) = site.domain.letters(DEAD_STREAM)
    assert dead.headers[DEAD_REASON] == "'wind' of site-a does not come by the bus; what does: surplus"


def test_silence_of_a_meter_closes_and_its_word_recovers(folder: Path) -> None:
    words = [("00:05", observed(6000, "00:05")), ("01:00", observed(6000, "01:00"))]
    site = run_virtual(metered(folder, *words, until="01:01"))
    assert site.told() == [
        "signal.observed 00:05",
        "window.opened 00:05",
        "signal.stale 00:20",
        "window.closed 00:20",
        "signal.observed 01:00",
        "signal.recovered 01:00",
        "window.opened 01:00",
    ]


def test_what_the_bus_said_survives_a_restart(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        settings = site.settings(signals=METER, rule=RULE)
        async with site.watched(settings):
            await site.until("00:05")
            site.publish(observed(6000, "00:05"))
            await site.until("00:06")
        async with site.watched(settings):
            await site.until("00:10")
            site.publish(observed(5000, "00:04"))
            await site.until("00:30")
        return site

    said = run_virtual(morning()).told()
    assert [line for line in said if "observed" not in line] == [
        "window.opened 00:05",
        "signal.refused 00:10",
        "signal.stale 00:20",
        "window.closed 00:20",
    ]


def carbon(folder: Path, provider: Scripted, until: str, clock: LoopClock | None = None, **changes: object) -> Site:
    async def morning() -> Site:
        site = site_at(folder, 0)
        site.clock = clock or site.clock
        async with site.watched(site.settings(**changes), carbon=provider):
            await LoopClock(DAY).sleep_until(clock_of(until) + timedelta(seconds=1))
        assert provider.closed
        return site

    return run_virtual(morning())


def grams(at: str, value: float) -> Quote:
    return Quote(SignalKind.MARGINAL, clock_of(at), value)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (grams("00:10", float("nan")), "not-finite"),
        (grams("00:10", -5), "implausible"),
        (grams("00:10", 90_000), "implausible"),
        (grams("09:00", 20), "future"),
        (Quote(SignalKind.PERCENTILE, clock_of("00:10"), 40), "kind"),
        (Unbelievable("unit", "percentile instead of lbs_co2_per_mwh", clock_of("00:10")), "unit"),
    ],
    ids=["nan", "negative", "absurd", "future", "percentile-for-moer", "wrong-unit"],
)
def test_a_provider_that_talks_nonsense_opens_nothing_and_becomes_stale(
    folder: Path, bad: Quote | Unbelievable, reason: str
) -> None:
    site = carbon(folder, Scripted([(DAY, grams("00:00", 400)), (clock_of("00:10"), bad)]), "00:40")
    assert site.told() == ["signal.refused 00:10", "signal.stale 00:15"]
    refused = site.said()[0]
    assert isinstance(refused, SignalRefused) and refused.reason == reason


def test_the_same_value_again_and_again_is_no_sign_of_life(folder: Path) -> None:
    site = carbon(folder, Scripted([(DAY, grams("00:00", 20))]), "00:40")
    assert site.told() == ["window.opened 00:00", "signal.stale 00:15", "window.closed 00:15"]


def test_the_hour_that_summer_time_repeats_is_judged_twice(folder: Path) -> None:
    summer, winter = timezone(timedelta(hours=2)), timezone(timedelta(hours=1))
    times = [datetime(2026, 10, 25, 2, 30, tzinfo=summer), datetime(2026, 10, 25, 2, 30, tzinfo=winter)]
    script = [(at, Quote(SignalKind.MARGINAL, at, value)) for at, value in zip(times, (20.0, 400.0), strict=True)]

    async def night() -> Site:
        site = site_at(folder, 0)
        site.clock = LoopClock(times[0])
        async with site.watched(site.settings(stale_after="PT2H", grace="PT0S"), carbon=Scripted(script)):
            await site.clock.sleep_until(times[1] + timedelta(minutes=2))
        return site

    assert run_virtual(night()).told() == ["window.opened 00:30", "window.closed 01:30"]


class Jumpy(LoopClock):
    """A machine's clock that is wrong for a while; what waits on it waits as long as it would on a right one."""

    def __init__(self, start: datetime, wrong: Callable[[datetime], timedelta]) -> None:
        super().__init__(start)
        object.__setattr__(self, "wrong", wrong)

    def now(self) -> datetime:
        true = super().now()
        error: timedelta = self.wrong(true)  # type: ignore[attr-defined]
        return true + error


def a_day_ahead(true: datetime) -> timedelta:
    return timedelta(days=1) if clock_of("01:00") <= true < clock_of("01:30") else timedelta(0)


def test_a_clock_that_jumps_ahead_and_back_fails_closed_and_recovers(folder: Path) -> None:
    # The provider stamps its values itself, every five minutes.
    instants = [DAY + timedelta(minutes=5 * step) for step in range(60)]
    script = [(at, Quote(SignalKind.MARGINAL, at, 20.0)) for at in instants]
    site = carbon(folder, Truthful(script), "03:00", Jumpy(DAY, a_day_ahead))
    assert site.told() == [
        "window.opened 00:00",
        "signal.stale 01:15",
        "window.closed 01:15",
        "signal.recovered 01:30",
        "window.opened 01:30",
    ]


class Truthful(Scripted):
    """Goes by the true time, whatever the watcher's clock says."""

    async def current(self, now: datetime) -> Quote:
        return await super().current(LoopClock(DAY).now())


def test_a_value_stamped_by_a_clock_that_was_ahead_is_forgotten_when_it_is_set_back(folder: Path) -> None:
    script = [(DAY, 20.0), (clock_of("01:45"), 400.0), (clock_of("24:00"), 20.0)]
    site = carbon(folder, Scripted(script), "02:00", Jumpy(DAY, a_day_ahead))
    told = site.told()
    # A day of silence, as the clock has it, and then values of tomorrow; back again, they are refused and forgotten.
    assert told[:5] == [
        "window.opened 00:00",
        "signal.stale 01:14",
        "window.closed 01:14",
        "signal.recovered 01:00",
        "window.opened 01:00",
    ]
    assert told[5:] == ["signal.refused 01:30", "window.closed 01:55"]
    refused, closed = site.said()[5:]
    assert isinstance(refused, SignalRefused) and refused.reason == "future"
    assert isinstance(closed, WindowClosed) and closed.at == clock_of("01:55")


def test_one_signal_in_trouble_does_not_stop_another(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        price = Scripted([(DAY, 10.0), (clock_of("01:00"), Transient("503"))], kind=SignalKind.PRICE)
        carbon = Scripted([(DAY, 20.0), (clock_of("02:00"), 900.0), (clock_of("03:00"), 20.0)])
        settings = site.settings(
            signals={name: {"provider": "static", "value": 1} for name in ("carbon", "price")},
            rule="carbon < 100..150 or price < 20..40",
            stale_after_of={"price": timedelta(minutes=30)},
        )
        async with site.watched(settings, carbon=carbon, price=price):
            await site.until("03:01")
        return site

    # The price falls silent, and that matters only once the carbon does not suffice.
    assert run_virtual(morning()).told() == [
        "window.opened 00:00",
        "signal.stale 02:00",
        "window.closed 02:00",
        "signal.recovered 03:00",
        "window.opened 03:00",
    ]


async def test_a_provider_that_asks_for_a_year_is_asked_again_in_an_hour() -> None:
    now = clock_of("12:00")
    away = Scripted([(now, Transient("HTTP 503", timedelta(days=365)))])
    asking = Asking({"carbon": away}, timedelta(0), timedelta(minutes=1))
    assert await asking.ask(now, {"carbon": None}) == {"carbon": ()}
    assert asking.next_due(now) == now + LONGEST_REST
    await asking.close()
