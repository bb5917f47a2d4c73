"""The promises of every provider, kept against a server that speaks their recorded shapes and their errors."""

import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import pytest

from windfall.contracts.events import UNITS, SignalKind, SignalObserved
from windfall.contracts.message import derived_id
from windfall.energy.quotes import PLAUSIBLE, Unbelievable
from windfall.energy_watcher.bus import Bus
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.sources import PROVIDERS, provider_of, signals_of
from windfall.energy_watcher.testing.fake_providers import (
    PASSWORD,
    TOKEN,
    USERNAME,
    FakeProviders,
    Reaction,
    Reply,
    Trouble,
    curve,
    in_json,
    page,
    too_many,
)
from windfall.energy_watcher.testing.recorded_shapes import Asked
from windfall.servicekit.errors import Mistake, Transient

NOON = datetime(2026, 3, 29, 12, 2, 30, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
ENVIRON = {
    "WINDFALL_WATTTIME_USERNAME": USERNAME,
    "WINDFALL_WATTTIME_PASSWORD": PASSWORD,
    "WINDFALL_ELECTRICITYMAPS_TOKEN": TOKEN,
    "WINDFALL_PROMETHEUS_TOKEN": TOKEN,
}
BY_HTTP: dict[str, dict[str, Any]] = {
    "watttime": {"provider": "watttime", "region": "CAISO_NORTH"},
    "watttime-percentile": {"provider": "watttime", "region": "CAISO_NORTH", "kind": "percentile"},
    "electricitymaps-v3": {"provider": "electricitymaps", "zone": "DE", "version": "v3"},
    "electricitymaps-v4": {"provider": "electricitymaps", "zone": "DE"},
    "price-v3": {"provider": "electricitymaps", "zone": "DE", "version": "v3", "kind": "price"},
    "price-v4": {"provider": "electricitymaps", "zone": "DE", "kind": "price"},
    "uk": {"provider": "uk_carbon_intensity"},
    "uk-region": {"provider": "uk_carbon_intensity", "region_id": 1},
    "uk-postcode": {"provider": "uk_carbon_intensity", "postcode": "OX1"},
    "vessim": {"provider": "vessim"},
    "vessim-surplus": {"provider": "vessim", "kind": "surplus", "training_actors": ["gpu"]},
    "prometheus": {"provider": "prometheus", "query": "sum(site_export_watts)", "kind": "surplus"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "replay": {"provider": "replay"},
    "static": {"provider": "static", "value": 42},
    "bus": {"provider": "bus", "kind": "surplus"},
}


@dataclass
class World:
    """A fake outside, a time, and one provider that looks at it."""

    there: FakeProviders
    folder: Path
    now: datetime = NOON
    waits: list[float] = field(default_factory=list)
    provider: Provider = field(init=False)

    async def wait(self, seconds: float) -> None:
        self.waits.append(seconds)

    def build(self, case: str, **more: Any) -> Provider:
        told = {**{**BY_HTTP, **OTHERS}[case], **more}
        if case in BY_HTTP:
            told = {"url": self.there.url, **told}
        if case == "replay":
            told["trace_file"] = str(self.folder / "trace.csv")
            (self.folder / "trace.csv").write_text("\n".join(["point_time,site-a", *trace_rows()]))
        means = Means("site-a", "signal", ENVIRON, self.wait, Random(1))
        self.provider = provider_of(signals_of({"signal": told})["signal"], means)
        if isinstance(self.provider, Bus):
            for minutes in range(60, -1, -5):
                self.provider.hear(said(floor5(self.now) - minutes * MINUTE), self.now)
        return self.provider


def floor5(at: datetime) -> datetime:
    return at.replace(minute=at.minute // 5 * 5, second=0)


def trace_rows() -> list[str]:
    times = [floor5(NOON) + index * 5 * MINUTE for index in range(-24, 48)]
    return [f"{at.isoformat()},{curve(at)}" for at in times]


def said(at: datetime, **more: Any) -> SignalObserved:
    told = {"kind": SignalKind.SURPLUS, "unit": "W", "value": curve(at), "point_time": at, "signal": "signal", **more}
    ahead = tuple({"point_time": at + index * 5 * MINUTE, "value": 7.0} for index in range(1, 13))
    identity: UUID = derived_id(at.isoformat(), "signal.observed", "site-a")
    return SignalObserved.model_validate({"id": identity, "at": at, "site": "site-a", "forecast": ahead, **told})


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with FakeProviders(lambda: made.now) as there:
        made = World(there, tmp_path)
        yield made
        if hasattr(made, "provider"):
            await made.provider.close()


every = pytest.mark.parametrize("case", [*BY_HTTP, *OTHERS])
by_http = pytest.mark.parametrize("case", BY_HTTP)


def test_every_provider_is_tried() -> None:
    assert {told["provider"] for told in (BY_HTTP | OTHERS).values()} == set(PROVIDERS)


@every
async def test_the_current_value_is_believable_and_not_ahead(world: World, case: str) -> None:
    provider = world.build(case)
    quote = await provider.current(world.now)
    lowest, highest = PLAUSIBLE[provider.kind]
    assert (quote.kind, quote.unit, quote.region) == (provider.kind, UNITS[provider.kind], provider.region)
    assert lowest <= quote.value <= highest
    assert quote.point_time <= world.now
    assert quote.point_time.utcoffset() == timedelta(0)
    assert quote.age(world.now) <= HOUR


@every
async def test_history_is_news_in_order(world: World, case: str) -> None:
    provider = world.build(case)
    for after in (None, NOON - HOUR):
        news = await provider.history(after, world.now)
        assert news[-1] == await provider.current(world.now)
        assert all(later.point_time > earlier.point_time for earlier, later in pairwise(news))
        assert after is None or news[0].point_time > after
        assert {(quote.kind, quote.region) for quote in news} == {(provider.kind, provider.region)}


@every
async def test_what_is_known_is_no_news(world: World, case: str) -> None:
    provider = world.build(case)
    current = await provider.current(world.now)
    assert not await provider.history(current.point_time, world.now)


@every
async def test_a_forecast_stays_within_its_horizon(world: World, case: str) -> None:
    provider = world.build(case)
    for horizon in (HOUR, 30 * HOUR, 200 * HOUR):
        ahead = await provider.forecast(world.now, horizon)
        assert all(world.now < quote.point_time <= world.now + horizon for quote in ahead)
        assert all(later.point_time > earlier.point_time for earlier, later in pairwise(ahead))
        assert {quote.kind for quote in ahead} <= {provider.kind}
    assert not await provider.forecast(world.now, timedelta(0))


@every
async def test_the_next_look_lies_ahead(world: World, case: str) -> None:
    provider = world.build(case)
    assert provider.next_at(world.now) is None or provider.next_at(world.now) > world.now  # type: ignore[operator]
    await provider.current(world.now)
    following = provider.next_at(world.now)
    assert following is None or following > world.now
    assert not provider.ended(world.now)


@pytest.mark.parametrize("case", ["watttime", "electricitymaps-v4", "uk", "price-v4"])
async def test_a_forecast_reaches_as_far_as_the_provider(world: World, case: str) -> None:
    furthest = {"watttime": 72, "electricitymaps-v4": 72, "uk": 48, "price-v4": 24}[case]
    ahead = await world.build(case).forecast(world.now, 200 * HOUR)
    assert furthest - 1 <= (ahead[-1].point_time - world.now) / HOUR <= furthest


@by_http
async def test_a_provider_that_is_down_for_two_hours_comes_back(world: World, case: str) -> None:
    provider = world.build(case, retries=1)
    await provider.current(world.now)
    troubles: list[Reaction] = [Reply(503), Trouble.HANG_UP, too_many(), page(502)]
    for step in range(24):
        world.now += 5 * MINUTE
        world.there.down = troubles[step % len(troubles)]
        with pytest.raises(Transient):
            await provider.history(NOON, world.now + HOUR)
    world.there.down = None
    world.now += HOUR
    current = await provider.current(world.now)
    assert current.age(world.now) <= HOUR
    assert current.point_time > NOON


@by_http
async def test_a_busy_provider_is_given_the_time_it_asks_for(world: World, case: str) -> None:
    provider = world.build(case)
    world.there.next.extend([too_many("7"), Reply(503)])
    await provider.current(world.now)
    assert world.waits[0] == 7.0
    assert 0.0 <= world.waits[1] <= 2.0


@by_http
async def test_a_provider_that_wants_too_much_time_says_so(world: World, case: str) -> None:
    provider = world.build(case)
    world.there.down = too_many("3600")
    with pytest.raises(Transient) as failed:
        await provider.current(world.now)
    assert failed.value.retry_after == HOUR
    assert not world.waits
    assert len(world.there.asked) == 1


@by_http
async def test_a_slow_provider_is_left(world: World, case: str) -> None:
    provider = world.build(case, read_timeout=0.05, connect_timeout=0.05, retries=0)
    world.there.down = Trouble.SILENCE
    with pytest.raises(Transient):
        await provider.current(world.now)


@by_http
@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (page(200, "<!DOCTYPE html><title>Please sign in</title>"), "an HTML page"),
        (Reply(200, b"value: 3"), "not JSON"),
        (Reply(200, b""), "nothing"),
        (in_json(200, [1, 2]), "not a JSON object"),
        (Reply(200, b"[" * 100_000), "not JSON"),
    ],
    ids=["page", "text", "nothing", "list", "deep"],
)
async def test_what_is_no_json_object_is_refused(world: World, case: str, reply: Reply, says: str) -> None:
    provider = world.build(case)
    world.there.down = reply
    with pytest.raises(Unbelievable, match=says) as refused:
        await provider.current(world.now)
    assert refused.value.reason == "unreadable"


@by_http
async def test_a_redirect_is_not_followed(world: World, case: str) -> None:
    provider = world.build(case)
    world.there.down = Reply(302, headers={"Location": world.there.url + "/elsewhere"})
    with pytest.raises(Mistake, match="redirect"):
        await provider.current(world.now)
    assert "/elsewhere" not in world.there.paths()


Spoil = Callable[[dict[str, Any]], object]
VALUES = {"value", "carbonIntensity", "forecast", "actual", "mci", "p_delta"}


def with_values(change: Callable[[Any], Any]) -> Spoil:
    """Every value in a body changed; ``...`` takes it away."""

    def walk(given: Any) -> Any:
        if isinstance(given, list):
            return [walk(one) for one in given]
        if not isinstance(given, dict):
            return given
        walked: dict[str, Any] = {}
        for name, one in given.items():
            sample = name == "value" and isinstance(one, list)
            number = name in VALUES and (one is None or isinstance(one, int | float))
            changed = [one[0], str(change(one[1]))] if sample else change(one) if number else walk(one)
            if changed is not ... and not (sample and change(0) is ...):
                walked[name] = changed
        return walked

    return walk


@by_http
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _: float("nan"), "not-finite"),
        (lambda _: float("inf"), "not-finite"),
        (lambda _: 1e12, "implausible"),
        (lambda _: -1e12, "implausible"),
        (lambda _: "plenty", "unreadable"),
        (lambda _: ..., "unreadable"),
    ],
    ids=["nan", "infinite", "absurd", "negative", "text", "missing"],
)
async def test_a_value_that_cannot_be_true(world: World, case: str, change: Callable[[Any], Any], reason: str) -> None:
    provider = world.build(case)
    world.there.change = with_values(change)
    if case.startswith("uk") and change(0) is ...:
        # Both are optional there: a half hour without either has no value yet.
        with pytest.raises(Transient):
            await provider.current(world.now)
        return
    with pytest.raises(Unbelievable) as refused:
        await provider.current(world.now)
    assert refused.value.reason == reason


