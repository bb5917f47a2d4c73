"""How long starts and drains take at this site, as its events tell it, and the terms that follow."""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from windfall.contracts.events import NodeReady, SiteDrained, TrainingStarted
from windfall.contracts.message import Message
from windfall.energy.gate import passes_up
from windfall.energy.lookout import Terms
from windfall.energy.startup import Startup, drain_time, learn, start_up, unused
from windfall.energy.vigil import Steps
from windfall.servicekit.service import Stand

_KEY: Final = "startup"
_NOTHING: Final = timedelta(0)


class Learned:
    """What was measured, as far as it is journaled."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._startup = stand.journal.load(_KEY, Startup) or Startup()
        self._last: tuple[Terms, Startup, Terms] | None = None
        """What was told, what was measured, and what followed: asked for many times between two measurements."""

    def measure(self, event: Message) -> None:
        """What the site's services said; of interest is what the watcher waited for."""
        if isinstance(event, NodeReady | TrainingStarted | SiteDrained):
            # A node that was ready while nobody listened was ready when it says so.
            self._keep(learn(self._startup, event, min(event.at, self._stand.clock.now())))

    def told(self, steps: Steps, terms: Terms) -> None:
        """The watcher has decided, and spoken, by these terms."""
        startup, now = self._startup, self._stand.clock.now()
        for _, said in steps:
            for event in said:
                startup = learn(startup, event, now)
        if steps and passes_up(steps[-1][0].watch.gate, now, terms.policy):
            startup = unused(startup, now)
        self._keep(startup)

    def _keep(self, startup: Startup) -> None:
        if startup != self._startup:
            self._stand.journal.commit(state={_KEY: startup})
            self._startup = startup

    def terms(self, told: Terms) -> Terms:
        """What the owner told, with what was measured in its place."""
        if self._last is not None and self._last[0] is told and self._last[1] is self._startup:
            return self._last[2]
        policy = told.policy
        drain = drain_time(self._startup, _NOTHING) or policy.drain
        measured = replace(
            policy,
            start_up=start_up(self._startup, _NOTHING) or policy.start_up,
            drain=drain,
            closing_lead=max(policy.closing_lead, drain),
        )
        terms = told if measured == policy else replace(told, policy=measured)
        self._last = told, self._startup, terms
        return terms
