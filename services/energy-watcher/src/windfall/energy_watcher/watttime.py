"""WattTime v3: marginal emissions (MOER) of a grid region every five minutes, with a forecast of up to 72 hours.

Sources: docs.watttime.org, WattTime's guide for the move from v2 to v3, and its official client,
github.com/WattTime/watttime-python-client. ``/v3/forecast`` is the live source: its first value is the current one.
``/v3/signal-index`` is a percentile in the same shape, so the unit of every answer is checked.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SecretStr

from windfall.contracts.events import SignalKind
from windfall.energy.quotes import G_PER_LB, Quote, Unbelievable
from windfall.energy_watcher.answers import AnswerCache, Body, Json, UtcInstant, read
from windfall.energy_watcher.cadence import Cadence, series, whole_hours
from windfall.energy_watcher.credentials import credential
from windfall.energy_watcher.http import Answer, Cures, Denied, HttpClient, Request, basic, bearer
from windfall.energy_watcher.pacing import TokenBucket
from windfall.energy_watcher.section import HttpSection, Means
from windfall.servicekit.errors import Transient

PERIOD: Final = timedelta(minutes=5)
FURTHEST_HOURS: Final = 72
LONGEST_REQUEST: Final = timedelta(days=30)
"""The provider's limit for one request of history is 32 days."""
TOKEN_LIFE: Final = timedelta(minutes=30)
RENEWED_BEFORE: Final = timedelta(minutes=5)
POUNDS_PER_MWH: Final = "lbs_co2_per_mwh"
G_PER_KWH_OF_LB_PER_MWH: Final = G_PER_LB / 1000.0
LOGIN: Final = "/login"
_SIGNAL: Final = "co2_moer"
_UNITS: Final[dict[SignalKind, tuple[str, float]]] = {
    SignalKind.MARGINAL: (POUNDS_PER_MWH, G_PER_KWH_OF_LB_PER_MWH),
    SignalKind.PERCENTILE: ("percentile", 1.0),
}
"""What the provider must call the unit of each kind, and the factor to ours."""
_BUCKETS: Final = {"/v3": TokenBucket.full(10.0, 10.0), LOGIN: TokenBucket.full(100 / 300, 10.0)}
"""The provider's limits: 3000 requests, and 100 logins, in any 5 minutes."""


class WattTimeSection(HttpSection):
    """Credential: ``WINDFALL_WATTTIME_USERNAME`` and ``WINDFALL_WATTTIME_PASSWORD``, or each with ``_FILE``."""

    provider: Literal["watttime"]
    url: str = "https://api.watttime.org"
    region: Annotated[str, Field(pattern=r"^[A-Z0-9_]{1,40}$")]
    """The balancing region as WattTime calls it: ``CAISO_NORTH``."""
    kind: Literal[SignalKind.MARGINAL, SignalKind.PERCENTILE] = SignalKind.MARGINAL
    """``percentile`` is the rank of the present value (``signal-index``); it has no forecast and no history."""
    reach: timedelta = Field(default=timedelta(days=1), gt=timedelta(0))
    """How far back history goes when nobody says from when."""


class _Meta(Body):
    region: str
    signal_type: str
    units: str


class _Series(Body):
    data: list[Any]
    meta: _Meta


class _Point(Body):
    point_time: UtcInstant
    value: float


class _Token(Body):
    token: Annotated[str, Field(pattern=r"^[!-~]+$")]


