"""A Vessim co-simulation (vessim 0.15, live API): the intensity of its grid, or the power that its microgrid has over.

Source: dos-group/vessim, and answers recorded from 0.15.0. Its time is the simulation's, so the watcher's clock must
run along with it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field

from windfall.contracts.events import SignalKind
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy_watcher.answers import AnswerCache, Body, Json, ZonedInstant, read
from windfall.energy_watcher.cadence import Cadence, series
from windfall.energy_watcher.http import Cures, Denied, HttpClient, Request
from windfall.energy_watcher.section import HttpSection, Means
from windfall.servicekit.errors import Transient

_NOTHING_YET: Final = "No data available"


class VessimSection(HttpSection):
    """No credential."""

    provider: Literal["vessim"]
    url: str = "http://127.0.0.1:8700"
    microgrid: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$")] | None = None
    """Its name there, when it is not called like the site."""
    kind: Literal[SignalKind.MARGINAL, SignalKind.AVERAGE, SignalKind.SURPLUS] = SignalKind.MARGINAL
    """``surplus`` is ``p_delta`` in W: what is produced less what is drawn."""
    grid_signal: str = "mci"
    """The grid signal that holds the intensity, in gCO2/kWh."""
    training_actors: tuple[str, ...] = ()
    """``surplus``: actors that are the training's own; what they draw counts as being over."""
    period: timedelta = Field(default=timedelta(seconds=10), gt=timedelta(0))
    """The step of the simulation."""
    reach: int = Field(default=1000, ge=1, le=100_000)
    """How many steps history goes back."""


class _Actor(Body):
    power: float


class _Step(Body):
    time: ZonedInstant
    p_delta: float
    actor_states: dict[str, Any] | None = None
    grid_signals: dict[str, Any] | None = None


class _Signal(Body):
    value: float


class Vessim:
    """One microgrid."""

    def __init__(self, told: VessimSection, means: Means) -> None:
        self.kind: SignalKind = told.kind
        self.region = told.microgrid or means.site
        self._told = told
        cure = "Set microgrid to one that GET /microgrids lists"
        self._client = HttpClient("Vessim", told, means, Cures(cure, cure))
        self._cache = AnswerCache()
        self._cadence = Cadence(told.period)

    @classmethod
    def of(cls, told: VessimSection, means: Means) -> Self:
        return cls(told, means)

    async def current(self, now: datetime) -> Quote:
        request = Request(f"/microgrids/{self.region}")
        try:
            body = await self._cache.get(
                request, now, self._client.ask, lambda body: self._quote(body).point_time, self._told.period
            )
        except Denied as denied:
            if denied.said == _NOTHING_YET:
                raise Transient(f"Vessim has no data of {self.region} yet") from None
            raise
        return self._cadence.current(self._quote(body), now)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        current = await self.current(now)
        return await self._cadence.news(current, after, lambda: self._past(after, now))

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        return ()

    def next_at(self, now: datetime) -> datetime | None:
        return self._cadence.next_at(now)

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        await self._client.close()

    async def _past(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        request = Request(f"/microgrids/{self.region}/history", (("limit", str(self._told.reach)),))
        steps = ((await self._client.ask(request)).body or {}).get("data")
        if not isinstance(steps, list):
            raise Unbelievable("unreadable", "data is not a list")
        return series(self._each(steps), after, now)

    def _each(self, steps: Sequence[Any]) -> Iterator[Quote]:
        for step in steps:
            yield self._quote(step)

    def _quote(self, given: Json) -> Quote:
        step = read(_Step, given)
        if self.kind is SignalKind.SURPLUS:
            return Quote(self.kind, step.time, step.p_delta - self._drawn(step), self.region)
        signals = step.grid_signals or {}
        if self._told.grid_signal not in signals:
            known = ", ".join(sorted(signals)) or "none"
            raise Unbelievable(
                "unreadable", f"no grid signal {self._told.grid_signal!r}; there are: {known}", step.time
            )
        value = read(_Signal, {"value": signals[self._told.grid_signal]}).value
        return Quote(self.kind, step.time, value, self.region)

    def _drawn(self, step: _Step) -> float:
        """Power of the training's own actors in W; negative while they draw."""
        states = step.actor_states or {}
        missing = sorted(set(self._told.training_actors) - set(states))
        if missing:
            raise Unbelievable("unreadable", f"no actor {', '.join(missing)}", step.time)
        return sum(read(_Actor, states[name]).power for name in self._told.training_actors)
