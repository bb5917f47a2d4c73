"""The life of a lease, as its node and time have it, decided without touching anything.

Every function takes what the site holds, what happened, the instant and the policy, and gives back what the site holds
now, what to say, and what to do. The caller journals the first two in one transaction before it does the third.
Whatever arrives twice, late, or about a lease of the past changes nothing.
"""

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from windfall.contracts.events import NodeFailed, NodeReady, NodeReleased
from windfall.contracts.message import derived_id
from windfall.provisioner.holdings import (
    Action,
    Decision,
    Drain,
    Holdings,
    Kill,
    Lease,
    LeaseEvent,
    LeaseState,
    Policy,
    Start,
)

ENDED_KEPT: Final = 100
"""Ended leases that a site remembers, the youngest."""
WINDOWS_KEPT: Final = 300
"""Windows known to be over that a site remembers, the youngest."""

Reason = Literal["drained", "grace", "died", "released", "replaced"]


# --- what the node does -----------------------------------------------------------------------------------------------


def started(holdings: Holdings, lease_id: UUID, now: datetime, policy: Policy) -> Decision:
    """The node of a lease exists, newly or adopted. If it is not wanted any more, it hears so now."""
    lease = holdings.of_id(lease_id)
    if lease is None:
        return Decision(holdings)
    if not lease.live or lease.overdue:
        return Decision(holdings, actions=(Kill(lease),))
    if lease.state is LeaseState.DRAINING:
        return Decision(holdings, actions=(Drain(lease),))
    if lease.state is not LeaseState.REQUESTED:
        return Decision(holdings)
    return Decision(put(holdings, lease, now, state=LeaseState.PROVISIONING, retry_at=None))


def ready(holdings: Holdings, lease_id: UUID, backend: str, now: datetime, policy: Policy) -> Decision:
    """The node of a lease works. Said once per lease, however often the node is replaced."""
    lease = holdings.of_id(lease_id)
    if lease is None or lease.state is not LeaseState.PROVISIONING:
        return Decision(holdings)
    after = put(holdings, lease, now, state=LeaseState.READY, was_ready=True, why="")
    said = NodeReady(**_said(lease, NodeReady.topic, now), node=lease.node, backend=backend)
    return Decision(after, () if lease.was_ready else (said,))


def late(holdings: Holdings, lease_id: UUID, now: datetime, policy: Policy) -> Decision:
    """The node of a lease exists and did not become ready in time."""
    lease = holdings.of_id(lease_id)
    if lease is None or lease.state is not LeaseState.PROVISIONING:
        return Decision(holdings)
    after = put(holdings, lease, now, why="the node did not become ready in time")
    return Decision(after, actions=(Kill(lease),))


def died(holdings: Holdings, lease_id: UUID, exit_code: int | None, now: datetime, policy: Policy) -> Decision:
    """The node of a lease is gone. Exit code 0 is an orderly end; none means that nobody can know the code."""
    lease = holdings.of_id(lease_id)
    if lease is None or not lease.live or lease.waiting:
        return Decision(holdings)
    if lease.state is LeaseState.DRAINING or exit_code == 0:
        return _released(holdings, lease, _reason(lease, exit_code), now)
    code = "unknown" if exit_code is None else str(exit_code)
    return _again(holdings, lease, lease.why or f"the node died with exit code {code}", now, policy)


def refused(holdings: Holdings, lease_id: UUID, why: str, retry: bool, now: datetime, policy: Policy) -> Decision:
    """No node could be started. ``retry`` is false when another attempt would meet the same mistake."""
    lease = holdings.of_id(lease_id)
    if lease is None or not lease.live or lease.waiting:
        return Decision(holdings)
    if lease.state is LeaseState.DRAINING:
        return _released(holdings, lease, _reason(lease, None), now)
    return _again(holdings, lease, why, now, policy) if retry else _failed(holdings, lease, why, now)


# --- what time does ---------------------------------------------------------------------------------------------------


def next_deadline(holdings: Holdings) -> datetime | None:
    """When ``tick`` has something to decide next."""
    retries = (lease.retry_at for lease in holdings.live if lease.retry_at)
    graces = (lease.drain_deadline for lease in holdings.live if lease.drain_deadline and not lease.overdue)
    openings = (lease.awaited_until for lease in holdings.live if lease.awaited_until)
    return min((*retries, *graces, *openings), default=None)


