"""One value for ever: a site with power of its own, or a rehearsal."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from windfall.energy.signals import Reading
from windfall.energy_watcher.settings import WatcherSettings


@dataclass(frozen=True)
class StaticSource:
    """Every time it is asked the value is fresh, and no end of it is in sight."""

    intensity_g_per_kwh: float

    @classmethod
    def of(cls, settings: WatcherSettings) -> Self:
        assert settings.static_intensity is not None, "the settings ask for it"
        return cls(settings.static_intensity)

    async def readings(self, after: datetime | None, now: datetime) -> Sequence[Reading]:
        return (Reading(now, self.intensity_g_per_kwh),)

    async def ahead(self, at: datetime, horizon: timedelta) -> Sequence[Reading]:
        return ()

    def next_at(self, now: datetime) -> datetime | None:
        return None

    def ended(self, now: datetime) -> bool:
        return False
