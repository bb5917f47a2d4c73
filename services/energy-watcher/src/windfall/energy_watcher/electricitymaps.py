"""Electricity Maps, API v3 or v4: average intensity of a zone's consumption, or its day-ahead price.

Source: app.electricitymaps.com/docs. The intensity is a flow-traced average, not marginal, so thresholds of the one
mean nothing for the other. Without ``disableCallerLookup`` an unknown zone is answered by the caller's own, so it is
always sent, and the zone of every answer is checked.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AliasChoices, Field, SecretStr

from windfall.contracts.events import UNITS, SignalKind
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy_watcher.answers import AnswerCache, Body, Json, UtcInstant, read
from windfall.energy_watcher.cadence import Cadence, series, whole_hours
from windfall.energy_watcher.credentials import credential
from windfall.energy_watcher.http import Answer, Cures, HttpClient, Request
from windfall.energy_watcher.pacing import TokenBucket
from windfall.energy_watcher.section import HttpSection, Means
from windfall.servicekit.errors import Transient

PERIODS: Final = {
    "5_minutes": timedelta(minutes=5),
    "15_minutes": timedelta(minutes=15),
    "hourly": timedelta(hours=1),
}
HORIZONS_H: Final = (6, 24, 48, 72)
"""The only values of ``horizonHours``."""


class ElectricityMapsSection(HttpSection):
    """Credential: ``WINDFALL_ELECTRICITYMAPS_TOKEN``, or the same with ``_FILE``."""

    provider: Literal["electricitymaps"]
    url: str = "https://api.electricitymaps.com"
    version: Literal["v3", "v4"] = "v4"
    zone: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,40}$")]
    """The zone as Electricity Maps calls it: ``DE``, ``US-CAL-CISO``."""
    kind: Literal[SignalKind.AVERAGE, SignalKind.PRICE] = SignalKind.AVERAGE
    granularity: Literal["5_minutes", "15_minutes", "hourly"] = "hourly"
    """What the plan does not allow comes coarser; the answer says so and is believed."""
    emission_factors: Literal["lifecycle", "direct"] = "lifecycle"
    forecast: bool = True
    """Whether the plan includes forecasts of intensity. Prices have a forecast with v4 only."""


class _Point(Body):
    datetime: UtcInstant
    value: float | None = Field(validation_alias=AliasChoices("carbonIntensity", "value"))
    unit: str | None = None
    zone: str | None = None
    estimated: bool | None = Field(default=None, validation_alias="isEstimated")


class _About(Body):
    zone: str | None = None
    granularity: str | None = Field(default=None, validation_alias="temporalGranularity")


class ElectricityMaps:
    """One zone of Electricity Maps."""

    def __init__(self, told: ElectricityMapsSection, means: Means, token: SecretStr) -> None:
        self.kind: SignalKind = told.kind
        self.region = told.zone
        self._told = told
        cures = Cures(
            "Set WINDFALL_ELECTRICITYMAPS_TOKEN to a key whose plan covers this; "
            "set forecast to false if it is the forecast that it does not cover",
            "Set zone to one that Electricity Maps covers, like DE",
        )
        self._client = HttpClient("Electricity Maps", told, means, cures, {"/": TokenBucket.full(1.0, 10.0)})
        self._client.hide(token)
        self._token = token
        self._cache = AnswerCache()
        lag = timedelta(seconds=means.random.uniform(5.0, 60.0))
        self._cadence = Cadence(PERIODS[told.granularity], lag)

    @classmethod
    def of(cls, told: ElectricityMapsSection, means: Means) -> Self:
        """Raises ``Mistake`` when the credential is missing."""
        return cls(told, means, credential("WINDFALL_ELECTRICITYMAPS_TOKEN", means.environ))

    async def current(self, now: datetime) -> Quote:
        body = await self._get("combined" if self._prices_ahead else "latest", now)
        quotes = sorted(self._quotes(body), key=lambda quote: quote.point_time)
        if not quotes:
            raise Transient(f"Electricity Maps has no value of {self.region} now")
        begun = [quote for quote in quotes if quote.point_time <= now]
        return self._cadence.current(begun[-1] if begun else quotes[0], now)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        current = await self.current(now)
        return await self._cadence.news(current, after, lambda: self._past(after, now))

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        if horizon <= timedelta(0):
            return ()
        if self._prices_ahead:
            return series(self._quotes(await self._get("combined", now)), now, now + horizon)
        if self.kind is SignalKind.PRICE or not self._told.forecast:
            return ()
        wanted = whole_hours(horizon)
        hours = next((hours for hours in HORIZONS_H if hours >= wanted), HORIZONS_H[-1])
        body = await self._get("forecast", now, horizonHours=str(hours))
        return series(self._quotes(body), now, now + horizon)

    def next_at(self, now: datetime) -> datetime | None:
        return self._cadence.next_at(now)

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        await self._client.close()

    @property
    def _prices_ahead(self) -> bool:
        """One answer of v4 holds the price of this hour and of the 24 that follow: results of an auction."""
        return self.kind is SignalKind.PRICE and self._told.version == "v4"

    async def _past(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        return series(self._quotes(await self._get("history", now)), after, now)

    async def _get(self, what: str, now: datetime, **more: str) -> Json:
        signal = "price-day-ahead" if self.kind is SignalKind.PRICE else "carbon-intensity"
        params = {
            "zone": self.region,
            "disableCallerLookup": "true",
            "temporalGranularity": self._told.granularity,
            **({} if self.kind is SignalKind.PRICE else {"emissionFactorType": self._told.emission_factors}),
            **more,
        }
        request = Request(f"/{self._told.version}/{signal}/{what}", tuple(params.items()))
        return await self._cache.get(request, now, self._ask, partial(self._since, now), self._cadence.period)

    async def _ask(self, request: Request, headers: Mapping[str, str]) -> Answer:
        return await self._client.ask(request, {**headers, "auth-token": self._token.get_secret_value()})

    def _since(self, now: datetime, body: Json) -> datetime:
        """When the latest value that is not ahead began; without one the answer is not worth keeping."""
        begun = [quote.point_time for quote in self._quotes(body) if quote.point_time <= now]
        return max(begun, default=now - self._cadence.period)

    def _quotes(self, body: Json) -> Iterator[Quote]:
        """Every value of any of the documented envelopes; the missing ones, which are null, are left out."""
        if body.get("status") == "no-data":
            raise Transient(f"Electricity Maps has no data of {self.region} now")
        about = read(_About, body)
        self._cadence.period = PERIODS.get(about.granularity or "", self._cadence.period)
        for given in _rows(body):
            point = read(_Point, given)
            if (zone := point.zone or about.zone or self.region) != self.region:
                raise Unbelievable("disagrees", f"an answer about {zone} instead of {self.region}", point.datetime)
            if point.unit is not None and self.kind is SignalKind.PRICE and point.unit != UNITS[self.kind]:
                raise Unbelievable("unit", f"{point.unit} instead of {UNITS[self.kind]}", point.datetime)
            if point.value is not None:
                yield Quote(self.kind, point.datetime, point.value, self.region, point.estimated is True)


def _rows(body: Json) -> Sequence[Any]:
    """``data``, ``history`` or ``forecast``, whichever is there, or the one value that the answer itself is."""
    for name in ("data", "history", "forecast"):
        if name in body:
            rows = body[name]
            if not isinstance(rows, list):
                raise Unbelievable("unreadable", f"{name} is not a list")
            return rows
    return (body,)
