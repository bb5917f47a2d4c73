"""What a site holds: leases on nodes, as frozen values. Holdings are journaled whole.

    requested ──▶ provisioning ──▶ ready ──▶ draining ──▶ released
        ▲               │            │
        └── back-off ◀──┴────────────┘ the node died; once the attempts are used up ──▶ failed

A lease may be taken ahead, for a window that is only expected: its node is warm when the window opens. No state but
``ready`` lasts for ever: each of the others has a deadline, after which the lease goes on whatever its node does.

How they change is decided in :mod:`windfall.provisioner.claims`, :mod:`windfall.provisioner.lease` and
:mod:`windfall.provisioner.deadlines`.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.events import NodeFailed, NodeHindered, NodeReady, NodeReleased
from windfall.contracts.message import Instant, Name


class LeaseState(StrEnum):
    """Where a lease stands."""

    REQUESTED = "requested"
    """A start is ordered and not confirmed, or waits for ``retry_at``."""
    PROVISIONING = "provisioning"
    """The node exists and is not ready."""
    READY = "ready"
    DRAINING = "draining"
    """The node has been asked to go."""
    RELEASED = "released"
    FAILED = "failed"


class Lease(BaseModel):
    """One window's hold on a node. One per window, and another when that was given up before the window opened."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lease_id: UUID
    site: Name
    window_id: UUID
    token: int = Field(ge=1)
    """Fencing token: grows with every lease of the site, never reused. Every attempt of a lease carries the same."""
    node: Name
    workers: int | None = Field(default=None, ge=1)
    """Processes that train as one site: what its node is made of; none leaves it to the site's settings."""
    accelerators: int | None = Field(default=None, ge=0)
    """Of each worker; none leaves it to the site's settings."""
    state: LeaseState = LeaseState.REQUESTED
    attempts: int = Field(default=1, ge=0)
    """Starts ordered so far, without those of which nobody heard."""
    forgiven: int = Field(default=0, ge=0)
    """Of them, those that are not held against it: a node that came of them worked for long."""
    outages: int = Field(default=0, ge=0)
    """Starts in a row of which nobody heard."""
    opened_at: Instant
    """When the window opened, or was said to be expected, by the watcher's clock: orders leases when sentences are
    reordered."""
    opens_at: Instant | None = None
    """When the window is expected to open; none once it has."""
    awaited_until: Instant | None = None
    """When it is given up if it has not opened; none while nothing is awaited."""
    requested_at: Instant
    changed_at: Instant
    retry_at: Instant | None = None
    """When the next attempt starts; none while no attempt is waiting."""
    ready_deadline: Instant | None = None
    """When the attempt that is being made is given up; none while none is, or its node is ready."""
    drain_time: timedelta | None = None
    """How long its node is expected to take to go, as the site's last ones took; none leaves it to the grace."""
    drain_asked_at: Instant | None = None
    """When its node was asked to go."""
    drain_deadline: Instant | None = None
    """When the grace runs out."""
    end_deadline: Instant | None = None
    """The node is being killed, and until then it is waited for."""
    ready_at: Instant | None = None
    """Since when its node is ready; none while it is not, or there is none."""
    was_ready: bool = False
    """``node.ready`` has been said."""
    drained: bool = False
    """The trainer said that all its work is delivered."""
    overdue: bool = False
    """The grace ran out and the node is being killed."""
    given_up: bool = False
    """Ahead of its window the node went, because that was long overdue, or could not be had; when it opens after all
    it gets another lease."""
    why: str = ""
    """What keeps its node from being ready, or did so last, while none exists; or why the lease is going or has
    ended."""
    traceparent: str | None = None
    """W3C trace context of the sentence that asked for the lease."""

    @property
    def live(self) -> bool:
        """Whether a node may exist under this lease, or may yet come."""
        return self.state not in (LeaseState.RELEASED, LeaseState.FAILED)

    @property
    def waiting(self) -> bool:
        """Whether it waits for its next attempt: no node exists and none is being started."""
        return self.state is LeaseState.REQUESTED and self.retry_at is not None

    @property
    def environment(self) -> dict[str, str]:
        """What its node is told of the window at its start."""
        return {"WINDFALL_WINDOW_OPENS_AT": "" if self.opens_at is None else self.opens_at.isoformat()}


