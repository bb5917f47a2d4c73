"""What of the site's signals its ledger hears: the intensity that its power has."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from windfall.contracts.message import Message
from windfall.energy.intensity import INTENSITIES
from windfall.energy.rule import Absolute, limits, signals
from windfall.energy.vigil import Steps
from windfall.energy_watcher.bookkeeper import Bookkeeper, keep
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.settings import WatcherSettings
from windfall.servicekit.service import Stand


@dataclass(frozen=True)
class Accounted:
    """The site's bookkeeper, and the signal that it goes by."""

    bookkeeper: Bookkeeper
    signal: str | None
    """None where no signal is an intensity: then one is assumed."""

    def learn(self, steps: Steps) -> None:
        """What was believed, in the order in which it was."""
        if self.signal is None:
            return
        lasts = [lookout.intakes[self.signal].last for lookout, _ in steps]
        self.bookkeeper.know(*(last for last in lasts if last is not None))

    def tells(self, listener: Callable[[Message], None]) -> None:
        """Pass on what the site's services say."""
        self.bookkeeper.tells(listener)

    def ended(self, at: datetime) -> None:
        """There will be no more signals."""
        self.bookkeeper.ended(at)


@asynccontextmanager
async def accounted(
    settings: WatcherSettings, stand: Stand, providers: Mapping[str, Provider], environ: Mapping[str, str]
) -> AsyncIterator[Accounted]:
    """Keep the site's ledger until the block ends; see :func:`windfall.energy_watcher.bookkeeper.keep`."""
    # What the rule reads comes first; a signal that only checks another still says what power emits.
    names = dict.fromkeys((*signals(settings.surplus), *providers))
    signal = next((name for name in names if providers[name].kind in INTENSITIES), None)
    stale_after = settings.stale_after if signal is None else settings.limit(signal)
    clean = _clean_below(settings, signal)
    async with keep(
        settings, stand, clean_below_g_per_kwh=clean, stale_after=stale_after, environ=environ
    ) as bookkeeper:
        yield Accounted(bookkeeper, signal)


def _clean_below(settings: WatcherSettings, signal: str | None) -> float:
    """The open threshold, in gCO2/kWh. One that moves, or is none, leaves it to the setting of the short form."""
    for limit in limits(settings.surplus):
        if limit.signal == signal and limit.comparison == "<" and isinstance(limit.open, Absolute):
            return limit.open.value
    return settings.open_below
