"""What the watcher remembers, in its journal: each step is kept with what it says, in the trace of its window."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import BaseModel

from windfall.contracts.commands import FollowPlan
from windfall.contracts.envelope import TRACEPARENT
from windfall.energy import vigil
from windfall.energy.intake import Intake
from windfall.energy.lookout import Judged, Lookout
from windfall.energy.vigil import Steps
from windfall.energy.windows import Events, Watch
from windfall.energy_watcher.provider import Provider
from windfall.servicekit.journal import Journal
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

WATCH: Final = "watch"
"""Key of the journaled :class:`Watch`."""
_JUDGED: Final = "judged"
_PLAN: Final = "plan"


class Memory:
    """One site's lookout, as far as it is journaled."""

    def __init__(self, stand: Stand, providers: Mapping[str, Provider]) -> None:
        self._stand = stand
        self.lookout = _remembered(stand.journal, stand.whom, providers, stand.clock.now())

    def keep(self, steps: Steps, heard: UUID | None = None) -> None:
        """Journal each step that says something, and the last; one that concerns a window goes into the trace that the
        window's first word began.
        """
        for lookout, said in vigil.unmissed(steps):
            watch, known = lookout.watch, self.lookout.watch
            carried = {"windfall.site": watch.site}
            if window_id := watch.window_id or known.window_id:
                carried["windfall.window_id"] = str(window_id)
            if watch.window_id is not None and watch.window_id != known.window_id:
                with span("window", root=True, carried=carried):
                    self._commit(lookout, said, outgoing_trace().get(TRACEPARENT), heard)
                continue
            if not said:
                self._commit(lookout, said, known.traceparent, heard)
                continue
            parent = {TRACEPARENT: known.traceparent} if known.traceparent else None
            with span(said[-1].topic, parent=parent, carried=carried):
                self._commit(lookout, said, known.traceparent, heard)

    def _commit(self, lookout: Lookout, said: Events, traceparent: str | None, heard: UUID | None) -> None:
        if lookout.watch.window_id is not None:
            watch = lookout.watch.model_copy(update={"traceparent": traceparent})
            lookout = replace(lookout, watch=watch)
        known = _journaled(self.lookout)
        state = {key: value for key, value in _journaled(lookout).items() if known.get(key) != value}
        if state or said or heard:
            self._stand.journal.commit(state=state, say=said, heard=heard)
        self.lookout = lookout
        if said:
            self._stand.outbox.wake()
            site = lookout.watch.site
            log.info("%s: %s", site, ", ".join(f"{event.topic} at {event.at.isoformat()}" for event in said))


def _remembered(journal: Journal, site: str, providers: Mapping[str, Provider], now: datetime) -> Lookout:
    # Silence counts from when the first value is due: a trace that has not begun yet is not stale.
    firsts = [provider.next_at(now) for provider in providers.values()]
    begun = Watch(site=site, watched_since=max((at for at in firsts if at is not None), default=now))
    intakes = {
        name: journal.load(_intake(name), Intake) or Intake(site=site, signal=name, kind=provider.kind)
        for name, provider in providers.items()
    }
    return Lookout(
        watch=journal.load(WATCH, Watch) or begun,
        intakes=intakes,
        plan=journal.load(_PLAN, FollowPlan),
        judged=journal.load(_JUDGED, Judged) or Judged(),
    )


def _intake(name: str) -> str:
    return f"intake-{name}"


def _journaled(lookout: Lookout) -> dict[str, BaseModel]:
    state: dict[str, BaseModel] = {WATCH: lookout.watch, _JUDGED: lookout.judged}
    state |= {_intake(name): intake for name, intake in lookout.intakes.items()}
    return state if lookout.plan is None else {**state, _PLAN: lookout.plan}
