"""What a trainer does next. Pure: the state is what it knows, inputs are what it is told, and the action follows.

Level-triggered: whatever order the words arrive in, and however often, :func:`next_action` looks at the state alone. A
word about an earlier round, another base, another window or an older lease changes nothing.

Work is counted once. A contribution that has set out stays on its way until the coordinator says what became of it:
over cuts, over the end of the membership that it was sent under, and over the opening of the next round. Work that has
not set out when the next round opens is late, not lost: it is pushed first, and the round is begun then.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class Action(StrEnum):
    """What to do now."""

    WARM = "warm"
    JOIN = "join"
    PULL = "pull"
    STEP = "step"
    PUSH = "push"
    TELL = "tell"
    REBASE = "rebase"
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
class Opening:
    """A round as the coordinator opened it."""

    number: int
    base_digest: str
    base_bytes: int
    local_steps: int
    micro_batch: int
    tokens: int = 0
    """What the whole federation had trained when the round opened."""
    sites: int = 1
    """How many train in it, as far as was known then."""
    codec: str = ""
    """In which to say what was learnt; empty for the federation's own."""
    accumulation: int = 0
    """Passes into which a step's samples are cut at least; 0 leaves it to us."""
    precision: str = ""
    """What they multiply in; empty leaves it to us."""


@dataclass(frozen=True)
class Told:
    """A contribution that the site does not wait for: it trains on. See ``overlapping``."""

    number: int
    """Its round."""
    attempt: int
    """Membership under which it set out, or counts."""
    work: Work
    counts: bool | None = None
    """None while it is on its way. False when it came too late, so that it is to be told again from a newer base."""


@dataclass(frozen=True)
class Session:
    """One trainer under one lease."""

    permitted: bool = True
    """The window is open: before it is, power is not surplus, so nothing is joined and nothing trained."""
    warm: bool = False
    """Whatever can be loaded before the window opens is loaded."""
    attempt: int | None = None
    """Membership that the coordinator gave; none before it did, and when it says that it ended."""
    heard: int | None = None
    """Newest round opened under this membership: rounds go forward as long as it lasts."""
    round: int | None = None
    """Round that the coordinator last opened for us."""
    base_digest: str = ""
    base_bytes: int = 0
    local_steps: int = 0
    micro_batch: int = 0
    tokens: int = 0
    """What the whole federation had trained when the round opened."""
    sites: int = 1
    """How many train in it, as far as was known then."""
    codec: str = ""
    """In which this round's contribution is said; empty for the federation's own."""
    accumulation: int = 0
    """Passes into which a step's samples are cut at least; 0 leaves it to us."""
    precision: str = ""
    """What they multiply in; empty leaves it to us."""
    stepping: bool = False
    """A step is being taken."""
    then: Opening | None = None
    """The round to begin once what was trained for an earlier one has been pushed."""
    loaded: str = ""
    """Digest of the base that the engine started this round from; empty when it must be pulled."""
    work: Work = Work()
    pushed: bool = False
    """This round's contribution is accepted, or can no longer count."""
    pushing: int | None = None
    """Round whose contribution is on its way: whether it counts is not known, even when the next round opens first."""
    spoiled: bool = False
    """What we brought to this round did not pass."""
    reopened: bool = False
    """This round was opened once more since our contribution set out: if that does not pass, begin afresh."""
    over: int = -1
    """Newest round that is said to be over; what is said of rounds before ours is forgotten."""
    stopping: str = ""
    """Why the site drains; empty while it does not."""
    closes_at: datetime | None = None
    """When the window ends, as far as we were told."""
    closing_said_at: datetime | None = None
    """When that was said."""
    lead: timedelta = timedelta(0)
    """Business time from here to an accepted contribution: a step that may be running, and the push."""
    delivered: bool = True
    """False once work was lost: refused as too late."""
    left: bool = False
    overlap: bool = False
    """A contribution is told: when it counts, what was not told of it goes on from the next base."""
    waits: bool = False
    """No step is taken while it is on its way."""
    told: Told | None = None
    """What is on its way, or waits for the base that counts it; what is trained meanwhile is ``work``."""
    fetched: str = ""
    """Digest of the base that lies ready beside training."""
    stopped_at: datetime | None = None
    """When we were told to drain."""
    dismissed: bool = False
    """The federation is over for us: what was trained since the last contribution is wanted by nobody."""

    @property
    def finish(self) -> bool:
        """The round is over: push what is there."""
        return self.round is not None and self.over >= self.round

    @property
    def stop_at(self) -> datetime | None:
        """When to begin to drain, so that the contribution arrives before the window closes."""
        return None if self.closes_at is None else self.closes_at - self.lead


