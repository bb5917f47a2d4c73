"""What falls due in the life of a lease, decided without touching anything.

    requested, an attempt being made ──▶ given up and made anew          ready_deadline
    requested, between attempts      ──▶ the next attempt                retry_at
    provisioning                     ──▶ killed, and made anew           ready_deadline, then end_deadline
    waiting for its window           ──▶ drained                         awaited_until
    draining                         ──▶ killed, and released            drain_deadline, then end_deadline

Behind each kill stands the last deadline: a node that nobody can see end, because the API server is slow or a machine
is lost, is not waited for. It holds a token that is over, so whoever hears from it refuses it, and it goes on being
killed.
"""

from datetime import datetime

from windfall.provisioner.holdings import Action, Decision, Holdings, Kill, Lease, LeaseEvent, LeaseState, Policy, Start
from windfall.provisioner.transitions import again, drain, known, put, reason, released, swept


def next_deadline(holdings: Holdings) -> datetime | None:
    """When ``tick`` has something to decide next."""
    return min((due for lease in holdings.live for due in _dues(lease)), default=None)


def tick(holdings: Holdings, now: datetime, policy: Policy) -> Decision:
    """Decide what has fallen due."""
    events: list[LeaseEvent] = []
    actions: list[Action] = []
    for lease in holdings.live:
        if all(due > now for due in _dues(lease)):
            continue
        decision = _due(holdings, lease, now, policy)
        holdings = decision.holdings
        events += decision.events
        actions += decision.actions
    return Decision(holdings, tuple(events), tuple(actions))


def _dues(lease: Lease) -> tuple[datetime, ...]:
    grace = None if lease.overdue else lease.drain_deadline
    each = (lease.retry_at, lease.ready_deadline, grace, lease.end_deadline, lease.awaited_until)
    return tuple(due for due in each if due is not None)


def _due(holdings: Holdings, lease: Lease, now: datetime, policy: Policy) -> Decision:
    if lease.awaited_until and lease.awaited_until <= now:
        return drain(put(holdings, lease, now, given_up=True), lease, "released", now, policy)
    if lease.end_deadline and lease.end_deadline <= now:
        return _unseen(holdings, lease, now, policy)
    if lease.retry_at and lease.retry_at <= now:
        ready_deadline = now + policy.ready_within
        attempt = {"retry_at": None, "ready_deadline": ready_deadline, "attempts": lease.attempts + 1}
        after = put(holdings, lease, now, **attempt)
        return Decision(after, actions=(Start(known(after, lease)),))
    if lease.ready_deadline and lease.ready_deadline <= now:
        return _late(holdings, lease, now, policy)
    after = put(holdings, lease, now, overdue=True, end_deadline=now + policy.end_within)
    return Decision(after, actions=(Kill(known(after, lease)),))


def _late(holdings: Holdings, lease: Lease, now: datetime, policy: Policy) -> Decision:
    if lease.state is LeaseState.REQUESTED:
        return swept(again(holdings, lease, "no node came to be in time", now, policy), lease)
    hindrance = f": {lease.why}" if lease.why else ""
    why = f"the node did not become ready in time{hindrance}"
    after = put(holdings, lease, now, why=why, ready_deadline=None, end_deadline=now + policy.end_within)
    return Decision(after, actions=(Kill(known(after, lease)),))


def _unseen(holdings: Holdings, lease: Lease, now: datetime, policy: Policy) -> Decision:
    """A node was killed and nobody saw it end."""
    if lease.state is LeaseState.DRAINING:
        return released(holdings, lease, reason(lease, None), now, policy)
    return again(holdings, lease, lease.why, now, policy)
