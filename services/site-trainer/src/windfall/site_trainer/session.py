"""What a trainer does next. Pure: the state is what it knows, inputs are what it is told, and the action follows.

Level-triggered: whatever order the words arrive in, and however often, :func:`next_action` looks at the state alone. A
word about another round, another window or an older lease changes nothing.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Action(StrEnum):
    """What to do now."""

    JOIN = "join"
    PULL = "pull"
    STEP = "step"
    PUSH = "push"
    WAIT = "wait"
    LEAVE = "leave"
    END = "end"


@dataclass(frozen=True)
class Work:
    """What has been trained in the current round and not been pushed."""

    steps: int = 0
    tokens: int = 0
    loss_nats: float = 0.0
    """Token-weighted mean over the steps."""


@dataclass(frozen=True)
class Session:
    """One trainer under one lease."""

    attempt: int | None = None
    """Membership that the coordinator gave; none before it did, and when it says that it ended."""
    round: int | None = None
    """Round that the coordinator last opened for us."""
    base_digest: str = ""
    base_bytes: int = 0
    local_steps: int = 0
    micro_batch: int = 0
    loaded: str = ""
    """Digest of the base that the engine started this round from; empty when it must be pulled."""
    work: Work = Work()
    pushed: bool = False
    """This round's contribution is accepted, or can no longer count."""
    pushing: bool = False
    """A contribution is on its way: whether it counts is not known yet, even when the next round opens first."""
    finish: bool = False
    """The round is over: push what is there."""
    stopping: str = ""
    """Why the site drains; empty while it does not."""
    stop_at: datetime | None = None
    """When to begin to drain, so that the contribution arrives before the window closes."""
    delivered: bool = True
    """False once work was lost: refused as too late."""
    left: bool = False


def next_action(session: Session, now: datetime) -> Action:
    """The one thing to do in this state."""
    if session.left:
        return Action.END
    stopping = draining(session, now)
    if session.attempt is None:
        # Work that waits to be pushed needs a membership even when we leave.
        return Action.LEAVE if stopping and not session.work.steps else Action.JOIN
    if session.round is None or session.pushed:
        return Action.LEAVE if stopping else Action.WAIT
    if stopping:
        return Action.PUSH if session.work.steps else Action.LEAVE
    if session.loaded != session.base_digest:
        return Action.PULL
    enough = session.finish or (session.local_steps and session.work.steps >= session.local_steps)
    # A round that is finished before we took a step still gets one: the coordinator waits for us.
    return Action.PUSH if enough and session.work.steps else Action.STEP


def draining(session: Session, now: datetime) -> bool:
    """Whether the site is on its way out: told to stop, or its window is about to end."""
    return bool(session.stopping) or (session.stop_at is not None and now >= session.stop_at)


def joined(session: Session, attempt: int) -> Session:
    """The coordinator has admitted us; it will say which round runs."""
    return replace(session, attempt=attempt)


def refused_entry(session: Session, reason: str) -> Session:
    """The coordinator does not admit us: there is nothing to train for, and work that waited is lost."""
    return replace(stop(session, reason), delivered=session.delivered and not session.work.steps, work=Work())


def membership_ended(session: Session) -> Session:
    """The coordinator no longer counts us in: join anew and keep the work."""
    return replace(session, attempt=None)


def opened(
    session: Session, number: int, base_digest: str, base_bytes: int, local_steps: int, micro_batch: int
) -> Session:
    """A round runs. The same round again (the stream was cut) goes on; another one starts afresh."""
    if number == session.round and base_digest == session.base_digest:
        return replace(session, local_steps=local_steps, micro_batch=micro_batch)
    lost = session.work.steps > 0 and not session.pushed and not session.pushing
    return replace(
        session,
        round=number,
        base_digest=base_digest,
        base_bytes=base_bytes,
        local_steps=local_steps,
        micro_batch=micro_batch,
        loaded="",
        work=Work(),
        pushed=False,
        finish=False,
        delivered=session.delivered and not lost,
    )


def pulled(session: Session, digest: str, work: Work = Work()) -> Session:
    """The engine holds this base, and what a checkpoint had already trained from it."""
    return replace(session, loaded=digest, work=work)


def base_gone(session: Session, digest: str) -> Session:
    """The coordinator has moved on from this base: wait for its next word."""
    return replace(session, pushed=True) if digest == session.base_digest else session


def worked(session: Session, work: Work) -> Session:
    """A step is done: so much has been trained from the base by now."""
    return replace(session, work=work)


def finish(session: Session, number: int) -> Session:
    """The round is over, said on the stream or on the bus: the first word counts, the second is a duplicate."""
    return replace(session, finish=True) if number == session.round else session


def pushing(session: Session) -> Session:
    """A contribution sets out."""
    return replace(session, pushing=True)


def interrupted(session: Session) -> Session:
    """The way to the coordinator is cut: the contribution sets out again when it can."""
    return replace(session, pushing=False)


def pushed(session: Session, number: int) -> Session:
    """The contribution is accepted. The coordinator may have opened the next round before its receipt arrived."""
    session = replace(session, pushing=False)
    return replace(session, pushed=True, work=Work()) if number == session.round else session


def refused(session: Session, number: int) -> Session:
    """The contribution was refused for good: its work is lost, and we say so when we leave."""
    session = replace(session, pushing=False, delivered=False)
    return replace(session, pushed=True, work=Work()) if number == session.round else session


def closing(session: Session, stop_at: datetime) -> Session:
    """The window ends soon: train until ``stop_at``. An earlier word is not overruled by a later one."""
    earlier = stop_at if session.stop_at is None else min(session.stop_at, stop_at)
    return replace(session, stop_at=earlier)


def stop(session: Session, reason: str) -> Session:
    """Drain now."""
    return replace(session, stopping=session.stopping or reason)


def gone(session: Session) -> Session:
    """We have left."""
    return replace(session, left=True)