def next_action(session: Session, now: datetime) -> Action:
    """The one thing to do in this state."""
    if session.left:
        return Action.END
    stopping = draining(session, now)
    if not session.permitted:
        return Action.LEAVE if stopping else Action.WAIT if session.warm else Action.WARM
    if session.attempt is None:
        # Work that waits to be pushed needs a membership even when we leave.
        return Action.LEAVE if stopping and not _owes(session) else Action.JOIN
    if session.pushing is not None:
        return Action.PUSH
    if session.round is None or session.pushed:
        return Action.LEAVE if stopping else Action.WAIT
    if stopping:
        return Action.PUSH if session.work.steps else Action.LEAVE
    if session.loaded != session.base_digest:
        return Action.PULL
    enough = (
        session.finish
        or session.then is not None
        or (session.local_steps and session.work.steps >= session.local_steps)
    )
    # A round that is finished before we took a step still gets one: the coordinator waits for us.
    return Action.PUSH if enough and session.work.steps else Action.STEP


def draining(session: Session, now: datetime) -> bool:
    """Whether the site is on its way out: told to stop, or its window is about to end."""
    return bool(session.stopping) or (session.stop_at is not None and now >= session.stop_at)


def permitted(session: Session) -> Session:
    """The window is open. That is never taken back: it closes."""
    return replace(session, permitted=True)


def withdrawn(session: Session, reason: str) -> Session:
    """The window that we were started for does not come. Of an open one this is a word of the past."""
    return session if session.permitted else stop(session, reason)


def warmed(session: Session) -> Session:
    """What can be loaded ahead is loaded."""
    return replace(session, warm=True)


def joined(session: Session, attempt: int) -> Session:
    """The coordinator has admitted us; it will say which round runs.

    Work that has not been pushed goes on under the new membership. After a push, the new membership owes a contribution
    of its own, from a base that is loaded anew.
    """
    session = replace(session, attempt=attempt, heard=None, then=None)
    if not session.pushed:
        return session
    return replace(_afresh(session), round=None, base_digest="", over=-1)


def refused_entry(session: Session, reason: str) -> Session:
    """The coordinator does not admit us: there is nothing to train for, and work that waited is lost."""
    delivered = session.delivered and not _owes(session)
    return replace(stop(session, reason), attempt=None, delivered=delivered, work=Work(), pushing=None)


def membership_ended(session: Session) -> Session:
    """The coordinator no longer counts us in: join anew and keep the work."""
    return replace(session, attempt=None)


def opened(session: Session, opening: Opening) -> Session:
    """A round runs. The same round again (the stream was cut, or it is boxed anew) goes on; another one starts afresh,
    after work that has not set out."""
    number = opening.number
    if session.heard is not None and number < session.heard:
        return session
    session = replace(session, heard=number)
    if number == session.round and opening.base_digest == session.base_digest:
        session = replace(
            session,
            local_steps=opening.local_steps,
            micro_batch=opening.micro_batch,
            accumulation=opening.accumulation,
            precision=opening.precision,
            codec=opening.codec,
            sites=opening.sites,
            then=None,
        )
        if session.spoiled or session.pushing == number:
            # Its end is still to come, whatever was said of the opening before.
            session = replace(session, reopened=True, over=-1)
        return _again(session)
    begun = (session.work.steps or session.stepping) and not session.pushed and session.pushing != session.round
    if begun and session.round is not None and number > session.round:
        return replace(session, then=opening)
    return entered(session, opening)


def pulled(session: Session, digest: str, work: Work = Work()) -> Session:
    """The engine holds this base, and what a checkpoint had already trained from it."""
    return replace(session, loaded=digest, work=work) if digest == session.base_digest else session


def base_gone(session: Session, digest: str) -> Session:
    """The coordinator has moved on from this base: wait for its next word."""
    return replace(session, pushed=True) if digest == session.base_digest else session


def worked(session: Session, digest: str, work: Work) -> Session:
    """A step is done: so much has been trained from this base by now."""
    session = replace(session, stepping=False)
    if digest == session.loaded:
        session = replace(session, work=work)
    # The step made no update, and there was none before: nothing is late.
    return session if session.work.steps else _next(session)


def stepping(session: Session) -> Session:
    """A step begins."""
    return replace(session, stepping=True)


