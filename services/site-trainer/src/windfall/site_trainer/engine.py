"""The port to what trains: one model, one optimizer, one stream of data, a step at a time."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from windfall.servicekit.errors import Mistake
from windfall.tasks.ranges import Ranges, union

if TYPE_CHECKING:
    from torch import Tensor

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]
Sharding = Literal["ddp", "fsdp"]


class Skip(StrEnum):
    """Why a step made no update. Its batch is not tried again."""

    NOT_FINITE = "not finite"
    """Its loss or its gradient."""
    SPIKE = "spike"
    """Its loss and its gradient are far beyond those of the steps before: see ``spikes``."""
    OVERFLOW = "overflow"
    """Its scaled gradient left the range of fp16, whose scale is lowered."""


@dataclass(frozen=True)
class StepReport:
    """What one inner step did."""

    tokens: int
    """Tokens trained on; 0 when the step was skipped."""
    loss_nats: float
    """Mean loss per token before the update. Not finite, perhaps, when the step was skipped."""
    skipped: Skip | None = None
    """Why no update was made; none when one was."""
    passes: int = 1
    """Into which the step's samples were cut."""
    refused: int = 0
    """Times that memory refused a pass, so that the step was begun anew in smaller ones."""


@dataclass(frozen=True)
class Progress:
    """What was trained since the base was loaded: what a contribution is weighted by."""

    steps: int = 0
    """Updates made; skipped steps do not count."""
    tokens: int = 0
    loss_nats: float = 0.0
    """Token-weighted mean loss over the steps; 0 before the first."""
    skipped: int = 0
    """Steps without an update, because their loss or a gradient was not finite."""
    spikes: int = 0
    """Steps without an update, because they were far beyond those before."""
    overflows: int = 0
    """Steps without an update, because the scale of fp16 was too large."""
    refused: int = 0
    """Times that memory refused a pass; nothing is lost by it."""
    cursor: int = field(default=0, compare=False)
    """Samples of the site's own data that were drawn by the last step, since the site began to train: where its data
    goes on, and nothing of what was trained."""
    rows: Ranges = ()
    """Of a shared corpus that were trained, those of skipped steps included."""

    def __post_init__(self) -> None:
        # JSON knows no tuples.
        object.__setattr__(self, "rows", tuple((begin, end) for begin, end in self.rows))

    def after(self, report: StepReport) -> "Progress":
        before = replace(self, refused=self.refused + report.refused)
        match report.skipped:
            case Skip.NOT_FINITE:
                return replace(before, skipped=self.skipped + 1)
            case Skip.SPIKE:
                return replace(before, spikes=self.spikes + 1)
            case Skip.OVERFLOW:
                return replace(before, overflows=self.overflows + 1)
        tokens = self.tokens + report.tokens
        mean = self.loss_nats + (report.loss_nats - self.loss_nats) * report.tokens / tokens
        return replace(before, steps=self.steps + 1, tokens=tokens, loss_nats=mean)

    def then(self, later: "Progress") -> "Progress":
        """Both together, the second trained after the first."""
        tokens = self.tokens + later.tokens
        mean = self.loss_nats + (later.loss_nats - self.loss_nats) * later.tokens / max(1, tokens)
        return Progress(
            steps=self.steps + later.steps,
            tokens=tokens,
            loss_nats=mean,
            skipped=self.skipped + later.skipped,
            spikes=self.spikes + later.spikes,
            overflows=self.overflows + later.overflows,
            refused=self.refused + later.refused,
            cursor=max(self.cursor, later.cursor),
            rows=union(self.rows, later.rows),
        )


