"""What a trainer does next when it trains on while what it said is on its way. Pure, as :mod:`session`, around which
it stands: where nothing is on its way, every word means what it means there, but that work is told and not waited for.

After telling, a session trains from the base that it has, and what it trains is work of the next round. Beside that,
one thing after another: the contribution is delivered until it is known what became of it, then the next base is
fetched. When that lies ready the next step waits for the engine to go over to it, ``local ← new + (local − said)``. So
whether the contribution counts is always known before a base is applied: an open one (``follow`` in
:mod:`windfall.lowcomm.overlap`) does not arise, and the price is that a site with a cut link trains from its old base.

- It counts: the next base, or for a late one a base after that, has it. Either way the local model gives it up, as it
  would without overlap.
- It came too late to count at all: it is part of the work again, and is told from the next base.
- It did not pass: what was trained is lost, with what stands on it, and the next round begins afresh.

Where a round synchronises one fragment of the model, a site that does not overlap goes the same way, but that it takes
no step while its contribution is on its way: it cannot load a base, which would undo what the other fragments have
learnt and not told.

Who drains tells no more than once: it waits for what is on its way, and for a round to which to give the rest.
"""

from dataclasses import replace
from datetime import datetime

from windfall.site_trainer import session as sessions
from windfall.site_trainer.session import Action, Opening, Session, Told, Work, draining, entered


def next_action(session: Session, now: datetime) -> Action:
    """The one thing to do in this state, where the engine is."""
    told = session.told
    if told is None or session.left:
        action = sessions.next_action(session, now)
        return Action.TELL if action is Action.PUSH and session.overlap and session.pushing is None else action
    stopping = draining(session, now)
    if stopping and (not _owes(session) or (told.counts is not None and _gives_up(session, now))):
        return Action.LEAVE
    if session.attempt is None:
        return Action.JOIN
    if session.loaded != session.base_digest:
        # What was trained here is void: a base is loaded anew as soon as what is on its way has arrived.
        return Action.WAIT
    if told.counts is not None and session.then is not None and session.fetched == session.then.base_digest:
        return Action.REBASE
    return Action.WAIT if stopping or session.waits else Action.STEP


def beside(session: Session) -> Action | None:
    """What to do beside training."""
    told, then = session.told, session.then
    if told is None or session.attempt is None or session.left:
        return None
    if told.counts is None:
        return Action.PUSH
    return Action.PULL if then is not None and session.fetched != then.base_digest else None


def next_instant(session: Session, now: datetime) -> datetime | None:
    """When ``next_action`` changes by itself; none while only words can change it."""
    until = session.stop_at
    if session.told is not None and draining(session, now):
        until = _patient_until(session) if session.told.counts is not None else None
    # What has passed changes nothing any more.
    return until if until is not None and until > now else None


def allowed(session: Session, overlap: bool, fragments: int = 1) -> Session:
    """Whether the coordinator asks for it, and the engine can. Where rounds synchronise a fragment each, what the
    others have learnt goes on from base to base, whether or not the site trains meanwhile."""
    return replace(session, overlap=overlap or fragments > 1, waits=fragments > 1 and not overlap)


def told(session: Session, attempt: int) -> Session:
    """The work sets out under this membership, and training goes on."""
    way = Told(session.round or 0, attempt, session.work)
    return replace(session, told=way, work=Work(), reopened=False)


def joined(session: Session, attempt: int) -> Session:
    """The coordinator has admitted us; see ``session.joined``."""
    return replace(sessions.joined(session, attempt), fetched="")


def opened(session: Session, opening: Opening) -> Session:
    """A round runs. While something is on its way, the round waits until that has arrived."""
    told = session.told
    if told is None:
        return sessions.opened(session, opening)
    if session.heard is not None and opening.number < session.heard:
        return session
    session = replace(session, heard=opening.number)
    again = (opening.number, opening.base_digest) == (told.number, session.base_digest)
    if not again or told.attempt != session.attempt:
        return _void(replace(session, then=opening))
    if told.counts is False:
        # It will not count from this base, and there is no newer one.
        return entered(_lost(session), opening)
    return replace(session, reopened=told.counts is None)


def worked(session: Session, digest: str, work: Work) -> Session:
    """A step is done; see ``session.worked``."""
    if session.told is None:
        if session.overlap and session.pushed:
            # What became of the last contribution made the step void while it was taken.
            return replace(session, stepping=False)
        return sessions.worked(session, digest, work)
    return replace(session, stepping=False, work=work if digest == session.loaded else session.work)


