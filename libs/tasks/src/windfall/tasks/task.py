"""The door: what a model family and its data must offer to be trained by a federation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


class DataError(ValueError):
    """A site's data cannot be trained on. One line that names the cause and the cure, and never shows the data."""


@dataclass(frozen=True)
class Batch:
    """Samples of one step. ``tokens`` is what the step counts for when contributions are weighted."""

    inputs: Tensor
    targets: Tensor
    tokens: int


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on held-out data."""

    loss: float
    """Mean of what training minimises, in nats where it is a likelihood; lower is better in every family."""
    metric: str
    """What people compare models of this family by: ``nats per byte``, ``accuracy``, ``mean return``."""
    value: float
    """The metric; an accuracy is a share of 1."""
    samples: int
    """How many were looked at."""


class Loader(Protocol):
    """An endless stream of samples that is a pure function of a seed and a cursor (and, where the data comes from what
    the model does, of the model)."""

    @property
    def cursor(self) -> int:
        """Samples handed out so far: a loader opened here goes on where this one stands."""

    def batch(self, size: int, model: nn.Module) -> Batch:
        """The next ``size`` samples. Sample *i* depends on the seed and *i* alone, never on the sizes of batches.

        ``model`` is what is being trained. Only an environment looks at it, because it asks it what to do next; it
        must leave it as it was.
        """


@runtime_checkable
class Skipping(Protocol):
    """A loader that can pass over samples without reading them. It need not: where several processes of a site train
    together, each then reads what the others take, for nothing."""

    def skip(self, size: int) -> None:
        """Go on ``size`` samples later."""


class Task(Protocol):
    """A model family and its data. Coordinator and sites build it from the same name and settings."""

    @property
    def name(self) -> str:
        """The name by which :func:`windfall.tasks.registry.load_task` finds it."""

    @property
    def gradient_norm(self) -> float:
        """A step's gradient is scaled down to this Euclidean norm when it is longer."""

    def model(self, seed: int) -> nn.Module:
        """A newly initialised model on the CPU: the seed decides every weight, and torch's global generator is neither
        read nor moved. Weights may be tied; buffers may be integers."""

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> Loader:
        """Training samples from a site's folder.

        Raises:
            DataError: the folder is missing or holds nothing to train on.
        """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch, in nats per token where it is a likelihood: a scalar with a graph behind it."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The inner optimizer, whose state lives as long as the site trains. Its learning rates are those of the
        highest point of the schedule."""

    def rate(self, tokens: int) -> float:
        """The learning-rate schedule: what every learning rate is multiplied by after so many tokens of the whole
        federation, in [0, 1]. It depends on nothing else, so that sites and a run that is resumed agree."""

    def evaluate(self, model: nn.Module, folder: Path) -> Evaluation:
        """How good the model is on held-out data: bounded work, the same samples each time.

        Raises:
            DataError: the folder is missing or holds nothing to evaluate on.
        """
