"""A Prometheus query: a site's meter, the surplus of its photovoltaics, a price, or any other signal in a known unit.

Source: prometheus.io/docs/prometheus/latest/querying/api. An instant query answers with the time at which it was
evaluated, not with that of the sample, which may be five minutes older (the look-back); ``time_query`` gives the true
one where that matters.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr, model_validator

from windfall.contracts.events import UNITS, SignalKind
from windfall.energy.quotes import G_PER_LB, Quote, Unbelievable
from windfall.energy_watcher.answers import AnswerCache, Body, Json, read
from windfall.energy_watcher.cadence import Cadence, series
from windfall.energy_watcher.credentials import optional_credential
from windfall.energy_watcher.http import Answer, Cures, HttpClient, Request, bearer
from windfall.energy_watcher.section import HttpSection, Means
from windfall.servicekit.errors import Mistake, Transient

MOST_STEPS: Final = 10_000
"""Prometheus gives up to 11,000 points of one series in an answer."""
_INTENSITY: Final = {"gCO2/kWh": 1.0, "kgCO2/MWh": 1.0, "kgCO2/kWh": 1000.0, "lbCO2/MWh": G_PER_LB / 1000.0}
FACTORS: Final[dict[SignalKind, dict[str, float]]] = {
    SignalKind.MARGINAL: _INTENSITY,
    SignalKind.AVERAGE: _INTENSITY,
    SignalKind.PERCENTILE: {"percentile": 1.0},
    SignalKind.PRICE: {"EUR/MWh": 1.0, "EUR/kWh": 1000.0},
    SignalKind.SURPLUS: {"W": 1.0, "kW": 1e3, "MW": 1e6},
}
"""The units that a query may have, by kind, and the factor to the unit of the kind."""


class PrometheusSection(HttpSection):
    """Credential, where one is needed: the bearer token ``WINDFALL_PROMETHEUS_TOKEN``, or the same with ``_FILE``."""

    provider: Literal["prometheus"]
    query: Annotated[str, Field(min_length=1, max_length=4000)]
    """PromQL that gives one value. A surplus must not fall by what the training itself draws: add that back in it."""
    time_query: Annotated[str, Field(min_length=1, max_length=4000)] | None = None
    """PromQL that gives the UNIX time of the sample: ``timestamp(site_export_watts)``."""
    kind: SignalKind
    unit: str = ""
    """Of the query's value; none means the unit of the kind."""
    period: timedelta = Field(default=timedelta(seconds=60), ge=timedelta(seconds=1))
    """How often the meter is scraped."""
    reach: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    """How far back history goes when nobody says from when."""

    @model_validator(mode="after")
    def _known_unit(self) -> Self:
        if self.unit and self.unit not in FACTORS[self.kind]:
            raise ValueError(f"unit is {self.unit!r}; a {self.kind} may be in {', '.join(FACTORS[self.kind])}")
        return self


class _Data(Body):
    kind: Literal["vector", "scalar", "matrix", "string"] = Field(validation_alias="resultType")
    result: list[Any]


class _Answer(Body):
    status: Literal["success"]
    data: _Data


class _Instant(Body):
    value: list[Any]


class _Range(Body):
    values: list[Any]


class Prometheus:
    """One query of one server."""

    def __init__(self, told: PrometheusSection, means: Means, token: SecretStr | None) -> None:
        self.kind = told.kind
        self.region = means.site
        self._told = told
        self._factor = FACTORS[told.kind][told.unit or UNITS[told.kind]]
        cures = Cures(
            "Set WINDFALL_PROMETHEUS_TOKEN to a token that may query",
            "Correct the query; try it in the server's own console",
        )
        self._client = HttpClient("Prometheus", told, means, cures)
        self._token = None if token is None else bearer(token)
        for secret in (token, self._token):
            if secret is not None:
                self._client.hide(secret)
        self._cache = AnswerCache()
        self._cadence = Cadence(told.period)

    @classmethod
    def of(cls, told: PrometheusSection, means: Means) -> Self:
        """Raises ``Mistake`` when the credential cannot be read."""
        return cls(told, means, optional_credential("WINDFALL_PROMETHEUS_TOKEN", means.environ))

    async def current(self, now: datetime) -> Quote:
        at, value = await self._instant(self._told.query, now)
        if self._told.time_query is not None:
            at = _at((await self._instant(self._told.time_query, now))[1])
        return self._cadence.current(Quote(self.kind, at, value * self._factor, self.region), now)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        current = await self.current(now)
        return await self._cadence.news(current, after, lambda: self._past(after or now - self._told.reach, now))

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        return ()

    def next_at(self, now: datetime) -> datetime | None:
        return self._cadence.next_at(now)

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        await self._client.close()

    async def _instant(self, query: str, now: datetime) -> tuple[datetime, float]:
        request = Request("/api/v1/query", (("query", query), ("time", now.isoformat())))
        body = await self._cache.get(request, now, self._ask, lambda _: now, self._told.period)
        data = read(_Answer, body).data
        if data.kind == "scalar":
            return _sample(data.result)
        return _sample(read(_Instant, _single(data, "vector", query)).value)

    async def _past(self, start: datetime, end: datetime) -> Sequence[Quote]:
        step, quotes, since = self._told.period, list[Quote](), start
        while since < end:
            until = min(end, since + MOST_STEPS * step)
            params = {"query": self._told.query, "start": since.isoformat(), "end": until.isoformat()}
            request = Request("/api/v1/query_range", (*params.items(), ("step", str(step.total_seconds()))))
            body = (await self._ask(request, {})).body or {}
            quotes.extend(series(self._quotes(body), quotes[-1].point_time if quotes else start, until))
            since = until
        return quotes

    def _quotes(self, body: Json) -> Iterator[Quote]:
        data = read(_Answer, body).data
        if not data.result:
            return
        for given in read(_Range, _single(data, "matrix", self._told.query)).values:
            at, value = _sample(given)
            yield Quote(self.kind, at, value * self._factor, self.region)

    async def _ask(self, request: Request, headers: Mapping[str, str]) -> Answer:
        held = {} if self._token is None else {"Authorization": self._token.get_secret_value()}
        return await self._client.ask(request, {**headers, **held})


def _single(data: _Data, kind: str, query: str) -> Any:
    if data.kind != kind:
        raise Mistake(f"the query {query} gives a {data.kind} instead of a {kind}", "Query for one instant vector")
    if not data.result:
        raise Transient(f"Prometheus has no sample of {query} within its look-back")
    if len(data.result) > 1:
        raise Mistake(f"the query {query} gives {len(data.result)} series", "Aggregate it to one, with sum() or avg()")
    return data.result[0]


def _sample(given: Any) -> tuple[datetime, float]:
    """``[<UNIX time>, "<number>"]``; the text may say ``NaN`` or ``+Inf``, which is refused as a value."""
    if not isinstance(given, list) or len(given) != 2 or not isinstance(given[1], str):
        raise Unbelievable("unreadable", 'a sample that is not [time, "value"]')
    try:
        value = float(given[1])
    except ValueError:
        raise Unbelievable("unreadable", "a sample whose value is not a number") from None
    return _at(given[0]), value


def _at(unix_s: Any) -> datetime:
    if isinstance(unix_s, bool) or not isinstance(unix_s, int | float):
        raise Unbelievable("unreadable", "a sample whose time is not a number")
    try:
        return datetime.fromtimestamp(unix_s, UTC)
    except (ValueError, OverflowError, OSError):
        raise Unbelievable("unreadable", "a sample whose time is no instant") from None
