"""``windfall checkpoint verify``: a model's digest, computed anew, beside what the bus says of it."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from windfall.cli.checkpoints.fetching import Hashed, fetch
from windfall.cli.checkpoints.listing import listed, meant
from windfall.cli.checkpoints.tensors import FEDERATION, ROUND, read
from windfall.cli.server import connection, kept
from windfall.contracts.envelope import Unreadable, unseal
from windfall.contracts.events import (
    CheckpointDamaged,
    FederationFinished,
    RoundCompleted,
    RoundDiscarded,
    RoundStarted,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, subject_for
from windfall.servicekit.errors import ExitCode, Mistake

_HEARD: Final = (RoundStarted, RoundCompleted, RoundDiscarded, CheckpointDamaged, FederationFinished)
BEGINNING: Final = "beginning"


@dataclass(frozen=True)
class Word:
    """What the bus says that a round left."""

    federation: str
    round: str
    """Its number, or ``beginning``."""
    digest: str
    topic: str


def words(events: Iterable[Message]) -> Mapping[tuple[str, str, str], Word]:
    """By federation, round and event, what was said last: a round that was discarded leaves an earlier model."""
    found: dict[tuple[str, str, str], Word] = {}
    for event in events:
        left: tuple[int, str] | None = None
        match event:
            case RoundStarted(round=0):
                left = -1, event.base_digest
            case RoundCompleted():
                left = event.round, event.model_digest
            case RoundDiscarded():
                left = event.round, event.base_digest
            case CheckpointDamaged(remedy="fell-back"):
                left = event.round, event.base_digest
            case FederationFinished():
                left = event.rounds - 1, event.model_digest
        if left is None:
            continue
        number, federation = (BEGINNING if left[0] < 0 else str(left[0])), event.whom
        # A model that a round left at last stands for what was said of that round before.
        kind = FederationFinished.topic if isinstance(event, FederationFinished) else RoundCompleted.topic
        found[federation, number, kind] = Word(federation, number, left[1], event.topic)
    return found


async def verified_file(url: str, file: Path) -> str:
    """What is to be said of a file that is what the bus says.

    Raises:
        Mistake: it is not, or nothing can be said.
    """
    found = read(file)
    federation, number = found.metadata.get(FEDERATION, ""), found.metadata.get(ROUND, "")
    said = await _heard(url, federation)
    if not federation:
        return _searched(str(file), found.digest, said)
    return _compared(str(file), federation, number, found.digest, said)


async def verified_round(url: str, target: str, federation: str, wish: str, tell: Callable[[str], None]) -> str:
    """The same of a model as the coordinator hands it out; nothing is written.

    Raises:
        Mistake: it is not what the bus says, or nothing can be said, or it cannot be had.
    """
    wanted = meant(await listed(target, federation), wish)
    said = await _heard(url, wanted.federation)
    sink = Hashed()
    await fetch(target, wanted, sink, tell)
    number = BEGINNING if wanted.round is None else str(wanted.round)
    return _compared("what the coordinator hands out", wanted.federation, number, sink.digest, said)


async def _heard(url: str, federation: str) -> Mapping[tuple[str, str, str], Word]:
    subjects = [subject_for(kind, federation or "*") for kind in _HEARD]
    events: list[Message] = []
    async with connection(url) as client, aclosing(kept(client, EVENTS_STREAM, subjects)) as stream:
        async for stored in stream:
            try:
                events.append(unseal(stored.letter))
            except Unreadable:
                # `windfall events tail` shows it.
                continue
    return words(events)


def _compared(what: str, federation: str, number: str, digest: str, said: Mapping[tuple[str, str, str], Word]) -> str:
    known = [word for (of, left, _), word in said.items() if (of, left) == (federation, number)]
    model = f"the model that {federation} began with"
    if number != BEGINNING:
        model = f"the model that round {number} of {federation} left"
    if not known:
        raise Mistake(
            f"the bus says nothing of {model}; the digest is {digest}",
            "Ask the hub that trained it with --server or --context; events are kept for as long as there is room",
            ExitCode.FAILED,
        )
    for word in known:
        if word.digest != digest:
            raise Mistake(
                f"{what} is not {model}: its digest is {digest}, and {word.topic} said {word.digest}",
                f"Export it again: `windfall checkpoint export --round {number}`",
                ExitCode.DIFFERENT,
            )
    return f"{what} is {model}, as {' and '.join(word.topic for word in known)} said: {digest}"


def _searched(what: str, digest: str, said: Mapping[tuple[str, str, str], Word]) -> str:
    for word in said.values():
        if word.digest == digest:
            return _compared(what, word.federation, word.round, digest, said)
    raise Mistake(
        f"{what} is no model that the bus knows: its digest is {digest}",
        "Ask the hub that trained it with --server or --context, or export it again",
        ExitCode.DIFFERENT,
    )
