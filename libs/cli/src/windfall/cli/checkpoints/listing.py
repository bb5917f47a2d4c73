"""The models that a coordinator keeps, as rows, and the one that a person means."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from windfall.cli.checkpoints.door import away, explained, opened
from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.message import Message
from windfall.contracts.v1 import checkpoints_pb2 as pb
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.rpc import DEADLINE

NEWEST: Final = "newest"
BEST: Final = "best"


@dataclass(frozen=True)
class Checkpoint:
    """A model that is kept."""

    name: str
    """``federation/round``, by the round that left it."""
    federation: str
    round: int | None
    """That left it; none for what the federation began with."""
    which: tuple[str, ...]
    """newest, best, both or neither."""
    tokens_total: int | None
    """Trained by all sites until then."""
    held_out_nats: float | None
    made_at: datetime | None
    bytes_model: int
    digest: str
    """SHA-256 of its tensors' bytes end to end."""


async def listed(target: str, federation: str) -> list[Checkpoint]:
    """Every model that is kept, the newest first.

    Args:
        target: ``host:port`` of the coordinator.
        federation: its federation; empty for whichever it serves.

    Raises:
        Mistake: it cannot be reached, or refuses.
    """
    reply = await _asked(target, pb.ListCheckpointsRequest(federation=federation))
    return [row(reply.federation, one) for one in reply.checkpoints]


async def _asked(target: str, request: pb.ListCheckpointsRequest) -> pb.ListCheckpointsReply:
    """Of several that stand by for each other one answers: each is tried once."""
    tries = target.count(",") + 1
    async with opened(target) as (_, stub):
        while True:
            tries -= 1
            try:
                with explained(target):
                    return await stub.List(request, timeout=DEADLINE.total_seconds())
            except Transient as passing:
                if not tries:
                    raise away(target, passing) from passing


def row(federation: str, told: pb.Checkpoint) -> Checkpoint:
    """One as it was told."""
    number = told.starts - 1 if told.starts else None
    return Checkpoint(
        name=f"{federation}/{'beginning' if number is None else number}",
        federation=federation,
        round=number,
        which=tuple(word for word, yes in ((NEWEST, told.newest), (BEST, told.best)) if yes),
        tokens_total=told.tokens if told.HasField("tokens") else None,
        held_out_nats=told.loss_nats if told.HasField("loss_nats") else None,
        made_at=told.made_at.ToDatetime(tzinfo=UTC) if told.HasField("made_at") else None,
        bytes_model=told.bytes,
        digest=told.digest,
    )


def meant(rows: Sequence[Checkpoint], wish: str) -> Checkpoint:
    """The one that a person means by a round's number, ``best`` or ``newest``.

    Raises:
        Mistake: it is not kept, or not any more; those that are nearest are named.
    """
    if wish in (NEWEST, BEST):
        found = next((one for one in rows if wish in one.which), None)
        if found is None:
            raise Mistake(
                f"no model is the {wish} one: none was evaluated on held-out data",
                "Take --round newest, or set WINDFALL_HELD_OUT_DIR at the coordinator",
                ExitCode.RESOURCE,
            )
        return found
    number = int(wish)
    found = next((one for one in rows if one.round == number), None)
    if found is not None:
        return found
    kept = sorted((one.round for one in rows if one.round is not None), key=lambda one: (abs(one - number), one))
    gone = f"the model that round {number} left is not kept"
    if not kept:
        raise Mistake(gone, "No round was completed yet; --round newest is what they begin with", ExitCode.RESOURCE)
    others = f"; there is also {', '.join(map(str, sorted(kept[1:])))}" if kept[1:] else ""
    raise Mistake(gone, f"The nearest that is kept is --round {kept[0]}{others}", ExitCode.RESOURCE)


def _nothing(_: Rows, __: Message) -> None:
    """No event makes a row here: the coordinator itself is asked."""


CHECKPOINTS: Final = Resource(
    "checkpoints",
    "Checkpoint",
    ("checkpoint",),
    Checkpoint,
    (
        ("round", "round"),
        ("is", "which"),
        ("tokens", "tokens_total"),
        ("held out", "held_out_nats"),
        ("made", "made_at"),
        ("size", "bytes_model"),
        ("digest", "digest"),
    ),
    (("federation", "federation"),),
    (),
    _nothing,
    newest=False,
    empty="no model is kept",
)