class Turned(BaseModel):
    """A window that opened while the site gave no leases: the newest, for when it gives them again."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    window_id: UUID
    opened_at: Instant
    traceparent: str | None = None


class Holdings(BaseModel):
    """Everything that a site holds: its leases by growing token, the next token, and the windows that are over."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    site: Name
    next_token: int = Field(default=1, ge=1)
    leases: tuple[Lease, ...] = ()
    over: tuple[UUID, ...] = ()
    """Windows that get no lease any more: closed, or their lease has ended."""
    cordon: str | None = None
    """Why no leases are given for the time being; none when they are."""
    turned_away: Turned | None = None
    """Whom the cordon keeps out, or the last provisioner left behind."""
    drains: tuple[timedelta, ...] = ()
    """How long the last nodes took to go, the youngest last."""

    def of_window(self, window_id: UUID) -> Lease | None:
        """The lease of a window, the youngest."""
        return next((lease for lease in reversed(self.leases) if lease.window_id == window_id), None)

    def of_id(self, lease_id: UUID) -> Lease | None:
        """The lease with this id."""
        return next((lease for lease in self.leases if lease.lease_id == lease_id), None)

    @property
    def live(self) -> tuple[Lease, ...]:
        """The leases under which a node may exist."""
        return tuple(lease for lease in self.leases if lease.live)

    @property
    def holder(self) -> Lease | None:
        """The lease that holds the site: the youngest that is live and not on its way out."""
        return next((lease for lease in reversed(self.live) if lease.state is not LeaseState.DRAINING), None)


@dataclass(frozen=True)
class Node:
    """What runs under a lease, whatever it is made of."""

    lease_id: UUID
    window_id: UUID
    token: int
    name: str

    @classmethod
    def of(cls, lease: Lease) -> "Node":
        """The node that a lease asks for."""
        return cls(lease.lease_id, lease.window_id, lease.token, lease.node)

    @property
    def environment(self) -> dict[str, str]:
        """How the node knows itself."""
        return {
            "WINDFALL_LEASE_ID": str(self.lease_id),
            "WINDFALL_LEASE_TOKEN": str(self.token),
            "WINDFALL_WINDOW_ID": str(self.window_id),
            "WINDFALL_NODE": self.name,
        }


@dataclass(frozen=True)
class Need:
    """What is asked of a node; what is none is left to the site's settings."""

    workers: int | None = None
    accelerators: int | None = None
    """Of each worker."""


USUAL: Final = Need()
MOST_WORKERS: Final = 1000
MOST_ACCELERATORS: Final = 64
"""Of each worker. A need of more is nobody's that means it: an object is made for each worker."""


@dataclass(frozen=True)
class Policy:
    """What a site allows its nodes, in business time."""

    grace: timedelta
    """From being asked to go until being killed."""
    attempts: int = 3
    """Starts in a row without a node that worked for long."""
    steady: timedelta = timedelta(minutes=10)
    """A node that was ready for so long has come to something: what died before it is forgotten."""
    backoff: timedelta = timedelta(seconds=1)
    """Longest pause before the second attempt; doubles with each one after."""
    backoff_limit: timedelta = timedelta(minutes=5)
    """Pauses grow no longer."""
    patience: timedelta = timedelta(minutes=15)
    """How long an expected window may be overdue before its node is given back."""
    ready_within: timedelta = timedelta(minutes=2)
    """From the order to start until ready."""
    end_within: timedelta = timedelta(seconds=3)
    """From the order to kill until nobody waits any more to see it done."""


@dataclass(frozen=True)
class Start:
    """Start the node of this lease."""

    lease: Lease


@dataclass(frozen=True)
class Drain:
    """Ask the node of this lease to finish and go."""

    lease: Lease


@dataclass(frozen=True)
class Kill:
    """End the node of this lease now."""

    lease: Lease


Action = Start | Drain | Kill
LeaseEvent = NodeHindered | NodeReady | NodeFailed | NodeReleased


class Decision(NamedTuple):
    """What the site holds now, what is to be said, and what is to be done, in this order."""

    holdings: Holdings
    events: tuple[LeaseEvent, ...] = ()
    actions: tuple[Action, ...] = ()
