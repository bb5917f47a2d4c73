"""What the page knows of a site beyond its row: its links, what it has trained and drawn, and when it trained."""

from dataclasses import dataclass, replace
from datetime import datetime

from windfall.cli.web.table import Table
from windfall.contracts.events import (
    ContributionAccepted,
    EnergyRecorded,
    LinkDegraded,
    LinkMeasured,
    LinkRecovered,
    NodeReleased,
    SiteDrained,
    TrainingStarted,
)
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Link:
    """As it was measured last."""

    name: str
    """``site/target``."""
    site: str
    target: str
    rtt_ms: float | None = None
    up_mb_per_s: float | None = None
    down_mb_per_s: float | None = None
    degraded: tuple[str, ...] = ()
    """The parts that are out of their band."""
    measured_at: datetime | None = None


@dataclass(frozen=True)
class Totals:
    """Sums over what was read of a site."""

    name: str
    tokens: int = 0
    contributions: int = 0
    bytes_up: int = 0
    energy_kwh: float = 0.0
    clean_energy_kwh: float = 0.0
    emissions_kg: float = 0.0


@dataclass(frozen=True)
class Trained:
    """When a site trained in one window; open-ended while it does."""

    name: str
    """The window's id."""
    site: str
    since: datetime
    until: datetime | None = None


def fold_links(links: Table, message: Message) -> None:
    """Take one event in."""
    if not isinstance(message, LinkMeasured | LinkDegraded | LinkRecovered):
        return
    name = f"{message.site}/{message.target}"
    row = links.get(name) or Link(name, message.site, message.target)
    match message:
        case LinkMeasured():
            told = replace(row, rtt_ms=message.rtt_ms, up_mb_per_s=message.up_mb_per_s, measured_at=message.at)
            links[name] = replace(told, down_mb_per_s=message.down_mb_per_s)
        case LinkDegraded():
            links[name] = replace(row, degraded=tuple(sorted({*row.degraded, message.part})))
        case LinkRecovered():
            links[name] = replace(row, degraded=tuple(part for part in row.degraded if part != message.part))


def fold_totals(totals: Table, message: Message) -> None:
    """Take one event in; the same one twice would count twice."""
    if not isinstance(message, ContributionAccepted | EnergyRecorded):
        return
    row = totals.get(message.site) or Totals(message.site)
    if isinstance(message, ContributionAccepted):
        told = replace(row, tokens=row.tokens + message.tokens, contributions=row.contributions + 1)
        totals[message.site] = replace(told, bytes_up=row.bytes_up + message.bytes_up)
        return
    told = replace(row, energy_kwh=row.energy_kwh + message.energy_kwh)
    told = replace(told, clean_energy_kwh=row.clean_energy_kwh + message.clean_energy_kwh)
    totals[message.site] = replace(told, emissions_kg=row.emissions_kg + message.emissions_kg)


def fold_trained(trained: Table, message: Message) -> None:
    """Take one event in."""
    match message:
        case TrainingStarted():
            name = str(message.window_id)
            since = trained[name].since if name in trained else message.at
            trained[name] = Trained(name, message.site, since)
        case SiteDrained() | NodeReleased():
            row = trained.get(str(message.window_id))
            if row is not None and row.until is None:
                trained[row.name] = replace(row, until=message.at)
        case _:
            pass
