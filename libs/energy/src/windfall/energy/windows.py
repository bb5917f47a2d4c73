"""The windows of one site as the watcher keeps and says them: a gate, its ids, and silence, which fails closed.

``gate`` decides; this gives its moves their names on the bus. A ``Sight`` is what the watcher sees at a reading: the
verdict of the site's rule, the verdicts that are expected, and the sentence that explains them. Verdicts are judged at
readings, by the readings' own time, so that the same trace gives the same windows whoever watches and however late.
Only silence is judged by the clock.

Ids are derived from the site and the instant at which a window was first spoken of, so whoever decides again says the
same sentence.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import (
    SignalRecovered,
    SignalStale,
    SiteEvent,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Instant, Name, derived_id
from windfall.energy import gate as gates
from windfall.energy.forecast import expected_runs
from windfall.energy.gate import Gate, Move, Phase, Step
from windfall.energy.moves import Sight, event_of, text_of
from windfall.energy.policy import Policy
from windfall.energy.signals import Reading, plausible
from windfall.energy.verdict import Verdict

Events = tuple[SiteEvent, ...]


class Watch(BaseModel):
    """All that is remembered about one site between two sights."""

    model_config = ConfigDict(frozen=True)

    site: Name
    watched_since: Instant
    """From when silence counts as long as there was no sight."""
    last_point_time: Instant | None = None
    """Point time of the last reading that was believed."""
    stale: bool = False
    gate: Gate = Gate()
    window_id: UUID | None = None
    """The window that is open or expected; none otherwise."""
    traceparent: str | None = None
    """W3C trace context of its first word, so that the whole window is one trace."""

    @property
    def is_open(self) -> bool:
        return self.gate.phase is Phase.OPEN

    @property
    def opened_at(self) -> datetime | None:
        """Of the open window; none outside one."""
        return self.gate.moved_at if self.is_open else None

    @property
    def expected_close_at(self) -> datetime | None:
        """When the open window ends by the forecast; none when it sees no end."""
        return self.gate.closes_at if self.is_open else None


def sight_of(reading: Reading, ahead: Sequence[Reading], policy: Policy) -> Sight | None:
    """What a carbon signal alone shows under the policy's thresholds; none when the reading cannot be true."""
    value = reading.intensity_g_per_kwh
    if not plausible(value):
        return None
    return Sight(
        at=reading.point_time,
        verdict=policy.verdict(value),
        ahead=expected_runs(ahead, policy.verdict) or None,
        intensity_g_per_kwh=value,
        because=_because(value, policy),
    )


def observe(watch: Watch, sight: Sight, policy: Policy) -> tuple[Watch, Events]:
    """One sight in: the new state and whatever just happened out.

    One that is not newer than the last changes nothing. One that comes after too long a silence ends the silence's
    window first.
    """
    if watch.last_point_time is not None and sight.at <= watch.last_point_time:
        return watch, ()
    watch, before = lapse(watch, sight.at, policy)
    if watch.stale:
        key = derived_id(text_of(sight.at), SignalRecovered.topic, watch.site)
        before = (*before, SignalRecovered(id=key, at=sight.at, site=watch.site, point_time=sight.at))
    dirty_since = watch.gate.dirty_since
    gate, steps = gates.look(watch.gate, sight.at, sight.verdict, sight.ahead, policy)
    watch = watch.model_copy(update={"last_point_time": sight.at, "stale": False})
    watch, said = _said(watch, gate, steps, policy, sight, dirty_since)
    return watch, (*before, *said)


def tick(watch: Watch, now: datetime, policy: Policy) -> tuple[Watch, Events]:
    """Time passed without a sight: what was forecast comes near, or the signal is stale by now."""
    watch, lapsed = lapse(watch, now, policy)
    watch, said = _said(watch, *gates.tick(watch.gate, now, policy), policy)
    return watch, (*lapsed, *said)


def next_tick(watch: Watch, policy: Policy) -> datetime | None:
    """The instant at which ``tick`` will have something to say if no sight comes first; none when it will not."""
    due = [] if watch.stale else [_stale_at(watch, policy) + datetime.resolution]
    foreseen = gates.due(watch.gate, policy)
    return min([*due, *([] if foreseen is None else [foreseen])], default=None)


