"""How good the committed model is on data that lies on the hub and that no site trains on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout, restore
from windfall.servicekit.errors import Mistake

if TYPE_CHECKING:
    from torch import nn

    from windfall.tasks.task import Evaluation, Task


def held_out_loss(
    task: Callable[[], Task], layout: Layout, store: ModelStore, folder: Path
) -> Callable[[int], Evaluation | None]:
    """A function from a round's number to the loss, and what people compare by, of the model from which that round
    starts; none when that model has been pruned, because newer ones are there.

    Args:
        task: asked for when a model is evaluated for the first time.

    Raises:
        Mistake: from the function, when the folder holds nothing to evaluate on.
    """

    @cache
    def model() -> nn.Module:
        return task().model(seed=0)

    def evaluate(round_number: int) -> Evaluation | None:
        try:
            base = store.load(round_number)
        except FileNotFoundError:
            return None
        model().load_state_dict(restore(base, layout))
        try:
            return task().evaluate(model(), folder)
        except ValueError as error:
            raise Mistake(f"cannot evaluate: {error}", "Set WINDFALL_HELD_OUT_DIR to a folder with data") from error

    return evaluate