def tick(holdings: Holdings, now: datetime, policy: Policy) -> Decision:
    """Give back the nodes whose window is long overdue; start the attempts that are due; kill the nodes whose grace ran
    out."""
    events: list[LeaseEvent] = []
    actions: list[Action] = []
    for lease in holdings.live:
        if lease.awaited_until and lease.awaited_until <= now:
            decision = drain(put(holdings, lease, now, given_up=True), lease, "released", now, policy)
            holdings = decision.holdings
            events += decision.events
            actions += decision.actions
        elif lease.retry_at and lease.retry_at <= now:
            holdings = put(holdings, lease, now, retry_at=None, attempts=lease.attempts + 1, why="")
            actions.append(Start(known(holdings, lease)))
        elif lease.drain_deadline and lease.drain_deadline <= now and not lease.overdue:
            holdings = put(holdings, lease, now, overdue=True)
            actions.append(Kill(known(holdings, lease)))
    return Decision(holdings, tuple(events), tuple(actions))


def absent(holdings: Holdings, lease_id: UUID, now: datetime, policy: Policy) -> Decision:
    """After a restart no node runs under this lease. A start that was ordered and left nothing is ordered again."""
    lease = holdings.of_id(lease_id)
    if lease and lease.state is LeaseState.REQUESTED and not lease.waiting:
        return Decision(holdings, actions=(Start(lease),))
    return died(holdings, lease_id, None, now, policy)


# --- the transitions --------------------------------------------------------------------------------------------------


def drain(holdings: Holdings, lease: Lease | None, why: Reason, now: datetime, policy: Policy) -> Decision:
    """The node of a lease is not wanted any more: it is asked to go, or need not come."""
    if lease is None or not lease.live or lease.state is LeaseState.DRAINING:
        return Decision(holdings)
    if lease.waiting:
        return _released(holdings, lease, why, now)
    deadline = now + policy.grace
    after = put(
        holdings,
        lease,
        now,
        state=LeaseState.DRAINING,
        drain_deadline=deadline,
        retry_at=None,
        awaited_until=None,
        why=why,
    )
    return Decision(after, actions=(Drain(known(after, lease)),))


def _reason(lease: Lease, exit_code: int | None) -> Reason:
    if lease.drained or exit_code == 0:
        return "drained"
    if lease.overdue:
        return "grace"
    if lease.was_ready and exit_code is not None:
        return "died"
    return "replaced" if lease.why == "replaced" else "released"


def _again(holdings: Holdings, lease: Lease, why: str, now: datetime, policy: Policy) -> Decision:
    if lease.attempts >= policy.attempts:
        return _failed(holdings, lease, f"{why} (attempt {lease.attempts} of {policy.attempts})", now)
    retry_at = now + policy.backoff * 2 ** (lease.attempts - 1)
    return Decision(put(holdings, lease, now, state=LeaseState.REQUESTED, retry_at=retry_at, why=why))


def _released(holdings: Holdings, lease: Lease, reason: Reason, now: datetime) -> Decision:
    said = NodeReleased(**_said(lease, NodeReleased.topic, now), node=lease.node, reason=reason)
    return Decision(_end(holdings, lease, LeaseState.RELEASED, reason, now), (said,))


def _failed(holdings: Holdings, lease: Lease, why: str, now: datetime) -> Decision:
    said = NodeFailed(**_said(lease, NodeFailed.topic, now), reason=why)
    # There may be capacity when its window opens that there was not ahead of it.
    holdings = put(holdings, lease, now, given_up=lease.opens_at is not None)
    return Decision(_end(holdings, lease, LeaseState.FAILED, why, now), (said,))


def _end(holdings: Holdings, lease: Lease, state: LeaseState, why: str, now: datetime) -> Holdings:
    nothing_due = {"retry_at": None, "drain_deadline": None, "awaited_until": None}
    after = put(over(holdings, lease.window_id), lease, now, state=state, why=why, **nothing_due)
    forgotten = [lease.token for lease in after.leases if not lease.live][:-ENDED_KEPT]
    return after.model_copy(update={"leases": tuple(held for held in after.leases if held.token not in forgotten)})


def put(holdings: Holdings, lease: Lease, now: datetime, **changes: object) -> Holdings:
    """The holdings with these changes made to what they know of this lease."""
    changed = known(holdings, lease).model_copy(update={"changed_at": now, **changes})
    leases = (changed if held.token == lease.token else held for held in holdings.leases)
    return holdings.model_copy(update={"leases": tuple(leases)})


def known(holdings: Holdings, lease: Lease) -> Lease:
    return next(held for held in holdings.leases if held.token == lease.token)


def over(holdings: Holdings, window_id: UUID) -> Holdings:
    """The holdings that know that a window is over."""
    if window_id in holdings.over:
        return holdings
    return holdings.model_copy(update={"over": (*holdings.over, window_id)[-WINDOWS_KEPT:]})


def _said(lease: Lease, topic: str, now: datetime) -> dict[str, Any]:
    return {
        "id": derived_id(lease.lease_id, topic, lease.site),
        "at": now,
        "site": lease.site,
        "window_id": lease.window_id,
        "lease_id": lease.lease_id,
        "lease_token": lease.token,
    }
