"""Where readings and forecasts come from."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from windfall.energy.signals import Reading
from windfall.energy_watcher.replay import ReplaySource
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.static import StaticSource


class Source(Protocol):
    """One site's signal."""

    async def readings(self, after: datetime | None, now: datetime) -> Sequence[Reading]:
        """What was published later than ``after`` (none: ever) and is known at ``now``, oldest first.

        A source that keeps no history gives its latest reading. Raises ``Transient`` when it cannot be had now.
        """

    async def ahead(self, at: datetime, horizon: timedelta) -> Sequence[Reading]:
        """The forecast as it stands at an instant, oldest first, no further than the horizon.

        Empty when there is none or it cannot be had: a site goes on without a forecast, though never without a signal.
        """

    def next_at(self, now: datetime) -> datetime | None:
        """When to ask for readings again; none leaves it to the poll interval."""

    def ended(self, now: datetime) -> bool:
        """Whether there will never be another reading."""


ADAPTERS: Final[dict[str, Callable[[WatcherSettings], Source]]] = {
    "replay": ReplaySource.of,
    "static": StaticSource.of,
}
"""Every source by the name that ``WINDFALL_SIGNAL`` gives it. Each raises ``Mistake`` when it cannot be had at all."""