def disowned(session: Session) -> Session:
    """What was trained stands on rows that are another site's now; see ``session.disowned``."""
    if session.told is None:
        return sessions.disowned(session)
    lost = session.work.steps > 0
    return _void(replace(session, loaded="", work=Work(), delivered=session.delivered and not lost))


def pushed(session: Session, number: int, attempt: int) -> Session:
    """The contribution is accepted under this membership; see ``session.pushed``."""
    return _counts(session, number, attempt) if session.told is not None else sessions.pushed(session, number)


def arrived(session: Session, number: int, attempt: int) -> Session:
    """What was sent under this earlier membership was accepted; see ``session.arrived``."""
    return _counts(session, number, attempt) if session.told is not None else sessions.arrived(session, number)


def refused(session: Session, number: int, *, late: bool) -> Session:
    """The contribution does not count: it came too late and may be told again, or did not pass."""
    told = session.told
    if told is None:
        return sessions.refused(session, number)
    if late and not session.reopened:
        return _void(replace(session, told=replace(told, counts=False)))
    return sessions.refused(replace(session, told=None, fetched="", pushing=None), number)


def refused_entry(session: Session, reason: str) -> Session:
    """The coordinator does not admit us; see ``session.refused_entry``."""
    session = replace(session, delivered=delivered(session), told=None)
    return sessions.refused_entry(session, reason)


def fetched(session: Session, digest: str) -> Session:
    """This base lies ready."""
    return replace(session, fetched=digest)


def base_gone(session: Session, digest: str) -> Session:
    """The coordinator has moved on from this base: wait for its next word."""
    if session.told is None:
        return sessions.base_gone(session, digest)
    gone = session.then is not None and session.then.base_digest == digest
    return replace(session, then=None) if gone else session


def rebased(session: Session, opening: Opening, work: Work) -> Session:
    """The engine stands on this round's base, with what it had trained since telling."""
    newer = None if session.then == opening else session.then
    session = replace(session, told=None, work=Work(), fetched="", pushing=None, then=None)
    session = replace(entered(session, opening), loaded=opening.base_digest, work=work)
    if newer is not None:
        return replace(session, then=newer) if work.steps else entered(session, newer)
    return session


def stop(session: Session, reason: str, now: datetime) -> Session:
    """Drain now."""
    return replace(sessions.stop(session, reason), stopped_at=session.stopped_at or now)


def dismissed(session: Session) -> Session:
    """The federation is over for us: it wants nothing more."""
    return replace(session, dismissed=True)


def delivered(session: Session) -> bool:
    """Whether no work is lost if we leave now."""
    return session.delivered and not _owes(session)


def way(session: Session) -> tuple[int, Work]:
    """Round and work that the coordinator knows us by: until a base is applied, those of what was told."""
    told = session.told
    return (session.round or 0, session.work) if told is None else (told.number, told.work)


def _counts(session: Session, number: int, attempt: int) -> Session:
    told, then = session.told, session.then
    assert told is not None
    if then is not None and then.number == number and attempt == session.attempt:
        then = None
    return _void(replace(session, told=replace(told, attempt=attempt, counts=True), then=then))


def _owes(session: Session) -> bool:
    told = session.told
    return told is not None and (told.counts is not True or (session.work.steps > 0 and not session.dismissed))


def _gives_up(session: Session, now: datetime) -> bool:
    until = _patient_until(session)
    return until is not None and now >= until


def _patient_until(session: Session) -> datetime | None:
    """How long who drains waits for a round to which to give what is left: as long as a step and a push may take."""
    told_to = None if session.stopped_at is None else session.stopped_at + session.lead
    return min((at for at in (told_to, session.closes_at) if at is not None), default=None)


def _void(session: Session) -> Session:
    """Enter the round that waits at once, if what was trained since telling was disowned and nothing is on its way."""
    told, then = session.told, session.then
    if session.loaded or told is None or told.counts is None or then is None:
        return session
    return entered(_given_up(session), then)


def _given_up(session: Session) -> Session:
    told = session.told
    counts = told is not None and told.counts is True
    return replace(session, told=None, work=Work(), fetched="", delivered=session.delivered and counts)


def _lost(session: Session) -> Session:
    return replace(session, told=None, work=Work(), fetched="", delivered=False)
