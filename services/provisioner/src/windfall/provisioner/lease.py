"""The life of a lease, as its node has it, decided without touching anything.

Every function takes what the site holds, what happened, the instant and the policy, and gives back what the site holds
now, what to say, and what to do. The caller journals the first two in one transaction before it does the third.
Whatever arrives twice, late, or about a lease of the past changes nothing.
"""

from datetime import datetime
from uuid import UUID

from windfall.contracts.events import NodeReady
from windfall.provisioner.holdings import Decision, Drain, Holdings, Kill, LeaseState, Policy, Start
from windfall.provisioner.transitions import again, failed, known, put, reason, released, rest, said, swept


def started(holdings: Holdings, lease_id: UUID, now: datetime, policy: Policy) -> Decision:
    """The node of a lease exists, newly or adopted. If it is not wanted any more, it hears so now."""
    lease = holdings.of_id(lease_id)
    if lease is None:
        return Decision(holdings)
    if not lease.live or lease.end_deadline:
        return Decision(holdings, actions=(Kill(lease),))
    if lease.state is LeaseState.DRAINING:
        return Decision(holdings, actions=(Drain(lease),))
    if lease.state is not LeaseState.REQUESTED:
        return Decision(holdings)
    begun = {"state": LeaseState.PROVISIONING, "retry_at": None, "ready_at": None, "outages": 0, "why": ""}
    return Decision(put(holdings, lease, now, **begun))


def ready(holdings: Holdings, lease_id: UUID, backend: str, now: datetime, policy: Policy) -> Decision:
    """The node of a lease works. Said once per lease, however often the node is replaced."""
    lease = holdings.of_id(lease_id)
    if lease is None or lease.state is not LeaseState.PROVISIONING or lease.end_deadline:
        return Decision(holdings)
    after = put(holdings, lease, now, state=LeaseState.READY, was_ready=True, ready_at=now, ready_deadline=None, why="")
    event = NodeReady(**said(lease, NodeReady.topic, now), node=lease.node, backend=backend)
    return Decision(after, () if lease.was_ready else (event,))


def hindered(holdings: Holdings, lease_id: UUID, why: str, now: datetime, policy: Policy) -> Decision:
    """The node of a lease says what keeps it from being ready; an empty reason is none any more."""
    lease = holdings.of_id(lease_id)
    if lease is None or lease.state is not LeaseState.PROVISIONING or lease.end_deadline or lease.why == why:
        return Decision(holdings)
    return Decision(put(holdings, lease, now, why=why))


def died(holdings: Holdings, lease_id: UUID, exit_code: int | None, now: datetime, policy: Policy) -> Decision:
    """The node of a lease is gone. Exit code 0 is an orderly end; none means that nobody can know the code."""
    lease = holdings.of_id(lease_id)
    if lease is None or not lease.live or lease.waiting:
        return Decision(holdings)
    if lease.state is LeaseState.DRAINING or exit_code == 0:
        return released(holdings, lease, reason(lease, exit_code), now, policy)
    code = "unknown" if exit_code is None else str(exit_code)
    why = lease.why if lease.end_deadline else f"the node died with exit code {code}"
    return again(holdings, lease, why, now, policy)


def refused(holdings: Holdings, lease_id: UUID, why: str, retry: bool, now: datetime, policy: Policy) -> Decision:
    """No node could be started. ``retry`` is false when another attempt would meet the same mistake."""
    lease = holdings.of_id(lease_id)
    if lease is None or not lease.live or lease.waiting:
        return Decision(holdings)
    if lease.state is LeaseState.DRAINING:
        return swept(released(holdings, lease, reason(lease, None), now, policy), lease)
    decision = again(holdings, lease, why, now, policy) if retry else failed(holdings, lease, why, now)
    return decision if known(decision.holdings, lease).live else swept(decision, lease)


def unheard(holdings: Holdings, lease_id: UUID, why: str, now: datetime, policy: Policy) -> Decision:
    """Nobody could be asked for a node: that was no attempt, however often it happens."""
    lease = holdings.of_id(lease_id)
    if lease is None or lease.state is not LeaseState.REQUESTED or lease.waiting:
        return refused(holdings, lease_id, why, True, now, policy)
    outages = lease.outages + 1
    changes = {"attempts": lease.attempts - 1, "outages": outages, "ready_deadline": None, "why": why}
    return Decision(put(holdings, lease, now, retry_at=now + rest(lease, outages, policy), **changes))


def absent(holdings: Holdings, lease_id: UUID, now: datetime, policy: Policy) -> Decision:
    """After a restart no node runs under this lease. A start that was ordered and left nothing is ordered again."""
    lease = holdings.of_id(lease_id)
    if lease and lease.state is LeaseState.REQUESTED and not lease.waiting:
        after = put(holdings, lease, now, ready_deadline=now + policy.ready_within)
        return Decision(after, actions=(Start(known(after, lease)),))
    return died(holdings, lease_id, None, now, policy)
