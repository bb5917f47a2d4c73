"""The whole page as one value: every event goes in, and what it changed comes out as one line of JSON."""

import json
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from windfall.cli.dead_letters import DeadLetter
from windfall.cli.recording import Said
from windfall.cli.resources.federations import FEDERATIONS
from windfall.cli.resources.profiles import PROFILES
from windfall.cli.resources.sites import SITES, Site
from windfall.cli.resources.windows import WINDOWS
from windfall.cli.web import troubles
from windfall.cli.web.anatomy import Rounds
from windfall.cli.web.standing import fold_links, fold_totals, fold_trained
from windfall.cli.web.table import Table
from windfall.cli.web.troubles import Trouble
from windfall.contracts.events import EnergyRecorded
from windfall.contracts.message import Message

KEPT_EVENTS: Final = 500
KEPT_WINDOWS: Final = 4000
KEPT_ENTRIES: Final = 4000
"""Of the sites' ledgers."""
KEPT_IDS: Final = 50_000
"""A server that lost its store is told everything again under the same ids."""
DEAD_SHOWN: Final = 100

_RESOURCES: Final = (SITES, WINDOWS, PROFILES, FEDERATIONS)
_LONGEST: Final = 400


class Picture:
    """What was heard, folded and bounded. It grows with the number of sites and with nothing else."""

    def __init__(self) -> None:
        self.newest_at: datetime | None = None
        """Of all that was heard: where a replay is."""
        self._tables = {of.name: Table(KEPT_WINDOWS if of is WINDOWS else None) for of in _RESOURCES}
        self._links, self._totals = Table(), Table()
        self._trained, self._troubles = Table(KEPT_WINDOWS), Table(troubles.KEPT)
        self._rounds = Rounds()
        self._tables |= {"links": self._links, "totals": self._totals, "trained": self._trained}
        self._tables |= {"troubles": self._troubles, "rounds": self._rounds.table}
        self._events: deque[Mapping[str, object]] = deque(maxlen=KEPT_EVENTS)
        self._energy: deque[Sequence[object]] = deque(maxlen=KEPT_ENTRIES)
        self._before_kwh = 0.0
        self._before_kg = 0.0
        self._ids: dict[str, None] = {}

    def know(self, sites: Sequence[str]) -> str:
        """Sites that have said nothing yet are shown, too."""
        for site in sites:
            if site not in self._tables[SITES.name]:
                self._tables[SITES.name][site] = Site(site)
        return _line({"rows": self._changed()})

    def take(self, said: Said) -> str | None:
        """Take one event in; the change, or none where it was heard before."""
        message = said.message
        key = str(message.id)
        if key in self._ids:
            return None
        self._ids[key] = None
        if len(self._ids) > KEPT_IDS:
            del self._ids[next(iter(self._ids))]
        self.newest_at = message.at if self.newest_at is None else max(self.newest_at, message.at)
        change: dict[str, object] = {}
        for of in _RESOURCES:
            if isinstance(message, of.hears):
                of.fold(self._tables[of.name], message)
        fold_links(self._links, message)
        fold_totals(self._totals, message)
        fold_trained(self._trained, message)
        troubles.fold(self._troubles, message)
        if (part := self._rounds.take(said)) is not None:
            change["part"] = part
        if isinstance(message, EnergyRecorded):
            change["energy"] = self._entered(message)
        change["event"] = told = event(said)
        self._events.append(told)
        if rows := self._changed():
            change["rows"] = rows
        return _line(change)

    def bury(self, dead: Sequence[DeadLetter], count: int) -> str | None:
        """Dead letters as they are listed now, the newest of ``count``; the change, if there is one."""
        wanted = {f"dead letter/{one.sequence}": one for one in dead[-DEAD_SHOWN:]}
        for name in [name for name in self._troubles if name.startswith("dead letter/") and name not in wanted]:
            self._troubles.drop(name)
        for name, one in wanted.items():
            text = f"{one.letter.subject}: {one.reason} (`windfall dlq show {one.sequence}`)"
            self._troubles[name] = Trouble(name, "dead letter", one.consumer, None, text)
        if count > len(wanted):
            more = f"{count - len(wanted)} more: `windfall dlq list`"
            self._troubles["dead letter/more"] = Trouble("dead letter/more", "dead letter", "hub", None, more)
        rows = self._changed()
        return _line({"rows": rows}) if rows else None

    def snapshot(self) -> Mapping[str, object]:
        """Everything, for who comes new."""
        return {
            "rows": {name: table.records() for name, table in self._tables.items()},
            "parts": self._rounds.parts,
            "energy": list(self._energy),
            "energy_before": {"kwh": self._before_kwh, "kg": self._before_kg},
            "events": list(self._events),
        }

    def _entered(self, message: EnergyRecorded) -> Sequence[object]:
        if len(self._energy) == KEPT_ENTRIES:
            oldest = self._energy[0]
            self._before_kwh += float(str(oldest[3]))
            self._before_kg += float(str(oldest[4]))
        entry = (
            message.site,
            message.start.isoformat(),
            message.end.isoformat(),
            message.energy_kwh,
            message.emissions_kg,
        )
        self._energy.append(entry)
        return entry

    def _changed(self) -> Mapping[str, object]:
        return {name: rows for name, table in self._tables.items() if (rows := table.taken())}


def event(said: Said) -> Mapping[str, object]:
    """One event as a line of the page's stream."""
    message = said.message
    return {
        "id": str(message.id),
        "at": message.at.isoformat(),
        "topic": message.topic,
        "whom": message.whom,
        "text": in_words(message),
        "trace": said.trace_id or "",
    }


def in_words(message: Message) -> str:
    """The fields that people read: no ids, no digests, nothing nested, and not without end."""
    fields = message.model_dump(mode="json", exclude={"id", "at", "site", "window_id", "lease_id"})
    whom = message.whom
    words = [
        f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in fields.items()
        if value not in (None, "")
        and not isinstance(value, dict | list)
        and value != whom
        and not name.endswith(("digest", "hash"))
    ]
    text = " ".join(words)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _line(change: Mapping[str, object]) -> str:
    return json.dumps(change, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
