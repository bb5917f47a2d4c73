"""Every resource that a person can name, in the singular, in the plural, or nearly."""

from typing import Final

from windfall.cli.nearest import near
from windfall.cli.resources.dead_letters import DEAD_LETTERS
from windfall.cli.resources.events import RECENT
from windfall.cli.resources.federations import FEDERATIONS
from windfall.cli.resources.leases import LEASES
from windfall.cli.resources.profiles import PROFILES
from windfall.cli.resources.resource import SHORTEST_PREFIX, Resource, Row, Rows
from windfall.cli.resources.rounds import ROUNDS
from windfall.cli.resources.runs import RUNS
from windfall.cli.resources.sites import SITES
from windfall.cli.resources.windows import WINDOWS
from windfall.servicekit.errors import Mistake

ALL: Final = (SITES, WINDOWS, LEASES, PROFILES, FEDERATIONS, RUNS, ROUNDS, RECENT, DEAD_LETTERS)
_BY_NAME: Final = {name: one for one in ALL for name in (one.name, *one.aliases)}


def resource(name: str) -> Resource:
    """The one of this name.

    Raises:
        Mistake: there is none; the nearest is named.
    """
    found = _BY_NAME.get(name.lower())
    if found is None:
        raise Mistake(f"unknown resource {name!r}", near(name, [one.name for one in ALL]))
    return found


def chosen(of: Resource, rows: Rows, names: tuple[str, ...]) -> list[Row]:
    """Rows of these names, or all of them; an id may be cut, as long as it is the only one that begins so.

    Raises:
        Mistake: there is none of a name; the nearest is named.
    """
    if not names:
        return list(rows.values())
    return [_one(of, rows, name) for name in names]


def _one(of: Resource, rows: Rows, name: str) -> Row:
    if name in rows:
        return rows[name]
    begin = [key for key in rows if key.startswith(name)] if len(name) >= SHORTEST_PREFIX else []
    if len(begin) == 1:
        return rows[begin[0]]
    if begin:
        raise Mistake(f"{len(begin)} {of.name} begin with {name!r}", f"Name one: {', '.join(sorted(begin)[:5])}")
    if not rows:
        raise Mistake(f"there is no {of.name[:-1]} {name!r}", of.empty[:1].upper() + of.empty[1:])
    raise Mistake(f"unknown {of.name[:-1]} {name!r}", near(name, list(rows)))
