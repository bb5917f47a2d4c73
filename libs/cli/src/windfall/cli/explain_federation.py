"""``windfall explain FEDERATION``: why it trains, waits, is paused or is over, from the last words about it."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from windfall.cli import explain
from windfall.cli.advice import reasons
from windfall.cli.explain import Explanation
from windfall.cli.last_words import last_words
from windfall.cli.nearest import near
from windfall.cli.resources.federations import FEDERATIONS, Federation
from windfall.cli.resources.reading import rows
from windfall.cli.resources.versioned import single
from windfall.cli.server import connection, known_sites
from windfall.contracts.events import AdviceGiven
from windfall.contracts.subjects import subject_for
from windfall.servicekit.errors import Mistake


@dataclass(frozen=True)
class Explained:
    """Why a federation is as it is."""

    federation: str
    state: str
    """waiting, training, paused or finished."""
    since: datetime | None
    because: str
    would_change: str
    plan: str = ""
    """Why the newest plan is as it is."""
    advice: str = ""
    """Since when it trains with what, and why."""


def explained(row: Federation, advice: AdviceGiven | None) -> Explained:
    """One federation, as its coordinator has said it last. Pure."""
    name = row.name
    match row.state:
        case "training":
            because = f"round {row.round} runs with {', '.join(row.sites)}"
            change = "`windfall watch rounds` shows when it is merged"
        case "paused":
            because = row.because or "somebody ordered it"
            change = f"`windfall resume {name}` goes on from the same model"
        case "finished":
            because = row.because or "it has come to its end"
            change = "Its model is kept: `windfall checkpoint list`"
        case _:
            because = "no round has started" if row.completed is None else f"round {row.completed} is completed"
            change = "The next round opens when enough sites have joined; `windfall get sites` shows how far they are"
    told = reasons(advice)[0] if advice is not None else ""
    return Explained(name, row.state, row.changed_at, because, change, row.plan, told)


async def explain_any(url: str, name: str) -> Explanation | Explained:
    """Ask a server about a site or a federation; where both have the name, about the site.

    Raises:
        Mistake: the server cannot be used, knows neither, or has heard nothing of it.
    """
    async with connection(url) as client:
        sites = await known_sites(client)
    if name in sites:
        return await explain.explain(url, name)
    found = await rows(url, FEDERATIONS)
    if name not in found:
        raise Mistake(f"unknown site or federation {name!r}", near(name, [*sites, *found]))
    async with connection(url) as client:
        told = await last_words(client, [subject_for(AdviceGiven, name)])
    return explained(found[name], next((one for one in told if isinstance(one, AdviceGiven)), None))


def in_words(told: Explanation | Explained) -> str:
    """Two sentences, and one for what is planned and advised."""
    if isinstance(told, Explanation):
        return explain.in_words(told)
    since = f" since {told.since.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if told.since else ""
    lines = [f"{told.federation} is {told.state}{since}: {told.because.rstrip('.')}.", f"{told.would_change}."]
    return "\n".join(lines + [f"{each.rstrip('.')}." for each in (told.plan, told.advice) if each])


def for_machines(told: Explanation | Explained, form: str) -> str:
    """One versioned object, as ``json``, ``yaml`` or ``jsonl``."""
    if isinstance(told, Explanation):
        return explain.for_machines(told, form)
    plain = {name: at.isoformat() if isinstance(at, datetime) else at for name, at in asdict(told).items()}
    return single("FederationExplanation", plain, form)
