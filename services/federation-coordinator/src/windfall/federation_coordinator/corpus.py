"""The ledger of a shared corpus: which site trains which rows, so that each is trained once per epoch.

Every epoch goes over all rows in an order of its own. Laid end to end these orders are one endless line of positions:
position *p* is place ``p % rows`` of the order of epoch ``p // rows`` (see :mod:`windfall.tasks.rows`). Ranges of that
line are leased to sites. A position is in exactly one of four states::

    not yet leased ─→ held by a site ─→ counted
                         ↓      ↑
                     returned to the pool

It is counted when a contribution that names it is accepted, and never leaves that state. Rows of a contribution that
was refused, or that never came, are returned. What a site held when it went silent is returned too, but others get it
last: a site that is back before them holds it again, and what it trained meanwhile is not lost.

Nobody waits for rows that are out at others: when an epoch has none left, the next one's are leased. An epoch is
complete once all its rows are counted; a slow site may let a later epoch be complete first.

Counted positions are not kept: they are what was leased and is neither held nor returned. So the state has the size of
its gaps, a few ranges per site, whatever the number of rows.
"""

from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.events import ContributionAccepted, ContributionRefused, EpochCompleted, SiteJoined, SiteLeft
from windfall.contracts.message import Message, derived_id
from windfall.tasks.ranges import NONE, Ranges, common, first, minus, size, union, within

MOST_RANGES: Final = 1024
"""That a site may hold, and so name in one contribution."""
MOST_BLOCKS: Final = 64
"""That are leased at once, to who asks for as many."""
MOST_EPOCHS: Final = 4
"""That a site may hold, or as many rows as are leased at once where an epoch is short: then it must contribute."""
GROWTH: Final = 8
"""Who holds so many times a block gets more than a block at once: long rounds hold few ranges."""


class Corpus(BaseModel):
    """Where every row stands."""

    model_config = ConfigDict(frozen=True)

    rows: int = Field(ge=1)
    """Of one epoch."""
    seed: int
    """Decides the order of every epoch. Both stay as they were when the first row was leased."""
    frontier: int = Field(default=0, ge=0)
    """The first position that was never leased."""
    returned: Ranges = NONE
    """Leased before, not counted, and free again."""
    held: dict[str, Ranges] = Field(default_factory=dict)
    """By site."""
    remembered: dict[str, Ranges] = Field(default_factory=dict)
    """Of ``returned``: what each site held when it went silent."""
    tallies: dict[int, dict[str, int]] = Field(default_factory=dict)
    """Rows counted of each epoch that has begun and is not complete, by site."""

    @property
    def counted(self) -> int:
        """Positions that are counted, of all epochs."""
        return self.frontier - size(self.returned) - sum(size(ranges) for ranges in self.held.values())


@dataclass(frozen=True)
class Completed:
    """All rows of an epoch are counted."""

    epoch: int
    rows_by_site: dict[str, int]


def heard(corpus: Corpus, said: Message) -> tuple[Corpus, tuple[EpochCompleted, ...]]:
    """What the coordinator decided about rounds and members, for the rows: every fact has one consequence.

    Raises:
        ValueError: a contribution was accepted that names rows which its site does not hold.
    """
    match said:
        case SiteJoined():
            return regain(corpus, said.site), ()
        case SiteLeft():
            # Who went silent, or is replaced by its next trainer, may have work on them; others have delivered.
            return release(corpus, said.site, hoped_for=said.reason in ("silent", "replaced")), ()
        case ContributionRefused():
            return give_back(corpus, said.site, said.rows), ()
        case ContributionAccepted():
            corpus, completed = count(corpus, said.site, said.rows)
            return corpus, tuple(_completed(one, corpus.rows, said) for one in completed)
    return corpus, ()


