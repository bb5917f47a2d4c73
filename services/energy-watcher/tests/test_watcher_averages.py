"""Traps of the providers of averages: Electricity Maps, and the Carbon Intensity API of Great Britain."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from windfall.contracts.events import SignalKind
from windfall.energy.quotes import Unbelievable
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.sources import provider_of, signals_of
from windfall.energy_watcher.testing.fake_providers import TOKEN, FakeProviders, Reply, curve, in_json
from windfall.servicekit.errors import Mistake, Transient

NOON = datetime(2026, 3, 29, 12, 2, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
Build = Callable[..., Provider]


class Place:
    """The fake outside, and the providers that look at it."""

    def __init__(self) -> None:
        self.now = NOON
        self.there = FakeProviders(lambda: self.now)
        self.made: list[Provider] = []

    def maps(self, **more: object) -> Provider:
        return self._made({"provider": "electricitymaps", "zone": "DE", **more})

    def uk(self, **more: object) -> Provider:
        return self._made({"provider": "uk_carbon_intensity", **more})

    def _made(self, told: dict[str, object]) -> Provider:
        async def no_wait(_: float) -> None:
            return

        means = Means("site-a", "carbon", {"WINDFALL_ELECTRICITYMAPS_TOKEN": TOKEN}, no_wait, Random(5))
        self.made.append(provider_of(signals_of({"carbon": {"url": self.there.url, **told}})["carbon"], means))
        return self.made[-1]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    async with made.there:
        yield made
        for provider in made.made:
            await provider.close()


async def test_a_zone_is_never_guessed_from_the_caller(place: Place) -> None:
    await place.maps().history(NOON - 3 * HOUR, NOON)
    assert {asked.params["disableCallerLookup"] for asked in place.there.asked} == {"true"}
    assert {asked.headers["auth-token"] for asked in place.there.asked} == {TOKEN}
    place.there.change = lambda body: {**body, "zone": "FR"}
    with pytest.raises(Unbelievable, match="FR instead of DE") as refused:
        await place.maps().current(NOON)
    assert refused.value.reason == "disagrees"


@pytest.mark.parametrize("version", ["v3", "v4"])
async def test_both_versions(place: Place, version: str) -> None:
    maps = place.maps(version=version)
    quote = await maps.current(NOON)
    assert (quote.kind, quote.value, quote.estimated) == (SignalKind.AVERAGE, curve(NOON - 2 * MINUTE), True)
    past = await maps.history(None, NOON)
    assert len(past) == 24
    assert not past[0].estimated
    assert len(await maps.forecast(NOON, 30 * HOUR)) == 30
    assert {asked.path.split("/")[1] for asked in place.there.asked} == {version}


@pytest.mark.parametrize(("horizon", "hours"), [(1, "6"), (6, "6"), (7, "24"), (48, "48"), (49, "72"), (500, "72")])
async def test_only_the_horizons_that_there_are(place: Place, horizon: int, hours: str) -> None:
    await place.maps().forecast(NOON, horizon * HOUR)
    assert place.there.asked[-1].params["horizonHours"] == hours


async def test_a_plan_without_forecast(place: Place) -> None:
    place.there.next.append(in_json(401, {"error": "Your plan does not include this endpoint"}))
    with pytest.raises(Mistake, match="set forecast to false"):
        await place.maps().forecast(NOON, DAY)
    asked = len(place.there.asked)
    assert await place.maps(forecast=False).forecast(NOON, DAY) == ()
    assert len(place.there.asked) == asked


@pytest.mark.parametrize(
    "body", [{"status": "no-data"}, {"zone": "DE", "carbonIntensity": None, "datetime": "2026-03-29T12:00:00.000Z"}]
)
async def test_no_value_now(place: Place, body: dict[str, Any]) -> None:
    place.there.next.append(in_json(200, body))
    maps = place.maps()
    with pytest.raises(Transient):
        await maps.current(NOON)
    assert (await maps.current(NOON + MINUTE)).value > 0, "that there is none is not kept"


async def test_hours_without_a_value_are_left_out(place: Place) -> None:
    def gaps(body: dict[str, Any]) -> object:
        rows = body.get("history", [])
        return body | {"history": [{**row, "carbonIntensity": None} for row in rows[:20]] + rows[20:]} if rows else body

    place.there.change = gaps
    assert len(await place.maps().history(None, NOON)) == 4


async def test_a_coarser_answer_is_believed(place: Place) -> None:
    maps = place.maps(granularity="5_minutes")
    await maps.current(NOON)
    assert place.there.asked[0].params["temporalGranularity"] == "5_minutes"
    following = maps.next_at(NOON)
    assert following is not None
    assert following > NOON + 50 * MINUTE, "the plan allows hours only, and the answer said so"


async def test_a_price_and_those_to_come_are_one_request(place: Place) -> None:
    maps = place.maps(kind="price")
    quote = await maps.current(NOON)
    assert (quote.kind, quote.unit, quote.value) == (SignalKind.PRICE, "EUR/MWh", -40.0)
    assert len(await maps.forecast(NOON, DAY)) == 24
    assert place.there.paths() == ["/v4/price-day-ahead/combined"]
    place.there.change = lambda body: {"data": [{**row, "unit": "GBP/MWh"} for row in body["data"]]}
    with pytest.raises(Unbelievable) as refused:
        await maps.current(NOON + HOUR)
    assert refused.value.reason == "unit"


async def test_a_price_of_the_older_version_has_no_forecast(place: Place) -> None:
    maps = place.maps(kind="price", version="v3")
    assert (await maps.current(NOON)).value == -40.0
    assert await maps.forecast(NOON, DAY) == ()


async def test_a_plain_refusal_is_a_wrong_key(place: Place) -> None:
    place.there.next.append(Reply(403, b"Access denied"))
    with pytest.raises(Mistake, match="WINDFALL_ELECTRICITYMAPS_TOKEN"):
        await place.maps().current(NOON)


async def test_the_country(place: Place) -> None:
    uk = place.uk()
    current = await uk.current(NOON)
    assert (current.region, current.value) == ("GB", round(curve(NOON - 2 * MINUTE)))
    assert current.estimated, "there is no actual value before the half hour is over"
    past = await uk.history(NOON - DAY, NOON)
    assert [quote.estimated for quote in past] == [False] * 47 + [True]
    assert past[0].value == round(curve(past[0].point_time)) + 3


@pytest.mark.parametrize(("told", "path"), [({"region_id": 1}, "regionid/1"), ({"postcode": "OX1"}, "postcode/OX1")])
async def test_a_region(place: Place, told: dict[str, object], path: str) -> None:
    uk = place.uk(**told)
    current = await uk.current(NOON)
    assert current.region == f"GB/{path}"
    assert current.estimated
    assert len(await uk.forecast(NOON, 30 * HOUR)) == 60
    assert len(await uk.history(NOON - 20 * DAY, NOON)) == 20 * 48
    assert place.there.paths() == [
        f"/regional/{path}",
        f"/regional/intensity/2026-03-29T12:00Z/fw48h/{path}",
        f"/regional/intensity/2026-03-09T12:02Z/2026-03-22T12:02Z/{path}",
        f"/regional/intensity/2026-03-22T12:02Z/2026-03-29T12:02Z/{path}",
    ]


async def test_all_regions_in_each_half_hour(place: Place) -> None:
    """Without an id the documentation nests the other way round."""
    here = {"regionid": 1, "intensity": {"forecast": 12, "index": "low"}}
    there = {"regionid": 2, "intensity": {"forecast": 400, "index": "high"}}
    half_hour = {"from": "2026-03-29T12:00Z", "to": "2026-03-29T12:30Z", "regions": [there, here]}
    place.there.next.append(in_json(200, {"data": [half_hour]}))
    assert (await place.uk(region_id=1).current(NOON)).value == 12


@pytest.mark.parametrize(("horizon", "reach"), [(1, "fw24h"), (24, "fw24h"), (25, "fw48h"), (500, "fw48h")])
async def test_one_of_two_reaches(place: Place, horizon: int, reach: str) -> None:
    ahead = await place.uk().forecast(NOON, horizon * HOUR)
    assert place.there.paths() == [f"/intensity/2026-03-29T12:00Z/{reach}"]
    assert not any(quote.estimated for quote in ahead)


async def test_neither_actual_nor_forecast(place: Place) -> None:
    half_hour = {"from": "2026-03-29T12:00Z", "to": "", "intensity": {"forecast": None, "actual": None}}
    place.there.next.append(in_json(200, {"data": [half_hour]}))
    uk = place.uk()
    with pytest.raises(Transient):
        await uk.current(NOON)
    assert await uk.current(NOON + MINUTE)


@pytest.mark.parametrize("data", [None, "x", 7, [7], [{"from": "noon", "intensity": {}}], [{"intensity": {}}]])
async def test_data_in_no_known_shape(place: Place, data: object) -> None:
    place.there.next.append(in_json(200, {"data": data}))
    with pytest.raises(Unbelievable) as refused:
        await place.uk().current(NOON)
    assert refused.value.reason == "unreadable"


async def test_one_look_each_half_hour(place: Place) -> None:
    uk = place.uk()
    for _ in range(28):
        await uk.current(place.now)
        await uk.forecast(place.now, DAY)
        place.now += MINUTE
    assert len(place.there.asked) == 2
    following = uk.next_at(place.now)
    assert following is not None
    assert timedelta(0) < following - (NOON + 28 * MINUTE) < timedelta(minutes=1)
