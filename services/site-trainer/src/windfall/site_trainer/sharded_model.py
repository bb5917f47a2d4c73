"""A model of which every process holds a part of each weight (FSDP2), bound to the federation's layout."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from windfall.lowcomm.layout import Layout, flatten, restore
from windfall.site_trainer.flat_model import check_same
from windfall.site_trainer.shards import is_sharded, like, whole


class ShardedModel:
    """As :class:`windfall.site_trainer.flat_model.FlatModel`, but there is no vector: it is gathered when it is asked
    for, and every process must ask alike.

    Args:
        lead: this is the process that is asked for the whole; the others get an empty vector.

    Raises:
        ValueError: the model has another layout.
    """

    def __init__(self, model: nn.Module, layout: Layout, device: torch.device, lead: bool) -> None:
        check_same(model, layout)
        self.module = model.to(device)
        self._layout, self._lead = layout, lead

    @torch.no_grad()
    def put(self, flat: Tensor) -> None:
        state = self.module.state_dict()
        for name, values in restore(flat, self._layout).items():
            tensor = state[name]
            if is_sharded(tensor):
                tensor.to_local().copy_(like(values, tensor).to_local())
            else:
                tensor.copy_(values)

    @torch.no_grad()
    def take(self) -> Tensor:
        gathered = {}
        for name, tensor in self.module.state_dict().items():
            complete = whole(tensor)
            if self._lead:
                gathered[name] = complete.cpu()
        return flatten(gathered, self._layout) if self._lead else torch.empty(0)

    def aside(self) -> Callable[[], None]:
        buffers = [(buffer, buffer.clone()) for buffer in self.module.buffers()]

        def put_back() -> None:
            for buffer, before in buffers:
                buffer.copy_(before)

        return put_back
