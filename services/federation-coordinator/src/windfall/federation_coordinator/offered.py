"""Which models are kept, and what is known of each: what people may read. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from windfall.federation_coordinator.checkpoints import Checkpoint, Kept, gone_back
from windfall.federation_coordinator.federation import Federation


@dataclass(frozen=True)
class Offered:
    """One model."""

    starts: int
    """The round that starts from it."""
    digest: str
    newest: bool
    best: bool
    """No model did better on held-out data."""
    apart: bool = False
    """It is kept for being the best alone, in a file of its own."""
    tokens_total: int | None = None
    loss_nats: float | None = None
    made_at: datetime | None = None


def offered(state: Federation, kept: Kept | None) -> tuple[Offered, ...]:
    """Every model that is kept, the newest first."""
    return tuple(_each(state, kept))


def _each(state: Federation, kept: Kept | None) -> Iterator[Offered]:
    current = kept.of(state.base_digest) if kept is not None else None
    current = current or Checkpoint(round=state.round, digest=state.base_digest)
    known = [current.again(state.round, ())]
    if kept is not None and kept.previous is not None and kept.previous.round == state.round - 1:
        known.append(kept.previous)
    best = "" if state.best is None else state.best.digest
    for one in known:
        yield _one(one, newest=one.round == state.round, best=one.digest == best)
    if state.best is not None and best not in [one.digest for one in known]:
        yield _one(gone_back(state.best, state.best.round, ()), newest=False, best=True, apart=True)


def _one(one: Checkpoint, *, newest: bool, best: bool, apart: bool = False) -> Offered:
    return Offered(one.round, one.digest, newest, best, apart, one.tokens_total, one.loss_nats, one.made_at)