@pytest.mark.parametrize("case", [case for case in BY_HTTP if case != "prometheus"])
async def test_the_time_of_a_current_value(world: World, case: str) -> None:
    """Prometheus is told the time, so it cannot be ahead; its own test looks at the time of its samples."""
    provider = world.build(case)
    world.there.lag = -2 * HOUR
    with pytest.raises(Unbelievable) as refused:
        await provider.current(world.now)
    assert refused.value.reason == "future"
    assert refused.value.point_time is not None
    world.there.lag = 3 * HOUR
    world.now += MINUTE
    stale = await provider.current(world.now)
    if case == "price-v4":
        assert stale.age(world.now) < HOUR, "an auction of yesterday settled the price of this hour"
        return
    assert 3 * HOUR <= stale.age(world.now) <= 4 * HOUR, "it is given as it is: who watches judges its age"
    assert provider.next_at(world.now) is None, "it is late already"


@by_http
async def test_a_body_without_its_fields(world: World, case: str) -> None:
    provider = world.build(case)
    world.there.change = lambda body: {"hello": "world"}
    with pytest.raises(Unbelievable) as refused:
        await provider.current(world.now)
    assert refused.value.reason == "unreadable"


def everything(error: BaseException | None) -> str:
    """All that an error and its causes say."""
    told = []
    while error is not None:
        told += [str(error), repr(error), repr(error.__dict__)]
        error = error.__cause__ or error.__context__
    return "\n".join(told)


