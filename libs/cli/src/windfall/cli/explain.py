"""``windfall explain``: why a site is on or off, and what would change it, from the last word of each kind about it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Final

from windfall.cli.advice import of_site
from windfall.cli.last_words import last_words
from windfall.cli.nearest import near
from windfall.cli.resources.versioned import single
from windfall.cli.server import connection, known_sites
from windfall.contracts.events import (
    AdviceGiven,
    NodeFailed,
    NodeHindered,
    NodeReady,
    NodeReleased,
    PlanMade,
    SignalStale,
    SiteRefused,
    SiteWithheld,
    WindowClosed,
    WindowExpected,
    WindowJudged,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import subject_for
from windfall.servicekit.errors import Mistake

_MOVES: Final[dict[type[Message], str]] = {
    WindowOpened: "on",
    WindowClosed: "off",
    WindowExpected: "expected",
    WindowWithdrawn: "off",
    SignalStale: "stale",
}
"""What moves a site, and where to."""
_OF_NODES: Final[tuple[type[Message], ...]] = (NodeHindered, NodeReady, NodeFailed, NodeReleased)
_STATES: Final = {
    "on": "on",
    "off": "off",
    "expected": "off, with a window that is expected",
    "stale": "off, because its signal is silent,",
}


@dataclass(frozen=True)
class Explanation:
    """Why a site is as it is."""

    site: str
    state: str
    since: datetime
    because: str
    would_change: str
    next_change_at: datetime | None = None
    """When the forecast or the plan says that it changes; none when neither sees that far."""
    plan: str = ""
    """What the newest plan that knows the site gives it."""
    without_node: str = ""
    """Why no node is ready there, though one was asked for."""
    kept_out: str = ""
    """What last kept its trainer out: the site's own policy, or the rules of the federation."""
    advice: str = ""
    """With what it is to train, or why its federation leaves it out; the hub knows."""


def explained(site: str, last: Iterable[Message]) -> Explanation | None:
    """Fold the last word of each kind into one explanation; none when there is no word about the site."""
    words = list(last)
    told = _moved(site, words)
    advice = next((of_site(word, site) for word in words if isinstance(word, AdviceGiven)), "")
    if told is None:
        return None
    return replace(told, without_node=_without_node(words), kept_out=_kept_out(words), advice=advice)


def _moved(site: str, words: Sequence[Message]) -> Explanation | None:
    judged = next((word for word in words if isinstance(word, WindowJudged)), None)
    moved = max((word for word in words if type(word) in _MOVES), key=lambda word: word.at, default=None)
    plan = next((word for word in words if isinstance(word, PlanMade)), None)
    if judged is not None and (moved is None or judged.at >= moved.at):
        since = moved.at if moved is not None and _MOVES[type(moved)] == judged.state else judged.at
        return Explanation(
            site, judged.state, since, judged.because, judged.would_change, judged.next_change_at, _planned(site, plan)
        )
    if moved is None:
        return None
    because = getattr(moved, "because", "") or f"its watcher said {moved.topic}"
    return Explanation(site, _MOVES[type(moved)], moved.at, because, "", None, _planned(site, plan))


async def explain(url: str, site: str) -> Explanation:
    """Ask a server of the hub or of the site.

    Raises:
        Mistake: the server cannot be used, does not know the site, or has heard nothing of it.
    """
    async with connection(url) as client:
        known = await known_sites(client)
        if site not in known:
            raise Mistake(f"unknown site {site!r}", near(site, list(known)))
        kinds: list[type[Message]] = [WindowJudged, SiteWithheld, SiteRefused, *_OF_NODES, *_MOVES]
        subjects = [subject_for(kind, site) for kind in kinds]
        of_all = [subject_for(kind, "*") for kind in (PlanMade, AdviceGiven)]
        found = explained(site, await last_words(client, [*subjects, *of_all]))
    if found is None:
        raise Mistake(
            f"nothing was said yet about the windows of {site!r}",
            "Start its energy-watcher, or ask again when it has had a first value",
        )
    return found


def in_words(told: Explanation) -> str:
    """Two sentences, and more where its node does not come, its trainer was kept out, or is advised."""
    why = f"{told.site} is {_STATES[told.state]} since {_instant(told.since)}: {told.because}"
    change = "Its watcher has not said yet what would change it"
    if told.would_change:
        change = f"It {'' if told.would_change.startswith('stays ') else 'goes '}{told.would_change}"
    foreseen = f"; foreseen for {_instant(told.next_change_at)}" if told.next_change_at else ""
    more = "".join(f"\n{said}." for said in (told.without_node, told.kept_out, told.advice) if said)
    return f"{why}{f'; {told.plan}' if told.plan else ''}.\n{change}{foreseen}.{more}"


def for_machines(told: Explanation, form: str) -> str:
    """One versioned object, as ``json``, ``yaml`` or ``jsonl``."""
    plain = {name: at.isoformat() if isinstance(at, datetime) else at for name, at in asdict(told).items()}
    return single("Explanation", plain, form)


def _planned(site: str, plan: PlanMade | None) -> str:
    if plan is None or site not in plan.site_hours:
        return ""
    return f"the plan of {plan.federation} gives it {plan.site_hours[site]:.1f} site-hours"


def _without_node(words: Iterable[Message]) -> str:
    last = max((word for word in words if isinstance(word, _OF_NODES)), key=lambda word: word.at, default=None)
    if isinstance(last, NodeHindered) and last.because:
        return f"Its node does not come since {_instant(last.at)}: {last.because}"
    if isinstance(last, NodeFailed):
        return f"Its window of {_instant(last.at)} had no node: {last.reason}"
    return ""


def _kept_out(words: Iterable[Message]) -> str:
    kept = [word for word in words if isinstance(word, SiteWithheld | SiteRefused)]
    last = max(kept, key=lambda word: word.at, default=None)
    if last is None:
        return ""
    if isinstance(last, SiteWithheld):
        return f"Its own policy kept its trainer from {last.federation} at {_instant(last.at)}: {last.because}"
    return f"The federation {last.federation} did not admit it at {_instant(last.at)}: {last.detail}"


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
