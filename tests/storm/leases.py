"""How the leases of a storm ended: by the journals of the provisioners, and by what the bus was told."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final
from uuid import UUID

import nats

from tests.storm.parts import Away
from tests.storm.plan import GRACE
from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.events import NodeFailed, NodeReady, NodeReleased
from windfall.contracts.message import Message
from windfall.contracts.subjects import DEAD_STREAM, EVENTS_STREAM
from windfall.provisioner.holdings import Holdings, Lease, LeaseState
from windfall.servicekit.journal import Journal
from windfall.servicekit.natsserver import NatsServer


@dataclass
class Ends:
    """
    Args:
        latest: from the end of a grace until the release, less what the provisioner was away meanwhile.
    """

    released: int = 0
    failed: int = 0
    ready: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    latest: timedelta = timedelta(0)
    late: int = 0
    """Releases later than five seconds."""
    faults: list[str] = field(default_factory=list)


LATE: Final = timedelta(seconds=5)
_IN_FLIGHT: Final = timedelta(seconds=5)
"""What was asked of the API server when a lease ended may still come to be; it is swept then."""


async def ends(
    folder: Path,
    server: NatsServer,
    sites: Sequence[str],
    away: Mapping[str, Sequence[Away]],
    born: Mapping[str, datetime],
) -> Ends:
    """
    Args:
        away: when each site's provisioner was.
        born: when each lease got its youngest Job.
    """
    said = [unseal(letter) for letter in await _letters(server, EVENTS_STREAM)]
    dead = await _letters(server, DEAD_STREAM)
    found = Ends(faults=[f"{letter.subject} was buried" for letter in dead])
    for site in sites:
        journal = Journal(folder / site / "provisioner.sqlite", f"/windfall/provisioner/{site}")
        try:
            holdings = journal.load("holdings", Holdings) or Holdings(site=site)
            if unsaid := journal.count_unsaid():
                found.faults.append(f"{site} has {unsaid} sentences unsaid")
        finally:
            journal.close()
        _check(found, holdings, [one for one in said if one.whom == site], away.get(site, ()))
    over = {str(one.lease_id): one for one in said if isinstance(one, NodeReleased | NodeFailed)}
    for lease_id, at in born.items():
        if (end := over.get(lease_id)) and at > end.at + _IN_FLIGHT:
            found.faults.append(f"{end.site}: lease {lease_id} got a Job after its end")
    return found


def _check(found: Ends, holdings: Holdings, said: Sequence[Message], away: Sequence[Away]) -> None:
    """One site's."""
    released = {one.lease_id: one for one in said if isinstance(one, NodeReleased)}
    failed = {one.lease_id: one for one in said if isinstance(one, NodeFailed)}
    ready = Counter(one.lease_id for one in said if isinstance(one, NodeReady))
    times = Counter(one.lease_id for one in said if isinstance(one, NodeReleased | NodeFailed))
    known = {lease.lease_id: lease for lease in holdings.leases}
    site = holdings.site
    for lease_id in known.keys() | times.keys() | ready.keys():
        if times[lease_id] != 1:
            found.faults.append(f"{site}: the end of lease {lease_id} was said {times[lease_id]} times")
        if ready[lease_id] > 1:
            found.faults.append(f"{site}: lease {lease_id} was said to be ready {ready[lease_id]} times")
    for lease in holdings.leases:
        right = {LeaseState.RELEASED: released.keys(), LeaseState.FAILED: failed.keys()}
        if lease.lease_id not in right.get(lease.state, ()):
            found.faults.append(f"{site}: lease {lease.lease_id} is {lease.state.value}, and something else was said")
    if any(after.token <= before.token for before, after in pairwise(holdings.leases)):
        found.faults.append(f"{site}: tokens do not grow: {[lease.token for lease in holdings.leases]}")
    _tokens(found, site, said)
    found.released += len(released)
    found.failed += len(failed)
    found.ready += len(ready)
    found.reasons.update(one.reason for one in released.values())
    for lease in holdings.leases:
        if (end := released.get(lease.lease_id)) and (late := _late(lease, end.at, away)) is not None:
            found.latest = max(found.latest, late)
            found.late += late > LATE


def _tokens(found: Ends, site: str, said: Sequence[Message]) -> None:
    """A token belongs to one lease, and a lease has one token."""
    of: defaultdict[int, set[UUID]] = defaultdict(set)
    for one in said:
        if isinstance(one, NodeReady | NodeReleased | NodeFailed):
            of[one.lease_token].add(one.lease_id)
    found.faults += [f"{site}: token {token} was given {len(ids)} times" for token, ids in of.items() if len(ids) > 1]
    if len({lease for ids in of.values() for lease in ids}) != len(of):
        found.faults.append(f"{site}: a lease had two tokens")


def _late(lease: Lease, ended: datetime, away: Sequence[Away]) -> timedelta | None:
    if lease.drain_asked_at is None:
        return None
    began = lease.drain_asked_at
    gaps = (min(one.until or ended, ended) - max(one.since, began) for one in away)
    return ended - began - GRACE - sum((gap for gap in gaps if gap > timedelta(0)), timedelta(0))


async def _letters(server: NatsServer, stream: str) -> list[Letter]:
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        state = (await jetstream.stream_info(stream)).state
        found = [
            await jetstream.get_msg(stream, sequence) for sequence in range(max(1, state.first_seq), state.last_seq + 1)
        ]
    finally:
        await client.close()
    return [Letter(raw.subject or "", raw.headers or {}, raw.data or b"") for raw in found]
