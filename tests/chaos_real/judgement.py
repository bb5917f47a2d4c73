"""The ten invariants, of a fleet of real processes: from what its journals, its bus and its disks say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from tests import invariants
from tests.chaos_real.fleet import Fleet, resident_bytes
from tests.chaos_real.needs import SITES
from tests.chaos_real.processes import ancestors, belonging_to
from windfall.contracts.events import (
    CheckpointDamaged,
    ContributionAccepted,
    ContributionRefused,
    NodeFailed,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    SiteLeft,
    WindowClosed,
)
from windfall.contracts.message import Message

GROWTH_BYTES: Final = 256 * 1024 * 1024
"""By which no process may be larger than when the fleet first trained."""
LATE: Final = timedelta(seconds=15)
"""After the grace of a window's end, within which its node must be gone: an order to kill, and the word of it."""
WORSE_NATS: Final = 0.5
"""By which the loss may be above the first round's."""


class Violated(Exception):
    """An invariant does not hold: which, and how."""


@dataclass
class Before:
    """What a fleet was like when it first trained."""

    resident: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, fleet: Fleet) -> "Before":
        return cls({name: resident_bytes(part.pid) for name, part in fleet.parts.items()})


async def violations(fleet: Fleet, before: Before, *, windows_end: bool = False) -> list[str]:
    """Everything that does not hold, once the fleet has settled; empty when all is well.

    Args:
        windows_end: the day has ended, and every window and node with it.
    """
    lacking = await fleet.settled()
    found = [f"I1 {len(lacking)} words, like {lacking[0]}"] if lacking else []
    events: list[Message] = sorted((one.message for one in fleet.heard.values()), key=lambda each: each.at)
    checks: Sequence[tuple[str, Callable[[], None]]] = (
        ("I2, I3, I6", lambda: invariants.check_rounds(events)),
        ("I2", lambda: invariants.check_members(events)),
        ("I4", lambda: _one_model(fleet, events)),
        ("I5", lambda: _learns(fleet)),
        ("I7", lambda: invariants.check_windows(events) if windows_end else _nodes_so_far(events)),
        ("I7", lambda: _no_node_in_the_dark(fleet, events)),
        ("I8", lambda: _no_growth(fleet, before)),
        ("I9", lambda: _nobody_else(fleet)),
    )
    for number, check in checks:
        try:
            check()
        except AssertionError as error:
            found.append(f"{number} {str(error).splitlines()[0] if str(error) else 'does not hold'}")
    if dead := await fleet.dead():
        found.append(f"I10 {len(dead)} dead letters, like {dead[0]}")
    return found


def _one_model(fleet: Fleet, events: Sequence[Message]) -> None:
    """Whatever came was trained from the coordinator's base, to the bit; and the newest base on disk is what was
    committed."""
    strange = [one for one in events if isinstance(one, ContributionRefused) and one.reason in _NEVER]
    assert not strange, f"{strange[0].site} was refused for {strange[0].reason}: {strange[0].detail}"
    rounds = fleet.said(RoundCompleted)
    accepted = {(one.site, one.attempt): one for one in fleet.said(ContributionAccepted)}
    for left in fleet.said(SiteLeft):
        # What counts after its membership has ended would be a zombie's.
        last = accepted.get((left.site, left.attempt))
        assert last is None or last.at <= left.at, f"{left.site} counted after it had left"
    lost = sum(one.rounds_lost for one in fleet.said(CheckpointDamaged))
    assert not lost, f"{lost} completed rounds are lost"
    assert len({one.model_digest for one in rounds}) == len(rounds), "a round changed nothing"
    digests = {one.round + 1: one.model_digest for one in rounds}
    for number, digest in fleet.bases():
        assert digests.get(number, digest) == digest, f"the base of round {number} on disk is not what was committed"


_NEVER: Final = frozenset({"base", "layout", "not-finite", "tokens", "codec", "size"})
"""Reasons for which no honest site is ever refused. What was spoilt on its way (``digest``), comes late (``round``) or
under a membership that is over (``member``, ``lease``) may be."""


def _learns(fleet: Fleet) -> None:
    """Membership differs from run to run, and the model with it: its loss is within a band."""
    losses = [one.loss_nats for one in sorted(fleet.said(RoundCompleted), key=lambda one: one.round)]
    assert losses[-1] <= losses[0] + WORSE_NATS, f"loss went from {losses[0]:.2f} to {losses[-1]:.2f}"


def _nodes_so_far(events: Sequence[Message]) -> None:
    """No node is given back twice, and of those that were not each site has one at most."""
    ready = {one.lease_id: one.site for one in events if isinstance(one, NodeReady)}
    gone = [one.lease_id for one in events if isinstance(one, NodeReleased | NodeFailed)]
    assert len(set(gone)) == len(gone), "no node is given back twice"
    kept = [site for lease, site in ready.items() if lease not in gone]
    assert len(set(kept)) == len(kept), f"a site has two nodes: {kept}"


def _no_node_in_the_dark(fleet: Fleet, events: Sequence[Message]) -> None:
    closed = {one.window_id: one.at for one in events if isinstance(one, WindowClosed)}
    grace = fleet.plan.wish.pace.business(fleet.plan.wish.pace.drain + LATE)
    for one in events:
        if isinstance(one, NodeReleased) and one.window_id in closed:
            late = one.at - closed[one.window_id]
            assert late <= grace, f"{one.site} had a node for {late} after its window had closed"


def _no_growth(fleet: Fleet, before: Before) -> None:
    for name, part in fleet.parts.items():
        now, then = resident_bytes(part.pid), before.resident.get(name, 0)
        assert now <= then + GROWTH_BYTES, f"{name} has {now // 2**20} MiB, and had {then // 2**20}"


def _nobody_else(fleet: Fleet) -> None:
    """One trainer a site at most, and no process that nobody knows."""
    for site in SITES:
        trainers = fleet.trainers(site)
        assert len(trainers) <= 1, f"{site} has {len(trainers)} trainers"
    known = {part.pid for part in fleet.parts.values()} | {pid for site in SITES for pid in fleet.trainers(site)}
    strange = [line for pid, line in belonging_to(fleet.folder) if not known.intersection(ancestors(pid))]
    assert not strange, f"nobody knows {strange[0]}"
