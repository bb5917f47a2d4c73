"""What dishonest sites do to a federation: each attack with what it changes, and how it is told in a line."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

Lie = Callable[[Tensor, Mapping[str, Tensor]], Tensor]
"""From what was trained, and from what each honest site said last, to what is said."""


@dataclass(frozen=True)
class Attack:
    """One way to be dishonest.

    Attributes:
        lie: about what was trained; none says it as it is.
        poison: of the dishonest sites' data, and which share of it.
        nan: the bytes on the wire are no numbers.
        claims: how many times as many tokens as were trained are told.
        again: what a dishonest site said first it says for ever.
        loss: that is told instead of the one that was measured; none tells that.
        evaluation: share of the hub's held-out labels that are wrong.
        liars: of eight sites.
    """

    name: str
    lie: Lie | None = None
    poison: str = ""
    share: float = 0.0
    nan: bool = False
    claims: int = 1
    again: bool = False
    loss: float | None = None
    evaluation: float = 0.0
    liars: int = 2


def _copied(own: Tensor, others: Mapping[str, Tensor]) -> Tensor:
    """What an honest site said last, and every other site has seen in the outer log."""
    return others[min(others)].clone() if others else own


def _a_little(own: Tensor, others: Mapping[str, Tensor]) -> Tensor:
    """As far from the honest mean as the honest spread hides, in every coordinate, and all liars alike ("A Little Is
    Enough", arXiv 1902.06156, z = 1)."""
    if len(others) < 2:
        return own
    said = torch.stack(list(others.values()))
    return said.mean(0) - said.std(0)


ATTACKS: Final = (
    Attack("nobody lies"),
    Attack("sign flip", lambda own, _: -own),
    Attack("scaled −5", lambda own, _: own * -5),
    Attack("scaled −100", lambda own, _: own * -100),
    Attack("NaN", nan=True),
    Attack("claimed tokens × 1000", claims=1000),
    Attack("claimed tokens × 1000, sign flip", lambda own, _: -own, claims=1000),
    Attack("wrong labels", poison="labels", share=1.0),
    Attack("backdoor", poison="backdoor", share=0.5),
    Attack("backdoor × 4", lambda own, _: own * 4, poison="backdoor", share=0.5),
    Attack("another's, said again", _copied),
    Attack("its own first, said again", again=True),
    Attack("a loss of 0 told", loss=0.0),
    Attack("sybils, a little", _a_little),
    Attack("sybils, sign flip, three of eight", lambda own, _: -own, liars=3),
    Attack("hub's labels a quarter wrong, sign flip", lambda own, _: -own, evaluation=0.25),
)