class Engine(Protocol):
    """Trains from a base and says how far it came. Every method blocks; one thread at a time may call.

    A base is a flat contiguous fp32 vector on the CPU. The engine keeps it, without a copy, until the next one is
    loaded; nobody writes to it. Whatever needs a base raises ``RuntimeError`` before the first is loaded.
    """

    @property
    def progress(self) -> Progress:
        """What was trained since the base was loaded, restored work included."""

    def load(self, base: "Tensor", tokens: int = 0, sites: int = 1) -> None:
        """Start from this base with no progress. The inner optimizer's state and the data's cursor are kept.

        Args:
            tokens: what the whole federation had trained when the round opened.
            sites: how many train in it; each is taken to be as fast as this one, so that learning rates follow
                ``tokens + sites × own tokens since``.

        Raises:
            ValueError: the vector does not fit the model; nothing was changed.
        """

    def step(self, micro_batch: int) -> StepReport:
        """One inner step on the next samples: ``micro_batch`` for each process that trains.

        It is made in passes that fit into memory: what is learnt of that is kept for the rest of the run, and in
        checkpoints.

        Raises:
            MemoryError, torch.OutOfMemoryError: not even one sample fits.
        """

    def pseudo_gradient(self) -> "Tensor":
        """base − local: a new flat fp32 vector."""

    def model_digest(self) -> str:
        """SHA-256 of the local parameters as they are now, as :func:`windfall.lowcomm.layout.digest` takes it."""

    def snapshot(self) -> Callable[[Path], None]:
        """What a checkpoint holds, as it is now, and the way to write it, which any thread may go while training goes
        on: local parameters, the base's digest, optimizer state, cursor and progress. The cursor is all that there is
        of chance: the order of the data and a model's own draws follow from it and the seed.

        What was written before is kept beside it, as ``<name>.previous``. Each file is whole or not there at any
        instant, and on disk when the writer returns. One snapshot is written at a time.

        The writer raises:
            OSError: it could not be written; what was there is as it was.
        """

    def save(self, path: Path) -> None:
        """A snapshot, written at once; raises what its writer does."""

    def restore(self, path: Path, base_digest: str) -> bool:
        """Go on from a checkpoint, after loading the base that has ``base_digest``.

        The newest whole file counts: when it is corrupt, the one before. True when local parameters, optimizer state,
        cursor and progress came back. False when there is nothing to go on from: no file, a corrupt or foreign one (the
        log says why), or one that stands on another base. In the last case the optimizer state and the cursor do come
        back, as they outlive a round.
        """


@runtime_checkable
class TrainsRows(Protocol):
    """What an engine offers beside when it can train on given rows of a shared corpus."""

    def step_on(self, rows: Ranges) -> StepReport:
        """One inner step on these rows: on all of them, however many they are. Progress names them afterwards, even
        when the step was skipped."""


@runtime_checkable
class Tunes(Protocol):
    """What an engine offers beside when the way it passes through a step's samples can be changed between steps."""

    def tune(self, accumulation: int, precision: Precision) -> None:
        """From the next step on: so many passes at least, in this precision.

        Raises:
            ValueError: to ``fp16`` or from it; its gradient scale is there from the beginning.
        """


@runtime_checkable
class TrainsOn(Protocol):
    """What an engine offers beside when it can train on while what it trained is on its way, by the mathematics of
    :mod:`windfall.lowcomm.overlap`. Loading a base forgets that anything was told."""

    def tell(self, part: slice | None = None) -> None:
        """What was trained until now is on its way: progress begins anew, and is what is trained from now on. A
        checkpoint holds both together, as if nothing had been told.

        Args:
            part: of the flat vector, where only a fragment was told; what the others have learnt is told another time,
                and counts towards no progress any more. None: all of it.

        Raises:
            RuntimeError: what was told last is still on its way.
        """

    def rebase(self, base: "Tensor", counted: bool, tokens: int = 0, sites: int = 1) -> None:
        """Go on from this base, with what was trained since telling.

        Args:
            base: as for ``load``; the last one may come again.
            counted: whether what was told counts: it belongs to this base, or to a later one. If not, it is part of
                the progress again.
            tokens, sites: as for ``load``.

        Raises:
            RuntimeError: nothing was told.
            ValueError: the vector does not fit the model; nothing was changed.
        """


def on_rows(engine: Engine) -> TrainsRows:
    """The same engine, as one that trains given rows.

    Raises:
        Mistake: it cannot.
    """
    if not isinstance(engine, TrainsRows):
        raise Mistake(
            f"a {type(engine).__name__} cannot train on rows of a shared corpus",
            "Set WINDFALL_CORPUS=sovereign at the coordinator",
        )
    return engine
