"""The Carbon Intensity API of Great Britain (NESO): average intensity in half hours, forecast two days ahead, no key.

Source: carbon-intensity.github.io/api-definitions. Times are UTC. ``actual`` is null until it is known, and never there
for a region; then the forecast of the present half hour stands for it, marked as estimated. Data: CC BY 4.0.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from windfall.contracts.events import SignalKind
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy_watcher.answers import AnswerCache, Body, Json, UtcInstant, read
from windfall.energy_watcher.cadence import Cadence, series
from windfall.energy_watcher.http import Cures, HttpClient, Request
from windfall.energy_watcher.pacing import TokenBucket
from windfall.energy_watcher.section import HttpSection, Means
from windfall.servicekit.errors import Transient

PERIOD: Final = timedelta(minutes=30)
LONGEST_REQUEST: Final = timedelta(days=13)
"""The provider's limit for one request of history is 14 days."""
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class UkCarbonIntensitySection(HttpSection):
    """The whole country, unless a region or a postcode is named. No credential."""

    provider: Literal["uk_carbon_intensity"]
    url: str = "https://api.carbonintensity.org.uk"
    region_id: int | None = Field(default=None, ge=1, le=17)
    """As the provider numbers them: 1 is North Scotland, 13 is London."""
    postcode: Annotated[str, Field(pattern=r"^[A-Z]{1,2}[0-9][A-Z0-9]?$")] | None = None
    """The outward code: ``OX1``."""
    reach: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    """How far back history goes when nobody says from when."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.region_id is not None and self.postcode is not None:
            raise ValueError("region_id and postcode are both given; keep one")
        return self


class _Intensity(Body):
    forecast: float | None = None
    actual: float | None = None


class _HalfHour(Body):
    since: UtcInstant = Field(validation_alias="from")
    intensity: _Intensity


class UkCarbonIntensity:
    """Great Britain, or one of its regions."""

    kind: SignalKind = SignalKind.AVERAGE

    def __init__(self, told: UkCarbonIntensitySection, means: Means) -> None:
        self._told = told
        place = f"regionid/{told.region_id}" if told.region_id is not None else f"postcode/{told.postcode}"
        self._place = "" if told.region_id is None and told.postcode is None else place
        self.region = "GB" if not self._place else f"GB/{self._place}"
        cure = "Set region_id to 1 to 17, or postcode to an outward code like OX1"
        self._client = HttpClient(
            "the UK Carbon Intensity API", told, means, Cures(cure, cure), {"/": TokenBucket.full(1.0, 10.0)}
        )
        self._cache = AnswerCache()
        self._cadence = Cadence(PERIOD, timedelta(seconds=means.random.uniform(5.0, 60.0)))

    @classmethod
    def of(cls, told: UkCarbonIntensitySection, means: Means) -> Self:
        return cls(told, means)

    async def current(self, now: datetime) -> Quote:
        request = Request(f"/regional/{self._place}" if self._place else "/intensity")
        body = await self._cache.get(request, now, self._client.ask, self._since, PERIOD)
        quotes = list(self._quotes(body, ahead=False))
        if not quotes:
            raise Transient(f"the UK Carbon Intensity API has no value of {self.region} now")
        return self._cadence.current(quotes[0], now)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        current = await self.current(now)
        return await self._cadence.news(current, after, lambda: self._past(after or now - self._told.reach, now))

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        if horizon <= timedelta(0):
            return ()
        reach = "fw24h" if horizon <= timedelta(hours=24) else "fw48h"
        begun = _half_hour(now)
        body = await self._cache.get(self._span(begun, reach), now, self._client.ask, lambda _: begun, PERIOD)
        return series(self._quotes(body, ahead=True), now, now + horizon)

    def next_at(self, now: datetime) -> datetime | None:
        return self._cadence.next_at(now)

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        await self._client.close()

    async def _past(self, start: datetime, end: datetime) -> Sequence[Quote]:
        quotes: list[Quote] = []
        since = start
        while since < end:
            until = min(end, since + LONGEST_REQUEST)
            body = (await self._client.ask(self._span(since, _written(until)))).body or {}
            last = quotes[-1].point_time if quotes else start
            quotes.extend(series(self._quotes(body, ahead=False), last, until))
            since = until
        return quotes

    def _span(self, since: datetime, until: str) -> Request:
        if self._place:
            return Request(f"/regional/intensity/{_written(since)}/{until}/{self._place}")
        return Request(f"/intensity/{_written(since)}/{until}")

    def _since(self, body: Json) -> datetime:
        """When the present half hour began; without a value the answer is not worth keeping."""
        return min((quote.point_time for quote in self._quotes(body, ahead=False)), default=_NEVER)

    def _quotes(self, body: Json, ahead: bool) -> Iterator[Quote]:
        """The half hours of any of the documented nestings. Ahead only the forecast counts, and is not marked."""
        for given in _rows(body.get("data"), self._told.region_id):
            half_hour = read(_HalfHour, given)
            forecast, actual = half_hour.intensity.forecast, half_hour.intensity.actual
            value = forecast if ahead or actual is None else actual
            if value is not None:
                yield Quote(self.kind, half_hour.since, value, self.region, not ahead and actual is None)


def _rows(data: Any, region_id: int | None) -> Iterator[Any]:
    """Half hours, whether they lie flat, in one region, or each holds all regions."""
    rows = [data] if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise Unbelievable("unreadable", "data is neither a list nor an object")
    for row in rows:
        if isinstance(row, dict) and "data" in row:
            yield from _rows(row["data"], region_id)
        elif isinstance(row, dict) and isinstance(row.get("regions"), list):
            yield from ({**row, **region} for region in row["regions"] if _is(region, region_id))
        else:
            yield row


def _is(region: Any, region_id: int | None) -> bool:
    return isinstance(region, dict) and region.get("regionid") == region_id


def _half_hour(at: datetime) -> datetime:
    """The beginning of the half hour in which an instant lies."""
    return at.astimezone(UTC).replace(minute=at.minute // 30 * 30, second=0, microsecond=0)


def _written(at: datetime) -> str:
    """As the provider writes instants in its paths."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
