"""WattTime's traps: the token, the percentile, what belongs to one request, and what cannot be true."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from windfall.contracts.events import SignalKind
from windfall.energy.quotes import Unbelievable
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.testing.fake_providers import (
    PASSWORD,
    USERNAME,
    FakeProviders,
    Reply,
    curve,
    in_json,
    page,
    too_many,
)
from windfall.energy_watcher.watttime import WattTime, WattTimeSection
from windfall.servicekit.errors import Mistake, Transient

NOON = datetime(2026, 3, 29, 12, 2, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
ENVIRON = {"WINDFALL_WATTTIME_USERNAME": USERNAME, "WINDFALL_WATTTIME_PASSWORD": PASSWORD}
NO_SCOPE = {"error": "Invalid query parameters", "message": "Invalid scope. You do not have sufficient access."}


class Told:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = NOON


@pytest.fixture
def time() -> Told:
    return Told()


@pytest.fixture
async def there(time: Told) -> AsyncIterator[FakeProviders]:
    async with FakeProviders(lambda: time.now) as fake:
        yield fake


@pytest.fixture
async def watttime(there: FakeProviders) -> AsyncIterator[WattTime]:
    made = build(there)
    yield made
    await made.close()


def build(there: FakeProviders, **more: Any) -> WattTime:
    told = {"provider": "watttime", "region": "CAISO_NORTH", "url": there.url, **more}
    return WattTime.of(WattTimeSection.model_validate(told), Means("site-a", "carbon", ENVIRON, no_wait))


async def no_wait(_: float) -> None:
    return


async def test_pounds_become_grams(watttime: WattTime) -> None:
    quote = await watttime.current(NOON)
    assert quote.kind is SignalKind.MARGINAL
    assert quote.point_time == NOON - 2 * MINUTE
    assert quote.value == pytest.approx(curve(NOON - 2 * MINUTE), rel=1e-12)


async def test_the_value_and_its_forecast_are_one_request(watttime: WattTime, there: FakeProviders) -> None:
    current = await watttime.current(NOON)
    ahead = await watttime.forecast(NOON, DAY)
    assert await watttime.history(current.point_time - 5 * MINUTE, NOON) == (current,)
    assert there.paths() == ["/login", "/v3/forecast"]
    assert len(ahead) == 287
    assert ahead[0].point_time == current.point_time + 5 * MINUTE


async def test_a_value_is_kept_until_the_next_is_due(watttime: WattTime, there: FakeProviders, time: Told) -> None:
    await watttime.current(NOON)
    time.now = NOON + 2.9 * MINUTE
    await watttime.current(time.now)
    assert len(there.asked) == 2
    time.now = NOON + 3 * MINUTE
    await watttime.current(time.now)
    assert len(there.asked) == 3


async def test_a_longer_horizon_is_asked_for_once(watttime: WattTime, there: FakeProviders, time: Told) -> None:
    assert len(await watttime.forecast(NOON, 100 * HOUR)) == 863
    time.now += 5 * MINUTE
    await watttime.current(time.now)
    await watttime.forecast(time.now, 100 * HOUR)
    assert [asked.params["horizon_hours"] for asked in there.asked if asked.path == "/v3/forecast"] == ["72", "72"]


async def test_the_token_is_renewed_before_it_ends(watttime: WattTime, there: FakeProviders, time: Told) -> None:
    for _ in range(12):
        await watttime.current(time.now)
        time.now += 5 * MINUTE
    assert there.paths().count("/login") == 3, "at 0, 25 and 50 minutes"
    assert there.paths().count("/v3/forecast") == 12, "none was refused"


@pytest.mark.parametrize("expired", [page(403), page(401), in_json(401, {"error": "token has expired"})])
async def test_a_token_that_ended_is_renewed_once(
    watttime: WattTime, there: FakeProviders, time: Told, expired: Reply
) -> None:
    there.expired = expired
    await watttime.current(NOON)
    there.expire()
    time.now += 10 * MINUTE
    await watttime.current(time.now)
    assert there.paths() == ["/login", "/v3/forecast", "/v3/forecast", "/login", "/v3/forecast"]


async def test_a_clock_that_is_set_back_ends_the_token(watttime: WattTime, there: FakeProviders, time: Told) -> None:
    await watttime.current(NOON)
    time.now -= HOUR
    await watttime.current(time.now)
    assert there.paths().count("/login") == 2


async def test_a_page_in_spite_of_a_fresh_token_may_pass(watttime: WattTime, there: FakeProviders, time: Told) -> None:
    await watttime.current(NOON)
    time.now += 10 * MINUTE
    there.next.extend([page(403), in_json(200, {"token": "rehearsal.jwt.new"}), page(403)])
    with pytest.raises(Transient, match="accepts the login"):
        await watttime.current(time.now)
    assert len(there.asked) == 5, "the login was tried exactly once"


async def test_a_page_at_the_login_is_a_wrong_password(watttime: WattTime, there: FakeProviders) -> None:
    there.next.append(page(403))
    with pytest.raises(Mistake, match=r"refuses /login .*an HTML page.*WINDFALL_WATTTIME_PASSWORD"):
        await watttime.current(NOON)
    assert there.paths() == ["/login"]


async def test_what_the_account_may_not_read_is_not_asked_twice(watttime: WattTime, there: FakeProviders) -> None:
    there.next.extend([in_json(200, {"token": "rehearsal.jwt.new"}), in_json(403, NO_SCOPE)])
    with pytest.raises(Mistake, match=r"Invalid scope.*CAISO_NORTH"):
        await watttime.current(NOON)
    assert len(there.asked) == 2


async def test_a_busy_login_says_when(watttime: WattTime, there: FakeProviders) -> None:
    there.next.append(too_many("300"))
    with pytest.raises(Transient) as failed:
        await watttime.current(NOON)
    assert failed.value.retry_after == 5 * MINUTE


@pytest.mark.parametrize("token", ["", "two\nlines", 7, None])
async def test_a_token_that_cannot_be_sent(watttime: WattTime, there: FakeProviders, token: object) -> None:
    there.next.append(in_json(200, {"token": token}))
    with pytest.raises(Unbelievable) as refused:
        await watttime.current(NOON)
    assert refused.value.reason == "unreadable"


async def test_a_percentile_is_not_taken_for_an_intensity(watttime: WattTime, there: FakeProviders) -> None:
    """Four public clients read ``/v3/signal-index`` as lb/MWh: then a percentile of 40 looks like clean power."""

    def percentile(body: dict[str, Any]) -> object:
        return {**body, "meta": {**body["meta"], "units": "percentile"}}

    there.change = percentile
    with pytest.raises(Unbelievable, match="percentile instead of lbs_co2_per_mwh") as refused:
        await watttime.current(NOON)
    assert refused.value.reason == "unit"


async def test_an_intensity_is_not_taken_for_a_percentile(there: FakeProviders) -> None:
    ranks = build(there, kind="percentile")
    quote = await ranks.current(NOON)
    assert (quote.kind, quote.unit) == (SignalKind.PERCENTILE, "percentile")
    assert 0 <= quote.value <= 100
    assert there.paths() == ["/login", "/v3/signal-index"]
    there.change = lambda body: {**body, "meta": {**body["meta"], "units": "lbs_co2_per_mwh"}}
    with pytest.raises(Unbelievable) as refused:
        await ranks.current(NOON + 10 * MINUTE)
    assert refused.value.reason == "unit"
    await ranks.close()


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"region": "SPP_TX"}, "disagrees"),
        ({"signal_type": "health_damage"}, "kind"),
        ({"units": "kg"}, "unit"),
        ({"units": None}, "unreadable"),
    ],
)
async def test_an_answer_about_something_else(
    watttime: WattTime, there: FakeProviders, meta: dict[str, object], reason: str
) -> None:
    there.change = lambda body: {**body, "meta": {**body["meta"], **meta}}
    with pytest.raises(Unbelievable) as refused:
        await watttime.current(NOON)
    assert refused.value.reason == reason


def rows(*given: tuple[str, float]) -> Any:
    data = [{"point_time": at, "value": value} for at, value in given]
    return lambda body: {**body, "data": data}


async def test_no_data_at_all(watttime: WattTime, there: FakeProviders) -> None:
    there.change = rows()
    with pytest.raises(Unbelievable, match="empty") as refused:
        await watttime.current(NOON)
    assert refused.value.reason == "unreadable"


async def test_instants_of_any_offset(watttime: WattTime, there: FakeProviders) -> None:
    """The night of 25 October in Berlin has 02:30 twice, and only the offset tells them apart. None means UTC."""
    night = datetime(2026, 10, 25, 0, 32, tzinfo=UTC)
    there.change = rows(
        ("2026-10-25T02:30:00+02:00", 10.0),
        ("2026-10-25T02:30:00+01:00", 20.0),
        ("2026-10-25T01:35:00", 30.0),
    )
    current = await watttime.current(night)
    ahead = await watttime.forecast(night, 2 * HOUR)
    times = [quote.point_time for quote in (current, *ahead)]
    assert times == [night + minutes * MINUTE for minutes in (-2, 58, 63)]


@pytest.mark.parametrize("again", ["2026-03-29T12:05:00+00:00", "2026-03-29T12:04:00+00:00"])
async def test_a_forecast_out_of_order(watttime: WattTime, there: FakeProviders, again: str) -> None:
    there.change = rows(("2026-03-29T12:00:00+00:00", 1.0), ("2026-03-29T12:05:00+00:00", 2.0), (again, 3.0))
    assert (await watttime.current(NOON)).value > 0, "the current value does not suffer"
    with pytest.raises(Unbelievable) as refused:
        await watttime.forecast(NOON, HOUR)
    assert refused.value.reason == "order"


async def test_a_point_that_is_there_twice_counts_once(watttime: WattTime, there: FakeProviders) -> None:
    twice = ("2026-03-29T12:05:00+00:00", 2.0)
    there.change = rows(("2026-03-29T12:00:00+00:00", 1.0), twice, twice)
    assert len(await watttime.forecast(NOON, HOUR)) == 1


async def test_a_broken_point_ahead_is_passed_over(
    watttime: WattTime, there: FakeProviders, caplog: pytest.LogCaptureFixture
) -> None:
    there.change = rows(
        ("2026-03-29T12:00:00+00:00", 1.0),
        ("2026-03-29T12:05:00+00:00", float("nan")),
        ("2026-03-29T12:10:00+00:00", -5.0),
        ("2026-03-29T12:15:00+00:00", 2.0),
    )
    (left,) = await watttime.forecast(NOON, HOUR)
    assert left.point_time == NOON + 13 * MINUTE
    assert [record.levelname for record in caplog.records if "passed over" in record.message] == ["WARNING"] * 2


async def test_a_value_a_moment_ahead_is_waited_for(watttime: WattTime, there: FakeProviders, time: Told) -> None:
    time.now = NOON + 3 * MINUTE
    with pytest.raises(Transient) as failed:
        await watttime.current(time.now - timedelta(seconds=2))
    assert failed.value.retry_after == timedelta(seconds=2)
    assert (await watttime.current(time.now)).point_time == time.now


async def test_a_long_past_is_asked_for_in_parts(watttime: WattTime, there: FakeProviders) -> None:
    past = await watttime.history(NOON - 70 * DAY, NOON)
    parts = [asked.params for asked in there.asked if asked.path == "/v3/historical"]
    assert len(parts) == 3
    assert all(datetime.fromisoformat(part["end"]).tzinfo is not None for part in parts)
    assert len(past) == 70 * 288
    assert past[0].point_time == NOON - 70 * DAY + 3 * MINUTE


async def test_a_past_without_data_leaves_the_current_value(
    watttime: WattTime, there: FakeProviders, time: Told
) -> None:
    current = await watttime.current(NOON)
    there.change = rows()
    assert await watttime.history(NOON - DAY, NOON) == (current,)
