"""Inner optimizers by name: what moves a site's own model between two synchronisations."""

from collections.abc import Iterable
from typing import Final, Literal

import torch
from torch import nn

from windfall.tasks.muon import MuonWithAdamW

InnerName = Literal["adamw", "muon"]
"""A field of a task's settings that names its inner optimizer."""

BETAS: Final = (0.9, 0.95)
EDGES: Final = ("embedding", "head")
"""Parts of a model that look up and that read out: their matrices are no map between hidden states."""


def inner_optimizer(
    name: InnerName,
    parameters: Iterable[tuple[str, nn.Parameter]],
    learning_rate: float,
    weight_decay: float = 0.1,
    betas: tuple[float, float] = BETAS,
    edges: tuple[str, ...] = EDGES,
) -> torch.optim.Optimizer:
    """``adamw`` (arXiv 1711.05101), or ``muon`` for hidden matrices beside AdamW for the rest.

    Both take the learning rate that was found for AdamW (:mod:`windfall.tasks.muon` says why). Matrices and higher
    tensors decay, vectors and scalars do not. Hidden are the two-dimensional tensors without a part of ``edges`` in
    their dotted name; so convolutions stay with AdamW.

    Args:
        parameters: ``model.named_parameters()``, which names a tied tensor once.
        learning_rate: at the highest point of the schedule.
    """
    trained = [(part, tensor) for part, tensor in parameters if tensor.requires_grad]
    hidden = [tensor for part, tensor in trained if tensor.ndim == 2 and not set(edges) & set(part.split("."))]
    taken = {id(tensor) for tensor in hidden} if name == "muon" else set()
    rest = [tensor for _, tensor in trained if id(tensor) not in taken]
    decaying = [tensor for tensor in rest if tensor.ndim > 1]
    others = [tensor for tensor in rest if tensor.ndim <= 1]
    adamw = torch.optim.AdamW(
        [
            {"params": group, "weight_decay": decay}
            for group, decay in ((decaying, weight_decay), (others, 0.0))
            if group
        ],
        lr=learning_rate,
        betas=betas,
        fused=True,
    )
    if not taken:
        return adamw
    # RMS of an update as AdamW's, so that one learning rate serves both.
    muon = torch.optim.Muon(hidden, lr=learning_rate, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
    return MuonWithAdamW(muon, adamw)
