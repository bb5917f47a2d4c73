"""When a window opens and closes: a pure state machine over readings and their own timestamps.

Outside a window, a run of readings below the open threshold that has lasted the dwell opens one, unless the forecast
says that it is too short. Inside, a run above the close threshold that has lasted the grace closes it. A reading
between the thresholds ends either run and changes nothing else. Runs are judged at readings, so that the same trace
gives the same windows whoever watches and however late. Only silence is judged by the clock: it closes (``tick``).

Ids are derived from the site and the instant of opening, so whoever decides again says the same sentence.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import (
    SignalRecovered,
    SignalStale,
    SiteEvent,
    WindowClosed,
    WindowClosing,
    WindowOpened,
)
from windfall.contracts.message import Instant, Name, derived_id
from windfall.energy.forecast import expected_close
from windfall.energy.policy import Policy
from windfall.energy.signals import Reading, plausible

Events = tuple[SiteEvent, ...]


class Watch(BaseModel):
    """All that is remembered about one site between two readings."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    site: Name
    watched_since: Instant
    """From when silence counts as long as there was no reading."""
    last_point_time: Instant | None = None
    """Point time of the last reading that was believed."""
    stale: bool = False
    clean_since: Instant | None = None
    """Begin of the run below the open threshold, outside a window."""
    window_id: UUID | None = None
    """The open window; none outside one, and then everything below is unset."""
    opened_at: Instant | None = None
    dirty_since: Instant | None = None
    """Begin of the run above the close threshold."""
    expected_close_at: Instant | None = None
    """When the forecast crosses the close threshold to stay; none when it sees no end."""
    closing_said: bool = False
    traceparent: str | None = None
    """W3C trace context of the opening, so that the whole window is one trace."""


def observe(watch: Watch, reading: Reading, ahead: Sequence[Reading], policy: Policy) -> tuple[Watch, Events]:
    """One reading in, with the forecast that goes with it: the new state and whatever just happened out.

    A reading that is implausible, or not newer than the last one, changes nothing: it is no sign of life, so a signal
    that only speaks nonsense becomes stale. One that comes after too long a silence ends the silence's window first.
    """
    at = reading.point_time
    if not plausible(reading.intensity_g_per_kwh) or (watch.last_point_time and at <= watch.last_point_time):
        return watch, ()
    watch, before = lapse(watch, at, policy)
    if watch.stale:
        recovered = SignalRecovered(
            id=derived_id(_text(at), SignalRecovered.topic, watch.site), at=at, site=watch.site, point_time=at
        )
        before = (*before, recovered)
    watch = watch.model_copy(update={"last_point_time": at, "stale": False})
    judge = _outside if watch.window_id is None else _inside
    watch, after = judge(watch, reading, ahead, policy)
    return watch, (*before, *after)


def tick(watch: Watch, now: datetime, policy: Policy) -> tuple[Watch, Events]:
    """Time passed without a reading: the end that was forecast comes near, or the signal is stale by now."""
    watch, lapsed = lapse(watch, now, policy)
    watch, closing = _closing(watch, now, policy)
    return watch, (*lapsed, *closing)


def next_tick(watch: Watch, policy: Policy) -> datetime | None:
    """The instant at which ``tick`` will have something to say if no reading comes first; none when it will not."""
    due = []
    if not watch.stale:
        due.append(_stale_at(watch, policy) + datetime.resolution)
    if watch.expected_close_at is not None and not watch.closing_said:
        due.append(watch.expected_close_at - policy.closing_lead)
    return min(due, default=None)


def lapse(watch: Watch, now: datetime, policy: Policy) -> tuple[Watch, Events]:
    """Fail closed when the last reading is older than the limit: nobody knows what the power is made of.

    Said at the instant at which the limit ran out, however late that is noticed.
    """
    stale_at = _stale_at(watch, policy)
    if watch.stale or now <= stale_at:
        return watch, ()
    silent_since = watch.last_point_time or watch.watched_since
    stale = SignalStale(
        id=derived_id(_text(silent_since), SignalStale.topic, watch.site),
        at=stale_at,
        site=watch.site,
        last_point_time=watch.last_point_time,
        limit_s=policy.stale_after.total_seconds(),
    )
    watch, closed = _close(watch, stale_at, "stale")
    return watch.model_copy(update={"stale": True, "clean_since": None}), (stale, *closed)


