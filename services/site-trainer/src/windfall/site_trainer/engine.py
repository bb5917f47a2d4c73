"""The port to what trains: one model, one optimizer, one stream of data, a step at a time."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from torch import Tensor

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class StepReport:
    """What one inner step did."""

    tokens: int
    """Tokens trained on; 0 when the step was skipped."""
    loss_nats: float
    """Mean loss per token before the update. Not finite, perhaps, when the step was skipped."""
    skipped: bool
    """The loss or a gradient was not finite and no update was made; the batch is not tried again."""


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

    def after(self, report: StepReport) -> "Progress":
        if report.skipped:
            return replace(self, skipped=self.skipped + 1)
        tokens = self.tokens + report.tokens
        mean = self.loss_nats + (report.loss_nats - self.loss_nats) * report.tokens / tokens
        return Progress(self.steps + 1, tokens, mean, self.skipped)


class Engine(Protocol):
    """Trains from a base and says how far it came. Every method blocks; one thread at a time may call.

    A base is a flat contiguous fp32 vector on the CPU. The engine keeps it, without a copy, until the next one is
    loaded; nobody writes to it. Whatever needs a base raises ``RuntimeError`` before the first is loaded.
    """

    @property
    def progress(self) -> Progress:
        """What was trained since the base was loaded, restored work included."""

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        """Start from this base with no progress. The inner optimizer's state and the data's cursor are kept.

        Args:
            tokens: what the whole federation had trained when the round opened.
            sites: how many train in it; each is taken to be as fast as this one, so that learning rates follow
                ``tokens + sites × own tokens since``.

        Raises:
            ValueError: the vector does not fit the model; nothing was changed.
        """

    def step(self, micro_batch: int) -> StepReport:
        """One inner step on the next ``micro_batch`` samples."""

    def pseudo_gradient(self) -> Tensor:
        """base − local: a new flat fp32 vector."""

    def model_digest(self) -> str:
        """SHA-256 of the local parameters as they are now, as :func:`windfall.lowcomm.layout.digest` takes it."""

    def save(self, path: Path) -> None:
        """Write a checkpoint: local parameters, the base's digest, optimizer state, cursor and progress.

        Atomic: the file is the old one or the new one at any instant, and on disk when this returns.

        Raises:
            OSError: it could not be written; the old file is as it was.
        """

    def restore(self, path: Path, base_digest: str) -> bool:
        """Go on from a checkpoint, after loading the base that has ``base_digest``.

        True when local parameters, optimizer state, cursor and progress came back. False when there is nothing to go on
        from: no file, a corrupt or foreign one (the log says why), or one that stands on another base. In the last case
        the optimizer state and the cursor do come back, as they outlive a round.
        """
