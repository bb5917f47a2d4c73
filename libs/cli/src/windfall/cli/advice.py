"""``windfall profile advice``: what a federation's coordinator advises, what of it is used, and by whose word."""

from typing import Final

from rich.table import Table

from windfall.cli.counting import counted
from windfall.cli.last_words import last_words
from windfall.cli.server import connection
from windfall.contracts.events import AdviceGiven, Chosen
from windfall.contracts.subjects import subject_for
from windfall.servicekit.errors import Mistake

_ALL: Final = "all sites"
_NOTHING: Final = "–"


async def given(url: str, federation: str | None = None) -> AdviceGiven:
    """The newest advice, of this federation or of whichever was advised last.

    Raises:
        Mistake: the server cannot be used, or nothing was advised yet.
    """
    async with connection(url) as client:
        words = await last_words(client, [subject_for(AdviceGiven, federation or "*")])
    found = next((word for word in words if isinstance(word, AdviceGiven)), None)
    if found is None:
        whom = f"the federation {federation!r}" if federation else "any federation"
        raise Mistake(
            f"nothing was advised yet to {whom}", "Ask the hub's server, when a round has begun after a node's profile"
        )
    return found


def table(advice: AdviceGiven) -> Table:
    """A line for each value."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("of", "value", "advised", "used", "by"):
        made.add_column(column, overflow="fold")
    for name, one in (
        ("codec", advice.codec),
        ("fragments", advice.fragments),
        ("local steps, average", advice.average_steps),
    ):
        _row(made, _ALL, name, one)
    for site in advice.sites:
        if not site.takes_part:
            made.add_row(site.site, "takes part", _NOTHING, "no", "operator" if _told_out(site.because) else "advice")
        for value, one in site.values.items():
            _row(made, site.site, value.replace("_", " "), one)
    return made


def reasons(advice: AdviceGiven) -> list[str]:
    """Why, in lines."""
    lines = [f"{advice.federation} from round {advice.round} on. {advice.because}"]
    lines += [f"{one.site}: {one.because}" for one in advice.sites if one.because]
    return [*lines, f"and {counted(advice.unlisted, 'more sites')}"] if advice.unlisted else lines


def of_site(advice: AdviceGiven, site: str) -> str:
    """What a site is to train with, in one sentence; empty where the advice does not know it."""
    found = next((one for one in advice.sites if one.site == site), None)
    if found is None:
        return ""
    if not found.takes_part:
        return f"{advice.federation} leaves it out since round {advice.round}: {found.because}"
    values = [f"{name.replace('_', ' ')} {one.used} ({_whose(one)})" for name, one in found.values.items() if one.used]
    return f"{advice.federation} has it train with {', '.join(values)}" if values else ""


def _row(made: Table, of: str, name: str, one: Chosen) -> None:
    made.add_row(of, name, one.advised or _NOTHING, one.used or "the trainer's own", one.by)


def _whose(one: Chosen) -> str:
    return "as advised" if one.by == "advice" else f"by {one.by}"


def _told_out(because: str) -> bool:
    return because.startswith("the operator")