def finish(watch: Watch, now: datetime) -> tuple[Watch, Events]:
    """The source has no more: an open window ends here."""
    return _close(watch, now, "ended")


def unmissed(steps: Sequence[tuple[Watch, Events]]) -> list[tuple[Watch, Events]]:
    """The steps of catching up, without a word about windows that came and went within them.

    Nobody can use such a window any more, so saying it would only start nodes to stop them. The last step is kept even
    when it says nothing: it holds the state.
    """
    said = [event for _, events in steps for event in events]
    ended = {event.window_id for event in said if isinstance(event, WindowClosed)}
    missed = {event.window_id for event in said if isinstance(event, WindowOpened)} & ended
    worth = [(watch, tuple(event for event in events if not _about(event, missed))) for watch, events in steps]
    return [step for step in worth if step[1] or step is worth[-1]]


def _about(event: SiteEvent, windows: set[UUID]) -> bool:
    return isinstance(event, WindowOpened | WindowClosing | WindowClosed) and event.window_id in windows


def _outside(watch: Watch, reading: Reading, ahead: Sequence[Reading], policy: Policy) -> tuple[Watch, Events]:
    at = reading.point_time
    if reading.intensity_g_per_kwh >= policy.open_below_g_per_kwh:
        return watch.model_copy(update={"clean_since": None}), ()
    clean_since = watch.clean_since or at
    expected = expected_close(ahead, policy)
    too_short = expected is not None and expected - at < policy.minimum_window
    if at - clean_since < policy.dwell or too_short:
        return watch.model_copy(update={"clean_since": clean_since}), ()
    opened = WindowOpened(
        id=derived_id(window_id := window_of(watch.site, at), WindowOpened.topic, watch.site),
        at=at,
        site=watch.site,
        window_id=window_id,
        intensity_g_per_kwh=reading.intensity_g_per_kwh,
        expected_close_at=expected,
    )
    inside = {"window_id": window_id, "opened_at": at, "clean_since": None, "expected_close_at": expected}
    watch, closing = _closing(watch.model_copy(update=inside), at, policy)
    return watch, (opened, *closing)


def _inside(watch: Watch, reading: Reading, ahead: Sequence[Reading], policy: Policy) -> tuple[Watch, Events]:
    at = reading.point_time
    dirty = reading.intensity_g_per_kwh > policy.close_above_g_per_kwh
    dirty_since = (watch.dirty_since or at) if dirty else None
    watch = watch.model_copy(update={"dirty_since": dirty_since})
    if dirty_since is not None and at - dirty_since >= policy.grace:
        return _close(watch, at, "dirty")
    watch = watch.model_copy(update={"expected_close_at": expected_close(ahead, policy, dirty_since)})
    return _closing(watch, at, policy)


def _closing(watch: Watch, now: datetime, policy: Policy) -> tuple[Watch, Events]:
    """Say once that the end is near. It is not taken back: a forecast that changes its mind cost a little, not more."""
    closes_at = watch.expected_close_at
    if watch.window_id is None or watch.closing_said or closes_at is None or closes_at - now > policy.closing_lead:
        return watch, ()
    closing = WindowClosing(
        id=derived_id(watch.window_id, WindowClosing.topic, watch.site),
        at=now,
        site=watch.site,
        window_id=watch.window_id,
        closes_at=closes_at,
    )
    return watch.model_copy(update={"closing_said": True}), (closing,)


def _close(watch: Watch, at: datetime, reason: Literal["dirty", "stale", "ended"]) -> tuple[Watch, Events]:
    if watch.window_id is None:
        return watch, ()
    closed = WindowClosed(
        id=derived_id(watch.window_id, WindowClosed.topic, watch.site),
        at=at,
        site=watch.site,
        window_id=watch.window_id,
        reason=reason,
        crossed_at=watch.dirty_since or at,
    )
    outside = Watch(
        site=watch.site,
        watched_since=watch.watched_since,
        last_point_time=watch.last_point_time,
        stale=watch.stale,
    )
    return outside, (closed,)


def window_of(site: str, opened_at: datetime) -> UUID:
    """The id of the window that opened at a site at an instant."""
    return derived_id(_text(opened_at), "window", site)


def _stale_at(watch: Watch, policy: Policy) -> datetime:
    return (watch.last_point_time or watch.watched_since) + policy.stale_after


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat()
