"""Muon (https://kellerjordan.github.io/posts/muon/) for hidden matrices and AdamW for the rest, as one optimizer.

The arithmetic is PyTorch's own ``torch.optim.Muon``: Nesterov momentum 0.95 whose direction is orthogonalised by five
quintic Newton–Schulz steps in bf16, then scaled by 0.2·√max(rows, columns), so that the RMS of an update is that of
AdamW's and learning rate and weight decay can be those found for AdamW (Moonlight, arXiv 2502.16982, section 2.2).
What is added here is that a trainer sees a single optimizer: one list of groups, one state by parameter.
"""

from collections.abc import Callable
from typing import overload

import torch


class MuonWithAdamW(torch.optim.Optimizer):
    """Steps both over parameters that they share out between them.

    The groups of ``muon`` come first. Groups and state are one with those of the two: a learning rate that is set here,
    and a state that is loaded here, are what they go by.
    """

    def __init__(self, muon: torch.optim.Muon, adamw: torch.optim.AdamW) -> None:
        self._split = len(muon.param_groups)
        self._muon, self._adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Loading a state puts new groups and a new state in place of the old ones.
        self._muon.param_groups = self.param_groups[: self._split]
        self._adamw.param_groups = self.param_groups[self._split :]
        self._muon.state = self._adamw.state = self.state
        self._muon.step()  # type: ignore[no-untyped-call]
        self._adamw.step()
        return loss