def disowned(session: Session) -> Session:
    """What was trained stands on rows that are another site's now, and cannot count: begin the round anew."""
    return _next(replace(_afresh(session), delivered=session.delivered and not session.work.steps))


def sated(session: Session) -> Session:
    """No more rows are to be had before those that were trained are contributed, or begun anew when no step that saw
    them made an update."""
    return replace(session, local_steps=session.work.steps) if session.work.steps else disowned(session)


def finish(session: Session, number: int) -> Session:
    """The round is over, said on the stream or on the bus: the first word counts, the second is a duplicate.

    On the bus it may overtake the word that opens the round.
    """
    earlier = session.round is not None and number < session.round
    return session if earlier else replace(session, over=max(session.over, number))


def pushing(session: Session) -> Session:
    """A contribution sets out."""
    return replace(session, pushing=session.round)


def pushed(session: Session, number: int) -> Session:
    """The contribution is accepted. The coordinator may have opened the next round before its receipt arrived."""
    if number == session.pushing:
        session = replace(session, pushing=None)
    return _next(_sent(session)) if number == session.round else session


def arrived(session: Session, number: int) -> Session:
    """It turns out that what an earlier membership sent was accepted: this one owes a contribution of its own."""
    late = session.then is not None
    session = pushed(session, number)
    if number != session.round or late:
        return session
    session = _afresh(session)
    # A round that was not opened under this membership does not wait for it.
    return session if session.heard == number else replace(session, round=None, base_digest="")


def refused(session: Session, number: int) -> Session:
    """The contribution was refused for good: its work is lost, and we say so when we leave.

    When the round is opened once more, before or after we hear this, it is trained for afresh.
    """
    session = replace(session, delivered=False, pushing=None if number == session.pushing else session.pushing)
    if number != session.round:
        return session
    if session.then is not None:
        return _next(_sent(session))
    return _again(replace(_sent(session), spoiled=True, reopened=session.reopened))


def unsound(session: Session) -> Session:
    """What was trained is not finite and cannot be sent: its work is lost. A new membership begins from a base that is
    loaded anew, and nobody waits for the old one."""
    return replace(_afresh(session), attempt=None, round=None, base_digest="", over=-1, pushing=None, delivered=False)


def closing(session: Session, closes_at: datetime, said_at: datetime) -> Session:
    """The window ends soon: train until ``stop_at``. What was said last counts, whenever it arrives: a forecast may
    move the end either way. Of two words of one instant the earlier end does."""
    if session.closes_at is not None and session.closing_said_at is not None:
        if said_at < session.closing_said_at:
            return session
        if said_at == session.closing_said_at:
            closes_at = min(session.closes_at, closes_at)
    return replace(session, closes_at=closes_at, closing_said_at=said_at)


def paced(session: Session, lead: timedelta) -> Session:
    """So long before the window's end we begin to drain, as steps and pushes were measured."""
    return replace(session, lead=lead)


def stop(session: Session, reason: str) -> Session:
    """Drain now."""
    return replace(session, stopping=session.stopping or reason)


def gone(session: Session) -> Session:
    """We have left."""
    return replace(session, left=True)


def entered(session: Session, opening: Opening) -> Session:
    """A round is entered afresh, from a base that is to be pulled."""
    lost = session.work.steps > 0 and not session.pushed and session.pushing != session.round
    return replace(
        _afresh(session),
        round=opening.number,
        base_digest=opening.base_digest,
        base_bytes=opening.base_bytes,
        local_steps=opening.local_steps,
        micro_batch=opening.micro_batch,
        accumulation=opening.accumulation,
        precision=opening.precision,
        tokens=opening.tokens,
        sites=opening.sites,
        codec=opening.codec,
        then=None,
        over=session.over if session.over >= opening.number else -1,
        delivered=session.delivered and not lost,
    )


def _next(session: Session) -> Session:
    """Begin the round that waited."""
    return session if session.then is None else entered(session, session.then)


def _sent(session: Session) -> Session:
    return replace(session, pushed=True, reopened=False, work=Work())


def _afresh(session: Session) -> Session:
    """Nothing is loaded, trained or pushed."""
    return replace(session, loaded="", work=Work(), pushed=False, spoiled=False, reopened=False)


def _again(session: Session) -> Session:
    return _afresh(session) if session.spoiled and session.reopened else session


def _owes(session: Session) -> bool:
    return session.work.steps > 0 or session.pushing is not None
