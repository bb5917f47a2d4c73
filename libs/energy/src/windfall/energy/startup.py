"""How long a site takes to have a node and to begin to train, and to be drained when its window ends.

Learnt from what is said anyway, so that a window is expected early enough for its node and ends early enough for its
drain. Pure: sentences and the instants at which they were said or heard go in. A late word (the watcher was away, a
window is caught up with) is told by that instant and not by the sentence's own, which may be long past.

An estimate is the 90th percentile of the newest twenty, by nearest rank (Hyndman and Fan 1996, definition 1): one slow
start in ten does not move it, and it supposes no distribution.
"""

import math
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import (
    NodeReady,
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
)
from windfall.contracts.message import Instant, Message

KEPT: Final = 20
"""Measurements of each kind that count, the newest."""
FORGOTTEN_AFTER: Final = timedelta(days=1)
"""Without a window, while there was power for one."""
SHARE: Final = 0.9
"""Of the measurements that an estimate covers."""


class Startup(BaseModel):
    """What was measured of a site, and how far its present window has come. Durations in seconds of business time."""

    model_config = ConfigDict(frozen=True)

    window_id: UUID | None = None
    """The window that is being measured; none before the first."""
    asked_at: Instant | None = None
    """When it was first said to be expected, or to be open."""
    opened_at: Instant | None = None
    ready_at: Instant | None = None
    began_at: Instant | None = None
    """When the first step was done."""
    warned_at: Instant | None = None
    closes_at: Instant | None = None
    """As the warning had it."""
    closed_at: Instant | None = None
    drained: bool = False
    forgotten_at: Instant | None = None
    """When measures were last forgotten since it was said to be expected, or to be open; none: not since."""

    ready_s: tuple[float, ...] = ()
    """From the word to a node that is ready, oldest first."""
    begin_s: tuple[float, ...] = ()
    """From a ready node under an open window to the first step: joining, and what could not be loaded ahead."""
    drain_s: tuple[float, ...] = ()
    """From the end of the window to a drained site."""


def learn(startup: Startup, message: Message, at: datetime) -> Startup:
    """What is known after one more sentence about the site, said or heard at ``at``. Each counts once for a window."""
    if isinstance(message, WindowExpected | WindowOpened) and message.window_id != startup.window_id:
        startup = Startup(
            window_id=message.window_id,
            asked_at=at,
            ready_s=startup.ready_s,
            begin_s=startup.begin_s,
            drain_s=startup.drain_s,
        )
    if startup.window_id is None or getattr(message, "window_id", None) != startup.window_id:
        return startup
    match message:
        case WindowOpened() if startup.opened_at is None:
            return startup.model_copy(update={"opened_at": at})
        case NodeReady() if startup.ready_at is None and startup.asked_at is not None:
            return startup.model_copy(update={"ready_at": at, "ready_s": _with(startup.ready_s, at - startup.asked_at)})
        case TrainingStarted() if startup.began_at is None:
            return _begun(startup, at)
        case WindowClosing() if startup.warned_at is None:
            return startup.model_copy(update={"warned_at": at, "closes_at": message.closes_at})
        case WindowClosed() if startup.closed_at is None:
            return startup.model_copy(update={"closed_at": at})
        case SiteDrained() if not startup.drained:
            return _drained(startup, at)
    return startup


def unused(startup: Startup, at: datetime) -> Startup:
    """What is still believed when clean power passes by because its window would not pay back a start.

    Where nothing is started nothing is measured, so one start that took hours would shut a site for ever. A day after
    its last window, and each day after that, it forgets the slowest measure of each kind: until a window is tried.
    """
    since = startup.forgotten_at or startup.asked_at
    knows = startup.ready_s or startup.begin_s or startup.drain_s
    if not knows or since is None or abs(at - since) < FORGOTTEN_AFTER:
        return startup
    return startup.model_copy(
        update={
            "forgotten_at": at,
            "ready_s": _without_slowest(startup.ready_s),
            "begin_s": _without_slowest(startup.begin_s),
            "drain_s": _without_slowest(startup.drain_s),
        }
    )


def lead(startup: Startup, floor: timedelta) -> timedelta:
    """How long before a window opens its node must be asked for, to be ready when it does; the floor at least."""
    return max(floor, _within(startup.ready_s))


def start_up(startup: Startup, floor: timedelta) -> timedelta:
    """From the word to the first step, the wait for the window left out: what a window must pay back."""
    return max(floor, _within(startup.ready_s) + _within(startup.begin_s))


def drain_time(startup: Startup, floor: timedelta) -> timedelta:
    """How long before a window ends its site must know of it."""
    return max(floor, _within(startup.drain_s))


def _begun(startup: Startup, at: datetime) -> Startup:
    begun = startup.model_copy(update={"began_at": at})
    if startup.ready_at is None or startup.opened_at is None:
        # Begun by a node that was not asked for in our sight: nothing can be measured by it.
        return begun
    since = max(startup.ready_at, startup.opened_at)
    return begun.model_copy(update={"begin_s": _with(startup.begin_s, at - since)})


def _drained(startup: Startup, at: datetime) -> Startup:
    """A site that was warned in time trains on until its own measure says that it must drain, so it is drained just
    before the end however early the warning was: that says nothing of the drain. What says something is an end without
    a warning, and a warning that came too late."""
    done = startup.model_copy(update={"drained": True})
    if startup.began_at is None:
        return done
    if startup.warned_at is None:
        since = startup.closed_at
    else:
        in_time = startup.closes_at is not None and at <= startup.closes_at
        since = None if in_time else startup.warned_at
    return done if since is None else done.model_copy(update={"drain_s": _with(startup.drain_s, at - since)})


def _with(measured_s: tuple[float, ...], duration: timedelta) -> tuple[float, ...]:
    # A clock that was set back measures nothing.
    return (*measured_s, duration.total_seconds())[-KEPT:] if duration >= timedelta(0) else measured_s


def _without_slowest(measured_s: tuple[float, ...]) -> tuple[float, ...]:
    slowest = measured_s.index(max(measured_s)) if measured_s else 0
    return (*measured_s[:slowest], *measured_s[slowest + 1 :])


def _within(measured_s: tuple[float, ...]) -> timedelta:
    if not measured_s:
        return timedelta(0)
    rank = math.ceil(SHARE * len(measured_s))
    return timedelta(seconds=sorted(measured_s)[rank - 1])
