"""What a site believes of its power's intensity, as far back as it has something to account: a step function.

A reading holds until the next one, but no longer than the signal's staleness limit. Where nothing is known an entry of
the ledger assumes the dirtier of the last reading and a value that the site was told, so that silence is never clean.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import SignalKind
from windfall.contracts.message import Instant
from windfall.energy.quotes import Quote

INTENSITIES: Final = (SignalKind.MARGINAL, SignalKind.AVERAGE)
"""The kinds that say what a kilowatt-hour emits; prices, ranks and surpluses do not. Where a site tells both the first
counts: whoever starts adds to what is generated."""
WORLD_G_PER_KWH: Final = 475.0
"""Mean intensity of the world's electricity in 2018 (IEA, Global Energy & CO2 Status Report 2019)."""


class Spell(BaseModel):
    """Equal readings in a row."""

    model_config = ConfigDict(frozen=True)

    since: Instant
    seen_at: Instant
    """Point time of the last of them."""
    g_per_kwh: float
    kind: SignalKind


class Known(BaseModel):
    """Readings, oldest first."""

    model_config = ConfigDict(frozen=True)

    spells: tuple[Spell, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One value of the intensity, for as long as it holds."""

    start: datetime
    end: datetime
    g_per_kwh: float
    kind: SignalKind | None
    """None where it is assumed."""


@dataclass(frozen=True)
class Belief:
    """How far a reading is believed, and what is taken where none is."""

    hold: timedelta
    assumed_g_per_kwh: float = WORLD_G_PER_KWH


def know(known: Known, quote: Quote, hold: timedelta) -> Known:
    """One more reading. Kinds that are no intensity, and readings that are not later than the last, change nothing."""
    last = known.spells[-1] if known.spells else None
    if quote.kind not in INTENSITIES or (last is not None and quote.point_time <= last.seen_at):
        return known
    same = last is not None and (last.g_per_kwh, last.kind) == (quote.value, quote.kind)
    if last is not None and same and quote.point_time - last.seen_at <= hold:
        return Known(spells=(*known.spells[:-1], last.model_copy(update={"seen_at": quote.point_time})))
    fresh = Spell(since=quote.point_time, seen_at=quote.point_time, g_per_kwh=quote.value, kind=quote.kind)
    return Known(spells=(*known.spells, fresh))


def forget(known: Known, before: datetime) -> Known:
    """Only what still matters from an instant on."""
    later = sum(spell.since > before for spell in known.spells)
    return Known(spells=known.spells[-later - 1 :])


def steps(known: Known, start: datetime, end: datetime, belief: Belief) -> Iterator[Step]:
    """The step function between two instants, without gap or overlap."""
    at, worst = start, belief.assumed_g_per_kwh
    for place, spell in enumerate(known.spells):
        following = known.spells[place + 1].since if place + 1 < len(known.spells) else end
        until = min(following, spell.seen_at + belief.hold, end)
        if at < (opens := min(spell.since, end)):
            yield Step(at, opens, worst, None)
            at = opens
        if at < until:
            yield Step(at, until, spell.g_per_kwh, spell.kind)
            at = until
        worst = max(spell.g_per_kwh, belief.assumed_g_per_kwh)
    if at < end:
        yield Step(at, end, worst, None)
