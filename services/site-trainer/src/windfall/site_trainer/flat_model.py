"""A model and one flat vector that are the same memory, on the device that trains.

The float32 tensors of the model are views into the vector, so that loading a base, taking a pseudo-gradient and a
digest are single passes over memory, without gathering. Tensors of another dtype (a counter, say) are guests in it:
copied when the vector is written or read.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from windfall.lowcomm.layout import Layout, flatten, layout_of_model, restore, unflatten


class FlatModel:
    """A model bound to the federation's layout.

    Raises:
        ValueError: the model has another layout.
    """

    def __init__(self, model: nn.Module, layout: Layout, device: torch.device) -> None:
        check_same(model, layout)
        whole = flatten(model.state_dict(), layout)
        self.module = model.to(device)
        self.vector = whole.to(device)
        """fp32 ``[layout.elements]`` on the device; :meth:`take` brings the guests in."""
        self._exact = self.vector[layout.split.trained :]
        self._guests = Layout(tuple(spec for spec in layout.tensors if spec.dtype != "float32"))
        self._seats: dict[str, Tensor] = {}
        """Where the guests lie in the vector."""
        state = self.module.state_dict(keep_vars=True)
        for spec, offset in zip(layout.tensors, layout.offsets, strict=True):
            view = self.vector[offset : offset + spec.elements].view(spec.shape)
            if spec.dtype != "float32":
                self._seats[spec.name] = view
                continue
            for name in (spec.name, *(name for name, owner in layout.tied if owner == spec.name)):
                state[name].data = view

    def put(self, flat: Tensor) -> None:
        """Take the values of a flat fp32 vector ``[layout.elements]`` on the CPU."""
        self.vector.copy_(flat)
        self._seat_guests()

    def take(self) -> Tensor:
        """The model as a flat fp32 vector on the CPU: the model's own memory where it lives there, to be read only.

        Raises:
            ValueError: a counter has grown beyond what fp32 counts.
        """
        self._call_guests()
        return self.vector.cpu()

    def aside(self) -> Callable[[], None]:
        """Remember what no gradient moves (running statistics, counters); the way to undo what happens to it."""
        if not self._exact.numel():
            return lambda: None
        self._call_guests()
        before = self._exact.clone()

        def put_back() -> None:
            self._exact.copy_(before)
            self._seat_guests()

        return put_back

    def _call_guests(self) -> None:
        if self._seats:
            state = self.module.state_dict()
            called = flatten({name: state[name].cpu() for name in self._seats}, self._guests)
            for name, values in unflatten(called, self._guests).items():
                self._seats[name].copy_(values)

    def _seat_guests(self) -> None:
        if self._seats:
            state = self.module.state_dict()
            values = torch.cat([seat.reshape(-1).cpu() for seat in self._seats.values()])
            for name, tensor in restore(values, self._guests).items():
                state[name].copy_(tensor)


def check_same(model: nn.Module, layout: Layout) -> None:
    """Refuse a model of another layout.

    Raises:
        ValueError: naming the first difference.
    """
    own = layout_of_model(model)
    if own != layout:
        ours, theirs = (
            [f"{spec.name}{list(spec.shape)}" for spec in each.tensors] + [f"tied {name}" for name, _ in each.tied]
            for each in (own, layout)
        )
        here = next((f"{a} here, {b} there" for a, b in zip(ours, theirs, strict=False) if a != b), "their number")
        raise ValueError(f"the task's model differs from the federation's layout: {here}. Run the same version of it")