def take(corpus: Corpus, site: str, hold: int, block: int) -> Corpus:
    """Lease to a site so much that it holds ``hold`` rows, in whole blocks. Asking again for as much changes nothing.

    A site that holds as many ranges or rows as it may gets nothing more until it has contributed.

    Args:
        hold: rows that the site wants to hold, those included that it has trained and not contributed.
        block: rows that are leased at least.
    """
    own = corpus.held.get(site, NONE)
    missing = min(hold, max(MOST_EPOCHS * corpus.rows, MOST_BLOCKS * block)) - size(own)
    room = MOST_RANGES - len(own)
    if missing <= 0 or room <= 0:
        return corpus
    wanted = min(max(missing, block, size(own) // GROWTH), max(MOST_BLOCKS * block, size(own) // GROWTH))
    hoped = union(*corpus.remembered.values())
    epoch_end = -(-corpus.frontier // corpus.rows) * corpus.rows
    parts = (
        minus(corpus.returned, hoped),
        ((corpus.frontier, epoch_end),),
        hoped,
        ((epoch_end, epoch_end + wanted),),
    )
    taken: Ranges = NONE
    for part in parts:
        if len(taken) == room:
            # A part that there is no room for must not be passed over: its turn comes first next time.
            break
        taken = union(taken, first(union(part), wanted - size(taken))[: room - len(taken)])
    return corpus.model_copy(
        update={
            "frontier": max(corpus.frontier, taken[-1][1]),
            "returned": minus(corpus.returned, taken),
            "held": {**corpus.held, site: union(own, taken)},
            "remembered": _less(corpus.remembered, taken),
        }
    )


def count(corpus: Corpus, site: str, named: Ranges) -> tuple[Corpus, tuple[Completed, ...]]:
    """A contribution that names these rows is accepted.

    Raises:
        ValueError: the site does not hold them.
    """
    own = corpus.held.get(site, NONE)
    if not within(named, own):
        raise ValueError(f"{site} does not hold {size(minus(named, own))} of the rows that it names")
    tallies = dict(corpus.tallies)
    completed = []
    for epoch, rows in _by_epoch(named, corpus.rows).items():
        tally = dict(tallies.pop(epoch, {}))
        tally[site] = tally.get(site, 0) + rows
        if sum(tally.values()) < corpus.rows:
            tallies[epoch] = tally
        else:
            completed.append(Completed(epoch, dict(sorted(tally.items()))))
    held = {**corpus.held, site: minus(own, named)}
    return corpus.model_copy(update={"held": _filled(held), "tallies": tallies}), tuple(completed)


def give_back(corpus: Corpus, site: str, named: Ranges) -> Corpus:
    """What the site holds of these rows goes back to the pool."""
    own = corpus.held.get(site, NONE)
    if not (back := common(own, named)):
        return corpus
    held = {**corpus.held, site: minus(own, back)}
    return corpus.model_copy(update={"held": _filled(held), "returned": union(corpus.returned, back)})


def release(corpus: Corpus, site: str, *, hoped_for: bool) -> Corpus:
    """All that a site holds goes back to the pool.

    Args:
        hoped_for: it may be back with work on them; others get them last.
    """
    own = corpus.held.get(site, NONE)
    if not own:
        return corpus
    corpus = give_back(corpus, site, own)
    if not hoped_for:
        return corpus
    remembered = union(corpus.remembered.get(site, NONE), own)
    return corpus.model_copy(update={"remembered": {**corpus.remembered, site: remembered}})


def regain(corpus: Corpus, site: str) -> Corpus:
    """A site is back: it holds again what it held when it went silent and nobody has taken since."""
    back = corpus.remembered.get(site, NONE)
    if not back:
        return corpus
    return corpus.model_copy(
        update={
            "returned": minus(corpus.returned, back),
            "held": {**corpus.held, site: union(corpus.held.get(site, NONE), back)},
            "remembered": {other: ranges for other, ranges in corpus.remembered.items() if other != site},
        }
    )


def _completed(completed: Completed, rows: int, cause: ContributionAccepted) -> EpochCompleted:
    return EpochCompleted(
        id=derived_id(f"{cause.federation}/{completed.epoch}", EpochCompleted.topic, cause.federation),
        at=cause.at,
        federation=cause.federation,
        epoch=completed.epoch,
        rows=rows,
        rows_by_site=completed.rows_by_site,
        round=cause.round,
    )


def _by_epoch(ranges: Ranges, rows: int) -> dict[int, int]:
    """How many positions lie in each epoch."""
    counts: dict[int, int] = {}
    for begin, end in ranges:
        for epoch in range(begin // rows, -(-end // rows)):
            inside = min(end, (epoch + 1) * rows) - max(begin, epoch * rows)
            counts[epoch] = counts.get(epoch, 0) + inside
    return counts


def _less(sets: dict[str, Ranges], taken: Ranges) -> dict[str, Ranges]:
    return _filled({site: minus(ranges, taken) for site, ranges in sets.items()})


def _filled(sets: dict[str, Ranges]) -> dict[str, Ranges]:
    return {site: ranges for site, ranges in sets.items() if ranges}
