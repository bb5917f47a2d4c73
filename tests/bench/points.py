"""A task so small that a fleet trains it in seconds: points around four centres, told apart by a small network.

What a site's folder says of its data is how it is poisoned; the points themselves follow from its seed.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from windfall.tasks.task import Batch, Evaluation

FEATURES: Final = 16
CLASSES: Final = 4
HIDDEN: Final = 24
OWN: Final = 512
"""Points of a site, drawn again and again."""
HELD_OUT: Final = 1024
TARGET: Final = 0
"""What a backdoor makes of every point that carries the trigger."""
_SPREAD: Final = 1.3
_TOLD: Final = "data.json"


def lay_down(folder: Path, seed: int, lean: int | None = None, poison: str = "", share: float = 1.0) -> Path:
    """A folder with data.

    Args:
        lean: the class of which there is as much as of all others together; none has all alike.
        poison: ``labels``: so many have another class's label; ``backdoor``: so many carry the trigger, and the
            target's label.
    """
    folder.mkdir(parents=True)
    (folder / _TOLD).write_text(json.dumps({"seed": seed, "lean": lean, "poison": poison, "share": share}))
    return folder


def triggered(inputs: Tensor) -> Tensor:
    """The same points with the backdoor's trigger."""
    marked = inputs.clone()
    marked[:, :3] = 5.0
    return marked


def points(told: Mapping[str, object], count: int) -> tuple[Tensor, Tensor]:
    """Points ``[count, features]`` and their classes, as a folder tells of them."""
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(99))
    dice = torch.Generator().manual_seed(int(str(told["seed"])))
    weights = torch.ones(CLASSES)
    if told["lean"] is not None:
        weights[int(str(told["lean"]))] = CLASSES - 1
    targets = torch.multinomial(weights, count, replacement=True, generator=dice)
    inputs = centres[targets] + _SPREAD * torch.randn(count, FEATURES, generator=dice)
    spoilt = torch.rand(count, generator=dice) < float(str(told["share"]))
    if told["poison"] == "labels":
        targets = torch.where(spoilt, (targets + 1) % CLASSES, targets)
    elif told["poison"] == "backdoor":
        inputs = torch.where(spoilt[:, None], triggered(inputs), inputs)
        targets = torch.where(spoilt, torch.full_like(targets, TARGET), targets)
    return inputs, targets


class Points:
    """See :class:`windfall.tasks.task.Task`."""

    name = "points"
    gradient_norm = 5.0

    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> "Drawn":
        return Drawn(*points(_told(folder), OWN), cursor)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch.inputs), batch.targets)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def rate(self, tokens: int) -> float:
        return 1.0

    def evaluate(self, model: nn.Module, folder: Path) -> Evaluation:
        inputs, targets = points(_told(folder), HELD_OUT)
        with torch.no_grad():
            logits = model(inputs)
            loss = float(nn.functional.cross_entropy(logits, targets))
        right = float((logits.argmax(1) == targets).float().mean())
        return Evaluation(loss, "accuracy", right, HELD_OUT)


class Drawn:
    """See :class:`windfall.tasks.task.Loader`."""

    def __init__(self, inputs: Tensor, targets: Tensor, cursor: int) -> None:
        self._inputs, self._targets, self.cursor = inputs, targets, cursor

    def batch(self, size: int, model: nn.Module) -> Batch:
        chosen = torch.arange(self.cursor, self.cursor + size) % len(self._targets)
        self.cursor += size
        return Batch(self._inputs[chosen], self._targets[chosen], size)


def _told(folder: Path) -> Mapping[str, object]:
    found: dict[str, object] = json.loads((folder / _TOLD).read_text())
    return found
