"""One value for ever: a site with power of its own, or a rehearsal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import model_validator

from windfall.contracts.events import UNITS, SignalKind
from windfall.energy.quotes import PLAUSIBLE, Quote
from windfall.energy_watcher.section import Means, Section


class StaticSection(Section):
    """No credential."""

    provider: Literal["static"]
    value: float
    """In the unit of the kind."""
    kind: SignalKind = SignalKind.MARGINAL

    @model_validator(mode="after")
    def _plausible(self) -> Self:
        lowest, highest = PLAUSIBLE[self.kind]
        if not lowest <= self.value <= highest:
            raise ValueError(f"value is {self.value:g}; give {UNITS[self.kind]} from {lowest:g} to {highest:g}")
        return self


@dataclass
class Static:
    """Every time it is asked the value is fresh, and no end of it is in sight."""

    value: float
    kind: SignalKind
    region: str

    @classmethod
    def of(cls, told: StaticSection, means: Means) -> Self:
        return cls(told.value, told.kind, means.site)

    async def current(self, now: datetime) -> Quote:
        return Quote(self.kind, now, self.value, self.region)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        return () if after is not None and after >= now else (await self.current(now),)

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        return ()

    def next_at(self, now: datetime) -> datetime | None:
        return None

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        """There is nothing to let go of."""