class WattTime:
    """One region of WattTime."""

    def __init__(self, told: WattTimeSection, means: Means, username: SecretStr, password: SecretStr) -> None:
        self.kind: SignalKind = told.kind
        self.region = told.region
        self._reach = told.reach
        cures = Cures(
            "Set WINDFALL_WATTTIME_USERNAME and WINDFALL_WATTTIME_PASSWORD to an account that may read this region; "
            "a free one reads CAISO_NORTH",
            "Set region to one that WattTime covers, like CAISO_NORTH",
        )
        self._client = HttpClient("WattTime", told, means, cures, _BUCKETS)
        self._login = basic(username, password)
        for secret in (password, self._login):
            self._client.hide(secret)
        self._token: SecretStr | None = None
        self._token_since: datetime | None = None
        self._cache = AnswerCache()
        # A few seconds after the mark, and not all sites in the same one.
        self._cadence = Cadence(PERIOD, timedelta(seconds=2.0 + means.random.uniform(0.0, 8.0)))
        self._hours = 24

    @classmethod
    def of(cls, told: WattTimeSection, means: Means) -> Self:
        """Raises ``Mistake`` when a credential is missing."""
        username = credential("WINDFALL_WATTTIME_USERNAME", means.environ)
        return cls(told, means, username, credential("WINDFALL_WATTTIME_PASSWORD", means.environ))

    async def current(self, now: datetime) -> Quote:
        first = next(iter(await self._live(now)))
        return self._cadence.current(first, now)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        current = await self.current(now)
        return await self._cadence.news(current, after, lambda: self._past(after or now - self._reach, now))

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        if self.kind is not SignalKind.MARGINAL or horizon <= timedelta(0):
            return ()
        # One length for all who ask, so that the current value and the forecast are one request.
        self._hours = min(FURTHEST_HOURS, max(self._hours, whole_hours(horizon)))
        return series(await self._live(now), now, now + horizon)

    def next_at(self, now: datetime) -> datetime | None:
        return self._cadence.next_at(now)

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        await self._client.close()

    async def _live(self, now: datetime) -> Iterable[Quote]:
        """The current value first, then what is expected."""
        request = self._request("/v3/signal-index")
        if self.kind is SignalKind.MARGINAL:
            request = self._request("/v3/forecast", horizon_hours=str(self._hours))
        ask = partial(self._ask, now)
        body = await self._cache.get(request, now, ask, lambda body: next(self._quotes(body)).point_time, PERIOD)
        return self._quotes(body)

    async def _past(self, start: datetime, end: datetime) -> Sequence[Quote]:
        if self.kind is not SignalKind.MARGINAL:
            return ()
        quotes: list[Quote] = []
        since = start
        while since < end:
            until = min(end, since + LONGEST_REQUEST)
            request = self._request("/v3/historical", start=since.isoformat(), end=until.isoformat())
            body = (await self._ask(end, request, {})).body or {}
            # Both ends belong to a request, so the last value of one is the first of the next.
            quotes.extend(series(self._quotes(body, empty=True), quotes[-1].point_time if quotes else start, until))
            since = until
        return quotes

    def _request(self, path: str, **more: str) -> Request:
        return Request(path, (("region", self.region), ("signal_type", _SIGNAL), *more.items()))

    def _quotes(self, body: Json, empty: bool = False) -> Iterator[Quote]:
        """Read one by one, so that a broken point far ahead does not take the current value with it."""
        answer = read(_Series, body)
        unit, factor = _UNITS[self.kind]
        if answer.meta.units != unit:
            raise Unbelievable("unit", f"{answer.meta.units} instead of {unit}")
        if answer.meta.signal_type != _SIGNAL:
            raise Unbelievable("kind", f"{answer.meta.signal_type} instead of {_SIGNAL}")
        if answer.meta.region != self.region:
            raise Unbelievable("disagrees", f"an answer about {answer.meta.region} instead of {self.region}")
        if not answer.data and not empty:
            raise Unbelievable("unreadable", "data is empty; its first value should be the current one")
        for given in answer.data:
            point = read(_Point, given)
            yield Quote(self.kind, point.point_time, point.value * factor, self.region)

    async def _ask(self, now: datetime, request: Request, headers: Mapping[str, str]) -> Answer:
        """Ask with a token; one that is refused is renewed exactly once."""
        token = self._held(now)
        try:
            return await self._client.ask(request, {**headers, **_authorized(token or await self._renewed(now))})
        except Denied as denied:
            if token is None or not _expired(denied):
                raise _explained(denied) from None
        token = await self._renewed(now)
        try:
            return await self._client.ask(request, {**headers, **_authorized(token)})
        except Denied as denied:
            raise _explained(denied) from None

    def _held(self, now: datetime) -> SecretStr | None:
        """The token, unless it is about to end; a clock that was set back ends it too."""
        since = self._token_since
        return self._token if since is not None and since <= now < since + TOKEN_LIFE - RENEWED_BEFORE else None

    async def _renewed(self, now: datetime) -> SecretStr:
        answer = await self._client.ask(Request(LOGIN), {"Authorization": self._login.get_secret_value()})
        self._token, self._token_since = SecretStr(read(_Token, answer.body).token), now
        self._client.hide(self._token)
        return self._token


def _authorized(token: SecretStr) -> Mapping[str, str]:
    return {"Authorization": bearer(token).get_secret_value()}


def _explained(denied: Denied) -> Exception:
    """With a login that was just accepted, a page in place of JSON comes from a machine on the way, and may pass."""
    if denied.status == 403 and not denied.is_json and denied.path != LOGIN:
        return Transient(f"WattTime answers with HTTP 403 and {denied.said}, though it accepts the login")
    return denied


def _expired(denied: Denied) -> bool:
    """401, or the page that a proxy sends with 403; a 403 in JSON is about what the account may read."""
    return denied.status == 401 or (denied.status == 403 and not denied.is_json)
