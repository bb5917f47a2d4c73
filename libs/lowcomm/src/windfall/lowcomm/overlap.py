"""A site that trains on while what it said is on its way, and applies what became of it a boundary later.

With Θ the global model, θ the local one and θ_said the local one as it was when the site last spoke:

- telling: Δ = Θ − θ, and θ_said ← θ;
- an update Θ → Θ' that counts what was said: θ ← θ + (Θ' − θ_said), for Θ' stands for all that θ_said knew;
- an update that does not, because what was said was refused: θ ← θ + (Θ' − Θ), and it is told again;
- an update that does not yet: θ ← θ + (Θ' − Θ) and θ_said ← θ_said + (Θ' − Θ), and it is still on its way;
- in every case Θ ← Θ'.

So the progress θ − θ_said made in the meantime is kept, is not in Θ' yet, and is what Θ' − θ tells next: every step
is told until it is counted, and counted once. This is the overlap of Streaming DiLoCo (arXiv 2501.18512) and the
one-round delay of PCCL's asynchronous DiLoCo with nothing thrown away; where those mix Θ' and θ, this moves θ. Θ is
replaced and never added to, so that it has the same bits at every site whatever the sites train meanwhile.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from windfall.lowcomm.layout import check_flat


@dataclass(frozen=True, eq=False)
class Overlap:
    """A site's view of one fragment, fp32 ``[n]`` each. ``said`` is none when nothing is on its way."""

    base: Tensor
    local: Tensor
    said: Tensor | None = None

    @property
    def gradient(self) -> Tensor:
        """What is to be told: Θ − θ. What is on its way is still in it."""
        return self.base - self.local


def begin(base: Tensor) -> Overlap:
    """A site that has just fetched the global model."""
    return Overlap(base, base.clone())


def trained(state: Overlap, local: Tensor) -> Overlap:
    """After local steps.

    Raises:
        ValueError: another length.
    """
    check_flat(local, state.base.numel())
    return replace(state, local=local)


def tell(state: Overlap) -> tuple[Overlap, Tensor]:
    """The pseudo-gradient to encode, fp32 ``[n]``, and the state in which it is on its way.

    Raises:
        ValueError: what was told before is still on its way: it would be counted twice.
    """
    if state.said is not None:
        raise ValueError("what was told last is still on its way; apply its update first")
    return replace(state, said=state.local.clone()), state.gradient


def apply(state: Overlap, new: Tensor, *, counted: bool = True) -> Overlap:
    """The next global model has arrived, and what this site told is decided.

    Args:
        new: fp32 ``[n]``, to the coordinator's bits.
        counted: whether it is in this model. If it was refused, the codec's state must be the one before encoding, or
            its error feedback lacks what was sent in vain.

    Raises:
        ValueError: another length, or an update counts what was never told.
    """
    if not counted:
        return replace(follow(state, new), said=None)
    check_flat(new, state.base.numel())
    if state.said is None:
        raise ValueError("nothing was told that this update could count")
    return Overlap(new, _moved(state.local, state.said, new))


def follow(state: Overlap, new: Tensor) -> Overlap:
    """The next global model has arrived, and whether what this site told will count (later, at the weight that its
    staleness leaves) is still open.

    Raises:
        ValueError: another length.
    """
    check_flat(new, state.base.numel())
    said = None if state.said is None else _moved(state.said, state.base, new)
    return Overlap(new, _moved(state.local, state.base, new), said)


def go_over(local: Tensor, base: Tensor, new: Tensor, counted: tuple[slice, Tensor] | None) -> Tensor:
    """The local model on the next global one, of which rounds move one fragment each: a new vector, fp32 ``[n]`` as
    all of them. What did not move in Θ stays as it is, to the bit.

    Args:
        counted: a fragment that was told and counts, in this model or a later one, and θ_said of it; none when what
            was told does not count, so that it is told again.

    Raises:
        ValueError: another length.
    """
    check_flat(new, base.numel())
    if counted is not None and counted[1].numel() == new.numel():
        return _moved(local, counted[1], new)
    after = torch.where(new == base, local, _moved(local, base, new))
    if counted is not None:
        part, said = counted
        after[part] = _moved(local[part], said, new[part])
    return after


def _moved(local: Tensor, old: Tensor, new: Tensor) -> Tensor:
    # θ' + (θ − θ_old), not θ + (θ' − θ_old): a site that did not train meanwhile stands exactly on the global model.
    return torch.add(new, local - old)
