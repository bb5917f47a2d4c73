"""What keeps leases from their nodes, said whenever it is another: decided over what the site held and holds now."""

from datetime import datetime

from windfall.contracts.events import NodeHindered
from windfall.contracts.message import derived_id
from windfall.provisioner.holdings import Decision, Holdings, Lease, LeaseState
from windfall.provisioner.transitions import said

_ON_ITS_WAY = (LeaseState.REQUESTED, LeaseState.PROVISIONING)


def hindrances(before: Holdings, decision: Decision, now: datetime) -> Decision:
    """The same decision, which also says what keeps each lease's node, where that is other than before."""
    told = tuple(
        _said(lease, hindrance(lease), now)
        for lease in decision.holdings.leases
        if lease.state in _ON_ITS_WAY and hindrance(lease) != hindrance(before.of_id(lease.lease_id))
    )
    return decision._replace(events=(*decision.events, *told))


def hindrance(lease: Lease | None) -> str:
    """What keeps a lease from its node; empty where nothing does."""
    return lease.why if lease is not None and lease.state in _ON_ITS_WAY else ""


def _said(lease: Lease, because: str, now: datetime) -> NodeHindered:
    event = said(lease, NodeHindered.topic, now)
    # The same reason may come back: each time it is another sentence.
    told = derived_id(f"{lease.lease_id}/{now.isoformat()}", NodeHindered.topic, lease.site)
    return NodeHindered(**{**event, "id": told}, because=because)
