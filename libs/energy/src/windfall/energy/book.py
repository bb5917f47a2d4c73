"""A site's open account: what its node does since when, and how that becomes the next entry of the ledger. Pure.

An entry is closed when the node's state changes, at the instant that the event names, and otherwise at regular
intervals. A power that a meter has counted counts; else the power model speaks, and the entry says so.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from windfall.contracts.message import Digest, Instant, Name
from windfall.energy.chain import Entry, Genesis, IntensitySource, Method, entry_hash
from windfall.energy.intensity import Belief, Known, Step, forget, know, steps
from windfall.energy.ledger import Node, Told, follow
from windfall.energy.meter import Piece, Reading, marginal, metered
from windfall.energy.power import PowerModel, SiteState
from windfall.energy.quotes import Quote
from windfall.energy.statement import Statement

_HOUR: Final = timedelta(hours=1)
_OFF_INTERVAL: Final = timedelta(days=1)
"""How often an entry is closed while nothing is drawn: the counterfactual goes on."""
_MOST_SPELLS: Final = 1000
"""Readings that an open entry may span; with more of them it is closed, so that the book stays small."""
_DIGITS: Final = 9
"""Of kWh and kg after the point: a microwatt-hour, a microgram."""


@dataclass(frozen=True)
class Terms:
    """By what an entry is made."""

    power: PowerModel = field(default_factory=PowerModel)
    belief: Belief = field(default_factory=lambda: Belief(timedelta(minutes=15)))
    clean_below_g_per_kwh: float = 100.0
    interval: timedelta = timedelta(minutes=15)
    """The longest entry while power is drawn."""


class Book(BaseModel):
    """The open account, and all that the next entry depends on. Its journaled form is the ledger's own memory."""

    model_config = ConfigDict(frozen=True)

    site: Name
    since: Instant
    """The end of the last entry: the begin of the next one."""
    head: Digest
    """Hash of the last record."""
    sequence: int = 0
    """Of the last record."""
    node: Node = Node()
    known: Known = Known()
    readings: tuple[Reading, ...] = ()
    statement: Statement = Statement()
    """The sums of all entries."""


Closed = tuple[Book, tuple[Entry, ...]]


def begin(genesis: Genesis, head: str) -> Book:
    """The book of a ledger that has a beginning and nothing else."""
    return Book(site=genesis.site, since=genesis.created_at, head=head)


def learn(book: Book, quote: Quote, terms: Terms) -> Book:
    """A reading of the intensity. One of a time that is in the ledger already changes nothing there."""
    known = know(book.known, quote, terms.belief.hold)
    return book if known is book.known else book.model_copy(update={"known": forget(known, book.since)})


def read(book: Book, reading: Reading) -> Book:
    """A reading of the meter. One that is not later than the last, after the clock was set back, begins anew."""
    kept = book.readings if book.node.state is not SiteState.OFF else book.readings[-1:]
    if kept and kept[-1].at >= reading.at:
        kept = ()
    return book.model_copy(update={"readings": (*kept, reading)})


def hear(book: Book, event: Told, now: datetime, terms: Terms) -> Closed:
    """An event about the node: when it changes what is drawn, or for which window, what was before is closed."""
    node = follow(book.node, event)
    if (node.state, node.serves) == (book.node.state, book.node.serves):
        return book.model_copy(update={"node": node}), ()
    # An event of the time that is in the ledger already can only count from now on, and nothing is known of the future.
    at = max(book.since, min(event.at, now))
    book, entries = tick(book, at, terms)
    if at > book.since:
        book, entry = _close(book, at, terms)
        entries = (*entries, entry)
    return book.model_copy(update={"node": node}), entries


def due(book: Book, terms: Terms) -> datetime:
    """When the open entry must be closed at the latest."""
    at = book.since + (_OFF_INTERVAL if book.node.state is SiteState.OFF else terms.interval)
    return min(at, book.known.spells[-1].since) if len(book.known.spells) > _MOST_SPELLS else at


def tick(book: Book, now: datetime, terms: Terms) -> Closed:
    """Close what is due."""
    entries: list[Entry] = []
    while (at := due(book, terms)) <= now:
        book, entry = _close(book, at, terms)
        entries.append(entry)
    return book, tuple(entries)


def finish(book: Book, now: datetime, terms: Terms) -> Closed:
    """Close everything up to an instant: nobody will keep the book for a while."""
    book, entries = tick(book, now, terms)
    if now <= book.since:
        return book, entries
    book, last = _close(book, now, terms)
    return book, (*entries, last)


def _close(book: Book, at: datetime, terms: Terms) -> tuple[Book, Entry]:
    entry = _entry(book, at, terms)
    enclosing = sum(reading.at > at for reading in book.readings) + 1
    after = book.model_copy(
        update={
            "since": at,
            "head": entry_hash(book.head, entry),
            "sequence": entry.sequence,
            "known": forget(book.known, at),
            "readings": book.readings[-enclosing:],
            "statement": book.statement.plus(entry),
        }
    )
    return after, entry


def _entry(book: Book, at: datetime, terms: Terms) -> Entry:
    carbon = tuple(steps(book.known, book.since, at, terms.belief))
    pieces, meter = _drawn(book, at, terms.power)
    used = marginal(pieces, carbon, terms.clean_below_g_per_kwh)
    always = marginal([Piece(book.since, at, terms.power.training_kw)], carbon, terms.clean_below_g_per_kwh)
    hours = (at - book.since) / _HOUR
    method: Method = "metered" if meter else "modelled"
    return Entry(
        sequence=book.sequence + 1,
        site=book.site,
        window_id=book.node.serves,
        state=book.node.state,
        start=book.since,
        end=at,
        energy_kwh=round(used.energy_kwh, _DIGITS),
        emissions_kg=round(used.emissions_kg, _DIGITS),
        clean_energy_kwh=round(used.clean_energy_kwh, _DIGITS),
        always_on_kwh=round(always.energy_kwh, _DIGITS),
        always_on_kg=round(always.emissions_kg, _DIGITS),
        intensity_source=_source(carbon),
        mean_intensity_g_per_kwh=round(
            sum(step.g_per_kwh * ((step.end - step.start) / _HOUR) for step in carbon) / hours, 6
        ),
        method=method,
        meter=meter,
        previous_hash=book.head,
    )


def _drawn(book: Book, at: datetime, power: PowerModel) -> tuple[tuple[Piece, ...], str]:
    """The power of the open interval, and the meter that says so; empty when the model does."""
    if book.node.state is SiteState.OFF:
        # No node is leased: what its machine draws now is not drawn for us.
        return (), ""
    counted = metered(book.readings, book.since, at)
    if counted is not None:
        return counted, book.readings[-1].meter
    return (Piece(book.since, at, power.kw(book.node.state)),), ""


def _source(carbon: tuple[Step, ...]) -> IntensitySource:
    kinds = {step.kind for step in carbon}
    if None in kinds:
        return "assumed"
    if len(kinds) > 1:
        return "mixed"
    return "marginal" if "marginal" in kinds else "average"
