"""The steps of a lease's life, for those who decide when one is taken."""

from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final, Literal
from uuid import UUID

from windfall.contracts.events import NodeFailed, NodeReleased
from windfall.contracts.message import derived_id
from windfall.provisioner.holdings import Decision, Drain, Holdings, Kill, Lease, LeaseState, Policy

ENDED_KEPT: Final = 100
"""Ended leases that a site remembers, the youngest."""
WINDOWS_KEPT: Final = 300
"""Windows known to be over that a site remembers, the youngest."""
DRAINS_KEPT: Final = 10
"""Drains of which a site remembers how long they took, the youngest."""
DRAIN_MARGIN: Final = 1.5
"""The next node may take so many times as long to go as the slowest of the last ones."""
DRAIN_LEAST: Final = timedelta(seconds=30)
"""Every node is expected to take so long."""

Reason = Literal["drained", "grace", "died", "released", "replaced"]


def drain(holdings: Holdings, lease: Lease | None, why: Reason, now: datetime, policy: Policy) -> Decision:
    """The node of a lease is not wanted any more: it is asked to go, or need not come."""
    if lease is None or not lease.live or lease.state is LeaseState.DRAINING:
        return Decision(holdings)
    if lease.waiting:
        return swept(released(holdings, lease, why, now, policy), lease)
    changes = {"ready_deadline": None, "end_deadline": None, "awaited_until": None, "why": why}
    after = put(
        holdings,
        lease,
        now,
        state=LeaseState.DRAINING,
        drain_asked_at=now,
        drain_deadline=now + policy.grace,
        **changes,
    )
    return Decision(after, actions=(Drain(known(after, lease)),))


def again(holdings: Holdings, lease: Lease, why: str, now: datetime, policy: Policy) -> Decision:
    """An attempt came to nothing: another one follows, while there are any."""
    forgiven = lease.attempts - 1 if _was_steady(lease, now, policy) else lease.forgiven
    tries = lease.attempts - forgiven
    if tries >= policy.attempts:
        return failed(holdings, lease, f"{why} (attempt {tries} of {policy.attempts})", now)
    retry_at = now + rest(lease, tries, policy)
    changes = {"ready_deadline": None, "end_deadline": None, "ready_at": None, "forgiven": forgiven}
    after = put(holdings, lease, now, state=LeaseState.REQUESTED, retry_at=retry_at, why=why, **changes)
    return Decision(after)


def _was_steady(lease: Lease, now: datetime, policy: Policy) -> bool:
    """Whether its node, which is gone, had been ready for long."""
    return lease.ready_at is not None and now - lease.ready_at >= policy.steady


def rest(lease: Lease, tries: int, policy: Policy) -> timedelta:
    """How long a lease rests after its n-th try: between half of a pause that doubles and the whole of it. The share
    follows from lease and try, so that sites which fell together do not come back together, and a replay decides the
    same."""
    pause = min(policy.backoff * 2.0 ** min(tries - 1, 30), policy.backoff_limit)
    chance = int.from_bytes(sha256(f"{lease.lease_id}/{tries}".encode()).digest()[:4]) / 2**32
    return pause * (1 + chance) / 2


def released(holdings: Holdings, lease: Lease, why: Reason, now: datetime, policy: Policy) -> Decision:
    """A lease ends as it should."""
    event = NodeReleased(**said(lease, NodeReleased.topic, now), node=lease.node, reason=why)
    if lease.drain_asked_at and why in ("drained", "grace"):
        # One that was killed took the grace at least.
        took = policy.grace if lease.overdue else min(now - lease.drain_asked_at, policy.grace)
        holdings = holdings.model_copy(update={"drains": (*holdings.drains, took)[-DRAINS_KEPT:]})
    return Decision(_end(holdings, lease, LeaseState.RELEASED, why, now), (event,))


def failed(holdings: Holdings, lease: Lease, why: str, now: datetime) -> Decision:
    """A lease ends without having had what it is for."""
    event = NodeFailed(**said(lease, NodeFailed.topic, now), reason=why)
    # There may be capacity when its window opens that there was not ahead of it.
    holdings = put(holdings, lease, now, given_up=lease.opens_at is not None)
    return Decision(_end(holdings, lease, LeaseState.FAILED, why, now), (event,))


def swept(decision: Decision, lease: Lease) -> Decision:
    """And whatever there may be of its node is ended."""
    return decision._replace(actions=(*decision.actions, Kill(known(decision.holdings, lease))))


def reason(lease: Lease, exit_code: int | None) -> Reason:
    """Why a draining lease, or one whose node ended in good order, is released."""
    if lease.drained or exit_code == 0:
        return "drained"
    if lease.overdue:
        return "grace"
    if lease.was_ready and exit_code is not None:
        return "died"
    return "replaced" if lease.why == "replaced" else "released"


def drain_time(holdings: Holdings, policy: Policy) -> timedelta | None:
    """How long the next node is expected to take to go; none while none has gone yet."""
    if not holdings.drains:
        return None
    return min(max(max(holdings.drains) * DRAIN_MARGIN, DRAIN_LEAST), policy.grace)


def put(holdings: Holdings, lease: Lease, now: datetime, **changes: object) -> Holdings:
    """The holdings with these changes made to what they know of this lease."""
    changed = known(holdings, lease).model_copy(update={"changed_at": now, **changes})
    leases = (changed if held.token == lease.token else held for held in holdings.leases)
    return holdings.model_copy(update={"leases": tuple(leases)})


def known(holdings: Holdings, lease: Lease) -> Lease:
    """What the holdings know of a lease; the lease as it is given, once they have forgotten it."""
    return next((held for held in holdings.leases if held.token == lease.token), lease)


def over(holdings: Holdings, window_id: UUID) -> Holdings:
    """The holdings that know that a window is over."""
    if window_id in holdings.over:
        return holdings
    return holdings.model_copy(update={"over": (*holdings.over, window_id)[-WINDOWS_KEPT:]})


def said(lease: Lease, topic: str, now: datetime) -> dict[str, Any]:
    """What every event about a lease says."""
    return {
        "id": derived_id(lease.lease_id, topic, lease.site),
        "at": now,
        "site": lease.site,
        "window_id": lease.window_id,
        "lease_id": lease.lease_id,
        "lease_token": lease.token,
    }


def _end(holdings: Holdings, lease: Lease, state: LeaseState, why: str, now: datetime) -> Holdings:
    due = ("retry_at", "ready_deadline", "drain_deadline", "end_deadline", "awaited_until")
    after = put(over(holdings, lease.window_id), lease, now, state=state, why=why, **dict.fromkeys(due))
    forgotten = [lease.token for lease in after.leases if not lease.live][:-ENDED_KEPT]
    return after.model_copy(update={"leases": tuple(held for held in after.leases if held.token not in forgotten)})
