"""What a site that runs a ClientApp does next. Pure: the state is what it knows, and the action follows from it.

Messages run one after another. When the window is about to end, or the site is told to stop, nothing more is begun:
what waits is declined with an error at once; what runs is asked to end (``windfall.flower_adapter.window``) and has a
moment to reply, after which an error is replied in its place. So nobody waits for a site that is going dark.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

_REMEMBERED = 64
"""An announcement may cross the reply on its way; one that is older than so many messages does not."""


class Action(StrEnum):
    """What to do now."""

    JOIN = "join"
    RUN = "run"
    REPLY = "reply"
    DECLINE = "decline"
    ABANDON = "abandon"
    WAIT = "wait"
    LEAVE = "leave"
    END = "end"


@dataclass(frozen=True)
class Session:
    """One site under one lease."""

    permitted: bool = True
    """The window is open: before it is, power is not surplus, so nothing is joined and nothing run."""
    attempt: int | None = None
    waiting: tuple[str, ...] = ()
    """Messages that were announced and not begun, oldest first."""
    running: str = ""
    """Message that the ClientApp works on."""
    owed: str = ""
    """Message whose reply is ready and has not arrived."""
    done: tuple[str, ...] = ()
    """The last messages that were answered: announced once more, they are not run again."""
    stopping: str = ""
    """Why the site drains; empty while it does not."""
    stopped_at: datetime | None = None
    """When it was told so."""
    closes_at: datetime | None = None
    """When the window ends, as far as we were told."""
    closing_said_at: datetime | None = None
    lead: timedelta = timedelta(0)
    """Business time before that from which on we drain."""
    patience: timedelta = timedelta(0)
    """Business time that a running message has to reply once we drain."""
    delivered: bool = True
    """False once a message was declined or abandoned."""
    left: bool = False

    def drains_from(self) -> datetime | None:
        """When draining began or will begin; none while nothing is known of an end."""
        by_window = None if self.closes_at is None else self.closes_at - self.lead
        known = [at for at in (self.stopped_at, by_window) if at is not None]
        return min(known, default=None)


def next_action(session: Session, now: datetime) -> Action:
    """The one thing to do in this state."""
    if session.left:
        return Action.END
    drains = draining(session, now)
    if not session.permitted:
        return Action.LEAVE if drains else Action.WAIT
    if session.attempt is None:
        return Action.LEAVE if drains and not session.owed else Action.JOIN
    if session.owed:
        return Action.REPLY
    if drains and session.waiting:
        return Action.DECLINE
    if session.running:
        return Action.ABANDON if drains and now >= gives_up_at(session) else Action.WAIT
    if drains:
        return Action.LEAVE
    return Action.RUN if session.waiting else Action.WAIT


def draining(session: Session, now: datetime) -> bool:
    """Whether the site is on its way out."""
    begins = session.drains_from()
    return bool(session.stopping) or (begins is not None and now >= begins)


def gives_up_at(session: Session) -> datetime:
    """When a running message is not waited for any more; only of a session that knows of an end."""
    begins = session.drains_from()
    assert begins is not None
    return begins + session.patience


def wakes_at(session: Session, now: datetime) -> datetime | None:
    """When to look again although nothing was heard; none when only a word can change anything."""
    begins = session.drains_from()
    if begins is None:
        return None
    return begins if now < begins else gives_up_at(session) if session.running else None


def permitted(session: Session) -> Session:
    """The window is open. That is never taken back: it closes."""
    return replace(session, permitted=True)


def joined(session: Session, attempt: int) -> Session:
    """The coordinator has admitted us, and will announce what waits."""
    return replace(session, attempt=attempt, waiting=())


def membership_ended(session: Session) -> Session:
    """The coordinator no longer counts us in: join anew. What runs may still be waited for under the next one."""
    return replace(session, attempt=None, waiting=())


def announced(session: Session, message: str) -> Session:
    """A message waits; one that is known changes nothing."""
    known = message in (session.running, session.owed) or message in session.waiting or message in session.done
    return session if known else replace(session, waiting=(*session.waiting, message))


def began(session: Session) -> Session:
    """The oldest message runs."""
    return replace(session, running=session.waiting[0], waiting=session.waiting[1:])


def ran(session: Session, message: str) -> Session:
    """The ClientApp has replied. A reply that was given up is of no use."""
    return replace(session, running="", owed=message) if message == session.running else session


def replied(session: Session, message: str) -> Session:
    """The coordinator has the reply, or will never take it."""
    owed = "" if message == session.owed else session.owed
    return replace(session, owed=owed, done=_noted(session, message))


def declined(session: Session) -> Session:
    """The oldest message that waits was answered with an error."""
    message, *rest = session.waiting
    return replace(session, waiting=tuple(rest), done=_noted(session, message), delivered=False)


def abandoned(session: Session) -> Session:
    """What runs was answered with an error: its own reply would come too late."""
    return replace(session, running="", done=_noted(session, session.running), delivered=False)


def closing(session: Session, closes_at: datetime, said_at: datetime) -> Session:
    """The window ends soon. What was said last counts, whenever it arrives."""
    if session.closing_said_at is not None and said_at < session.closing_said_at:
        return session
    return replace(session, closes_at=closes_at, closing_said_at=said_at)


def stop(session: Session, reason: str, now: datetime) -> Session:
    """Drain now."""
    return session if session.stopping else replace(session, stopping=reason, stopped_at=now)


def again(session: Session, message: str) -> Session:
    """What we began could not be had: it waits again, before all others."""
    return replace(session, running="", waiting=(message, *session.waiting)) if message == session.running else session


def gone(session: Session) -> Session:
    """We have left."""
    undone = session.running or session.waiting or session.owed
    return replace(session, left=True, delivered=session.delivered and not undone)


def _noted(session: Session, message: str) -> tuple[str, ...]:
    return (*session.done, message)[-_REMEMBERED:]
