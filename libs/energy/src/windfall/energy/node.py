"""What a site's node does while its gate moves: the life that the provisioner and the trainer give it, without them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from windfall.energy.gate import Move, Step
from windfall.energy.power import SiteState

Change = tuple[datetime, SiteState]
"""From this instant on the node is in this state."""


@dataclass(frozen=True)
class Timing:
    """How long a site takes."""

    start_up: timedelta
    """From being asked for to being able to train."""
    drain: timedelta
    """From the word to having delivered."""


class Node(NamedTuple):
    """One site's node, with what will become of it if nothing else is said."""

    state: SiteState = SiteState.OFF
    permitted: bool = False
    """The window is open."""
    ready_at: datetime | None = None
    leaves_at: datetime | None = None
    """When it begins to drain, because it was warned of the end."""
    gone_at: datetime | None = None


def pass_time(node: Node, until: datetime, timing: Timing) -> tuple[Node, Sequence[Change]]:
    """What falls due up to and with an instant."""
    changes: list[Change] = []
    while (due := next_due(node)) is not None and due <= until:
        _, permitted, ready_at, leaves_at, gone_at = node
        if due == gone_at:
            again = SiteState.OFF if ready_at is None else SiteState.PROVISIONING
            node = Node(again, permitted, ready_at, leaves_at)
        elif due == ready_at:
            node = Node(SiteState.TRAINING if permitted else SiteState.IDLE, permitted, None, leaves_at, gone_at)
        else:
            node = _leaving(node, due, permitted, timing)
        changes.append((due, node.state))
    return node, changes


def next_due(node: Node) -> datetime | None:
    """When the first of what will become of it falls due: the end of a drain, readiness, the end that was warned of."""
    due = node.gone_at
    if node.ready_at is not None and (due is None or node.ready_at < due):
        due = node.ready_at
    if node.leaves_at is not None and (due is None or node.leaves_at < due):
        due = node.leaves_at
    return due


def obey(node: Node, step: Step, timing: Timing) -> tuple[Node, Sequence[Change]]:
    """A move of the gate."""
    before, at = node.state, step.at
    match step.move:
        case Move.EXPECT:
            node = _starting(node, at, node.permitted, timing)
        case Move.OPEN:
            node = _starting(node, at, True, timing)
        case Move.WARN:
            assert step.until is not None, "a warning is of an end"
            node = node._replace(leaves_at=max(at, step.until - timing.drain))
        case Move.CLOSE | Move.WITHDRAW:
            node = _leaving(node, at, False, timing)
    return node, ((at, node.state),) if node.state is not before else ()


def _starting(node: Node, at: datetime, permitted: bool, timing: Timing) -> Node:
    state, _, ready_at, leaves_at, gone_at = node
    if ready_at is None and state is SiteState.OFF:
        return Node(SiteState.PROVISIONING, permitted, at + timing.start_up, leaves_at)
    if ready_at is None and state is SiteState.DRAINING:
        # What is left of the window before goes first.
        return Node(state, permitted, (gone_at or at) + timing.start_up, leaves_at, gone_at)
    if state is SiteState.IDLE and permitted:
        state = SiteState.TRAINING
    return Node(state, permitted, ready_at, leaves_at, gone_at)


def _leaving(node: Node, at: datetime, permitted: bool, timing: Timing) -> Node:
    """What trains drains; what is on its way or idle goes at once."""
    if node.state is SiteState.TRAINING and timing.drain:
        return Node(SiteState.DRAINING, permitted, None, None, at + timing.drain)
    if node.state is SiteState.DRAINING:
        return Node(SiteState.DRAINING, permitted, None, None, node.gone_at)
    return Node(SiteState.OFF, permitted)