def lapse(watch: Watch, now: datetime, policy: Policy) -> tuple[Watch, Events]:
    """Fail closed when the last sight is older than the limit: nobody knows what the power is made of.

    Said at the instant at which the limit ran out, however late that is noticed.
    """
    stale_at = _stale_at(watch, policy)
    if watch.stale or now <= stale_at:
        return watch, ()
    silent_since = watch.last_point_time or watch.watched_since
    stale = SignalStale(
        id=derived_id(text_of(silent_since), SignalStale.topic, watch.site),
        at=stale_at,
        site=watch.site,
        last_point_time=watch.last_point_time,
        limit_s=policy.stale_after.total_seconds(),
    )
    watch, ended = _end(watch, stale_at, "stale", policy)
    return watch.model_copy(update={"stale": True}), (stale, *ended)


def finish(watch: Watch, now: datetime, policy: Policy) -> tuple[Watch, Events]:
    """The source has no more: whatever is open or expected ends here."""
    return _end(watch, now, "ended", policy)


def unmissed(steps: Sequence[tuple[Watch, Events]]) -> list[tuple[Watch, Events]]:
    """The steps of catching up, without a word about windows that came and went within them.

    Nobody can use such a window any more, so saying it would only start nodes to stop them. The last step is kept even
    when it says nothing: it holds the state.
    """
    said = [event for _, events in steps for event in events]
    ended = {event.window_id for event in said if isinstance(event, WindowClosed | WindowWithdrawn)}
    missed = {event.window_id for event in said if isinstance(event, WindowOpened | WindowExpected)} & ended
    worth = [(watch, tuple(event for event in events if not _about(event, missed))) for watch, events in steps]
    return [step for step in worth if step[1] or step is worth[-1]]


def window_of(site: str, spoken_of_at: datetime) -> UUID:
    """The id of the window of a site that was first spoken of at an instant."""
    return derived_id(text_of(spoken_of_at), "window", site)


def _about(event: SiteEvent, windows: set[UUID]) -> bool:
    kinds = WindowExpected | WindowWithdrawn | WindowOpened | WindowClosing | WindowClosed
    return isinstance(event, kinds) and event.window_id in windows


def _end(watch: Watch, at: datetime, why: Literal["stale", "ended"], policy: Policy) -> tuple[Watch, Events]:
    dirty_since = watch.gate.dirty_since
    gate, steps = gates.shut(watch.gate, at)
    return _said(watch, gate, steps, policy, None, dirty_since, why)


def _said(
    watch: Watch,
    gate: Gate,
    steps: Sequence[Step],
    policy: Policy,
    sight: Sight | None = None,
    dirty_since: datetime | None = None,
    why: Literal["stale", "ended"] | None = None,
) -> tuple[Watch, Events]:
    """The gate's moves as events, and the watch after them."""
    said: list[SiteEvent] = []
    window_id, traceparent = watch.window_id, watch.traceparent
    for step in steps:
        if window_id is None:
            window_id, traceparent = window_of(watch.site, step.at), None
        said.append(event_of(watch.site, window_id, step, policy, sight, dirty_since, why))
        if step.move in (Move.CLOSE, Move.WITHDRAW):
            window_id = traceparent = None
    return watch.model_copy(update={"gate": gate, "window_id": window_id, "traceparent": traceparent}), tuple(said)


def _because(value: float, policy: Policy) -> str:
    verdict = policy.verdict(value)
    if verdict is Verdict.CLEAN:
        return f"{value:g} gCO2/kWh is below {policy.open_below_g_per_kwh:g}"
    if verdict is Verdict.DIRTY:
        return f"{value:g} gCO2/kWh is above {policy.close_above_g_per_kwh:g}"
    return f"{value:g} gCO2/kWh is between {policy.open_below_g_per_kwh:g} and {policy.close_above_g_per_kwh:g}"


def _stale_at(watch: Watch, policy: Policy) -> datetime:
    return (watch.last_point_time or watch.watched_since) + policy.stale_after
