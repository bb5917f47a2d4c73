"""Leases: nodes that were asked for, one for each window, and what became of them."""

from dataclasses import dataclass, replace
from datetime import datetime

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.events import NodeFailed, NodeHindered, NodeReady, NodeReleased
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Lease:
    """As the provisioner has said it."""

    name: str
    """Its id."""
    site: str
    lease_token: int
    """Fencing token."""
    window_id: str
    state: str = "requested"
    """hindered, ready, failed or released."""
    node: str = ""
    backend: str = ""
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str = ""


def fold(rows: Rows, message: Message) -> None:
    """Take one event in."""
    if isinstance(message, NodeHindered | NodeReady | NodeFailed | NodeReleased):
        key = str(message.lease_id)
        row = rows.get(key) or Lease(key, message.site, message.lease_token, str(message.window_id))
        rows[key] = _after(row, message)


def _after(row: Lease, message: Message) -> Lease:
    match message:
        case NodeHindered():
            return replace(row, state="hindered" if message.because else "requested", reason=message.because)
        case NodeReady():
            told = replace(row, node=message.node, backend=message.backend, ready_at=message.at)
            return replace(told, state="ready", reason="")
        case NodeFailed():
            return replace(row, state="failed", ended_at=message.at, reason=message.reason)
        case NodeReleased():
            return replace(row, state="released", node=message.node, ended_at=message.at, reason=message.reason)
        case _:
            return row


LEASES = Resource(
    "leases",
    "Lease",
    ("lease", "nodes", "node"),
    Lease,
    (
        ("lease", "name"),
        ("site", "site"),
        ("token", "lease_token"),
        ("state", "state"),
        ("node", "node"),
        ("ready", "ready_at"),
        ("ended", "ended_at"),
        ("reason", "reason"),
    ),
    (("window", "window_id"), ("backend", "backend")),
    (NodeHindered, NodeReady, NodeFailed, NodeReleased),
    fold,
    newest=False,
    empty="no node was asked for yet: that happens when a window opens or is expected",
)
