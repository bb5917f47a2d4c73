"""The watcher's loop: ask the providers, decide, keep the decision, say it, wait for what comes next.

Whatever was missed while the watcher was away is judged first, value by value and by its own time, so that the windows
are those of an attentive watcher. A window that was open before is closed when it was, one that is still open is opened
when it was, and one that came and went unseen is not said at all.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from windfall.contracts.commands import FollowPlan
from windfall.contracts.events import SignalForecast, SignalObserved
from windfall.energy import vigil
from windfall.energy.bulletin import bulletin
from windfall.energy.explanation import explain
from windfall.energy.intake import EARLY
from windfall.energy.lookout import Lookout, Terms
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy.rule import signals
from windfall.energy.vigil import News, Steps
from windfall.energy_watcher.accounted import Accounted, accounted
from windfall.energy_watcher.asking import Asking
from windfall.energy_watcher.bus import Bus
from windfall.energy_watcher.learned import Learned
from windfall.energy_watcher.memory import Memory
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.sources import provider_of
from windfall.energy_watcher.terms import terms_of
from windfall.servicekit.errors import Poison
from windfall.servicekit.service import Stand

log = logging.getLogger(__name__)


@asynccontextmanager
async def attend(
    settings: WatcherSettings, stand: Stand, environ: Mapping[str, str] = os.environ
) -> AsyncIterator[None]:
    """Watch the signals that the settings name until the block ends.

    Raises:
        Mistake: a provider cannot be had at all, or does not fit the rule.
    """
    sections = settings.sections.items()
    providers = {name: provider_of(told, Means(settings.site, name, environ)) for name, told in sections}
    async with (
        accounted(settings, stand, providers, environ) as ledger,
        watched(settings, stand, providers, ledger),
    ):
        yield


@asynccontextmanager
async def watched(
    settings: WatcherSettings, stand: Stand, providers: Mapping[str, Provider], ledger: Accounted | None = None
) -> AsyncIterator["Watcher"]:
    """The same with providers that are there already, and with a ledger or without."""
    watcher = Watcher(settings, stand, providers, ledger)
    stand.bus.hears(SignalObserved, settings.site, watcher.observe)
    stand.bus.hears(FollowPlan, settings.site, watcher.follow)
    watching = stand.spawn(watcher.run(), "watch")
    try:
        yield watcher
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await watcher.close()


class Watcher:
    """One site's watch."""

    def __init__(
        self,
        settings: WatcherSettings,
        stand: Stand,
        providers: Mapping[str, Provider],
        ledger: Accounted | None = None,
    ) -> None:
        self._settings = settings
        self._told = terms_of(settings, providers)
        self._learned = Learned(stand) if settings.learn else None
        if ledger is not None and self._learned is not None:
            ledger.tells(self._learned.measure)
        self._stand = stand
        self._providers = providers
        self._asking = Asking(providers, settings.forecast_horizon, settings.poll_interval)
        self._woken = asyncio.Event()
        self._memory = Memory(stand, providers)
        self._ledger = ledger

    @property
    def _terms(self) -> Terms:
        return self._told if self._learned is None else self._learned.terms(self._told)

    # --- hear ---------------------------------------------------------------------------------------------------------

    async def observe(self, said: SignalObserved) -> None:
        """Somebody says a value of a signal that comes by the bus."""
        provider = self._providers.get(said.signal)
        if not isinstance(provider, Bus):
            names = ", ".join(name for name, one in self._providers.items() if isinstance(one, Bus)) or "none"
            raise Poison(f"{said.signal!r} of {said.site} does not come by the bus; what does: {names}")
        now = self._stand.clock.now()
        news: News = {}
        try:
            if provider.hear(said, now) and said.point_time <= now:
                news = {said.signal: [Quote(said.kind, said.point_time, said.value)]}
            self._asking.foresee(said.signal, await provider.forecast(now, self._settings.forecast_horizon), now)
        except Unbelievable as doubt:
            news = {said.signal: doubt}
        self._decide(vigil.look(self._memory.lookout, news, self._asking.forecast(now), now, self._terms), now)
        self._woken.set()

    async def follow(self, plan: FollowPlan) -> None:
        """The federation's plan for this site."""
        if not self._stand.journal.heard(plan.id):
            now = self._stand.clock.now()
            forecast = self._asking.forecast(now)
            self._decide(vigil.follow(self._memory.lookout, plan, forecast, now, self._terms), now, heard=plan.id)
            self._woken.set()

    # --- watch --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch until no signal of the rule has more."""
        clock = self._stand.clock
        while True:
            news = await self._asking.ask(clock.now(), self._known(clock.now()))
            now = clock.now()
            steps = vigil.look(self._memory.lookout, news, self._asking.forecast(now), now, self._terms)
            if all(self._providers[name].ended(now) for name in signals(self._terms.rule)):
                self._keep([*steps, *vigil.end(_last(steps, self._memory.lookout), now, self._terms)])
                if self._ledger is not None:
                    self._ledger.ended(now)
                log.info("the signal of %s has ended; it is %s", self._settings.site, now.isoformat())
                return
            self._decide(steps, now)
            await self._rest()

    async def close(self) -> None:
        """Let go of the providers."""
        await self._asking.close()

    async def _rest(self) -> None:
        """Until something is due, an answer comes, or somebody says something."""
        now = self._stand.clock.now()
        due = [
            self._asking.next_due(now),
            vigil.next_due(self._memory.lookout, self._asking.forecast(now), now, self._terms),
        ]
        until = min((at for at in due if at is not None), default=now + self._settings.poll_interval)
        own = [
            # For so long, and not until then: the clock may be set back meanwhile.
            asyncio.create_task(self._stand.clock.sleep(until - now)),
            asyncio.create_task(self._woken.wait()),
        ]
        try:
            await asyncio.wait([*own, *self._asking.under_way()], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in own:
                task.cancel()
            await asyncio.gather(*own, return_exceptions=True)
        self._woken.clear()

    def _known(self, now: datetime) -> dict[str, datetime | None]:
        """The point time of each signal's last value; one that lies in a future that is none does not count."""
        lasts = {name: self._memory.lookout.intakes[name].last for name in self._providers}
        return {
            name: None if last is None or last.point_time > now + EARLY else last.point_time
            for name, last in lasts.items()
        }

    # --- decide and say -----------------------------------------------------------------------------------------------

    def _decide(self, steps: Steps, now: datetime, heard: UUID | None = None) -> None:
        forecast = self._asking.forecast(now)
        steps = [*steps, *vigil.pass_time(_last(steps, self._memory.lookout), forecast, now, self._terms)]
        steps.append(explain(steps[-1][0], forecast, now, self._terms))
        self._keep(steps, heard)
        self._tell_forecasts(now)

    def _keep(self, steps: Steps, heard: UUID | None = None) -> None:
        # The ledger first: after a crash in between it passes over what it knows already.
        if self._ledger is not None:
            self._ledger.learn(steps)
        self._memory.keep(steps, heard)
        if self._learned is not None:
            self._learned.told(steps, self._terms)

    def _tell_forecasts(self, now: datetime) -> None:
        if not self._settings.publish_forecast:
            return
        for name, ahead in self._asking.forecast(now).items():
            intake = self._memory.lookout.intakes[name]
            if intake.last is None or name not in signals(self._terms.rule):
                continue
            key = f"forecast-{name}"
            last = self._stand.journal.load(key, SignalForecast)
            told = bulletin(self._settings.site, intake.kind, intake.last.value, ahead, now, last)
            if told is not None:
                self._stand.journal.commit(state={key: told}, say=[told])
                self._stand.outbox.wake()


def _last(steps: Steps, lookout: Lookout) -> Lookout:
    return steps[-1][0] if steps else lookout
