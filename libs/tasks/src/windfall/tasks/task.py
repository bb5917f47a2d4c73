"""The door: what a model family and its data must offer to be trained by a federation."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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


class Loader(Protocol):
    """An endless stream of samples that is a pure function of a seed and a cursor."""

    @property
    def cursor(self) -> int:
        """Samples handed out so far: a loader opened here goes on where this one stands."""

    def batch(self, size: int) -> Batch:
        """The next ``size`` samples. Sample *i* depends on the seed and *i* alone, never on the sizes of batches."""


class Task(Protocol):
    """A model family and its data. Coordinator and sites build it from the same name and settings."""

    @property
    def name(self) -> str:
        """The name by which :func:`windfall.tasks.registry.load_task` finds it."""

    def model(self, seed: int) -> nn.Module:
        """A newly initialised model on the CPU: the seed decides every weight, and torch's global generator is neither
        read nor moved. Every entry of its ``state_dict()`` is float32 with memory of its own."""

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> Loader:
        """Training samples from a site's folder.

        Raises:
            DataError: the folder is missing or holds nothing to train on.
        """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean loss of a batch in nats per token, a scalar with a graph behind it."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The inner optimizer, whose state lives as long as the site trains."""

    def evaluate(self, model: nn.Module, folder: Path) -> float:
        """Mean loss in nats per token on held-out data: bounded work, the same samples each time.

        Raises:
            DataError: the folder is missing or holds nothing to evaluate on.
        """