@by_http
async def test_a_credential_is_never_shown(world: World, case: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    provider = world.build(case)
    pair = b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
    secrets = [PASSWORD, TOKEN, pair, "rehearsal.jwt"]
    shown = [repr(provider), repr(vars(provider)), repr(Means("a", "b", ENVIRON))]
    await provider.history(NOON - 3 * HOUR, world.now)

    def echo(status: int) -> Callable[[Asked], Reply]:
        return lambda asked: in_json(status, {"error": f"{PASSWORD * (case == 'watttime')} {dict(asked.headers)}"})

    reactions: list[Reaction] = [page(403), page(200), Trouble.HANG_UP]
    reactions += [echo(status) for status in (400, 401, 403, 404, 429, 500)]
    for reaction in reactions:
        world.now += HOUR
        world.there.down = reaction
        with pytest.raises((Mistake, Transient, Unbelievable)) as failed:
            await provider.current(world.now)
        shown.append(everything(failed.value))
        world.there.down = None
        await provider.current(world.now)
    said_by_us = [record.getMessage() for record in caplog.records]
    for text in [*shown, *said_by_us]:
        for secret in secrets:
            assert secret not in text
    assert any("***" in text for text in shown) or case not in ("watttime", "electricitymaps-v4", "prometheus")


@pytest.mark.parametrize("case", ["watttime", "electricitymaps-v4", "prometheus"])
async def test_a_wrong_credential_is_a_mistake(world: World, case: str) -> None:
    wrong = {name: "wrong" + value for name, value in ENVIRON.items()}
    told = signals_of({"signal": {"url": world.there.url, **BY_HTTP[case]}})["signal"]
    world.provider = provider_of(told, Means("site-a", "signal", wrong, world.wait))
    with pytest.raises(Mistake, match="Set WINDFALL_") as refused:
        await world.provider.current(world.now)
    assert "wrong" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("case", "elsewhere"),
    [
        ("watttime", {"region": "ATLANTIS"}),
        ("electricitymaps-v4", {"zone": "XX"}),
        ("vessim", {"microgrid": "nowhere"}),
        ("prometheus", {"query": "sum(site_export_watts"}),
    ],
)
async def test_what_is_not_covered_is_a_mistake(world: World, case: str, elsewhere: dict[str, str]) -> None:
    with pytest.raises(Mistake) as refused:
        await world.build(case, **elsewhere).current(world.now)
    assert refused.value.cure
    assert "\n" not in str(refused.value)
