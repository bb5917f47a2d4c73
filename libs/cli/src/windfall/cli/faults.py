"""What went wrong in a run, and what came of it, from its events and from which processes were started again. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from windfall.cli.recording import Said
from windfall.contracts.events import (
    CheckpointDamaged,
    ContributionAccepted,
    ContributionRefused,
    LinkDegraded,
    NodeFailed,
    NodeReleased,
    RoundDiscarded,
    SignalRefused,
    SignalStale,
    SiteLeft,
)
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Fault:
    """One kind of trouble at one place."""

    what: str
    whom: str
    """A site, a federation, or a process by its name."""
    times: int
    came_of_it: str


_REMEDIES: Final = {
    "rebuilt": "made again, to the same digest",
    "fell-back": "the next round started from the model before",
    "left-out": "the round was merged without it",
}


def survived(said: Sequence[Said], started_again: Mapping[str, int]) -> tuple[Fault, ...]:
    """What a run has lived through, processes first, then in the order in which it happened first.

    Args:
        said: all of its events.
        started_again: how often each process died and was started again, by its name.
    """
    died = [
        Fault("a process died", name, times, "started again; its journal brought it back")
        for name, times in sorted(started_again.items())
        if times
    ]
    counted = Counter(trouble for sentence in said for trouble in _troubles(sentence.message))
    return (*died, *(Fault(what, whom, times, came) for (what, whom, came), times in counted.items()))


def _troubles(message: Message) -> Iterator[tuple[str, str, str]]:
    """What a message tells of trouble: what, whom it struck, and what came of it."""
    match message:
        case ContributionAccepted(partial=True):
            yield "left in the middle of a round", message.site, "its partial work counts by its tokens"
        case ContributionAccepted(rounds_late=late) if late:
            yield "a contribution came after its round", message.site, "merged later, for less"
        case ContributionRefused():
            yield f"a contribution was refused: {message.reason}", message.site, "the round went on without it"
        case SiteLeft(reason="silent" | "shut-out"):
            yield f"left the federation: {message.reason}", message.site, "the round went on without it"
        case NodeFailed():
            yield "no node came", message.site, f"the window passed unused: {message.reason}"
        case NodeReleased(reason="died" | "grace"):
            came = "released; what it had delivered counts"
            yield (
                {"died": "a node died", "grace": "a node was killed after its grace"}[message.reason],
                message.site,
                came,
            )
        case RoundDiscarded():
            yield "a model was discarded", message.federation, message.because
        case CheckpointDamaged():
            yield f"a checkpoint was damaged: {message.part}", message.federation, _REMEDIES[message.remedy]
        case SignalStale():
            yield "its signal fell silent", message.site, "shut, until it was fresh again"
        case SignalRefused():
            yield f"a value of its signal was refused: {message.reason}", message.site, "not believed"
        case LinkDegraded():
            yield f"its link to {message.target} was degraded", message.site, "measured on; steps follow"


def rows(faults: Iterable[Fault]) -> list[tuple[str, str, str, str]]:
    """For a table."""
    return [(fault.what, fault.whom, str(fault.times), fault.came_of_it) for fault in faults]
