"""An optimizer's state under names that survive another order or grouping of the parameters, and another number of
processes."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from windfall.site_trainer.shards import is_sharded, like, whole

PREFIX: Final = "optimizer/"


def named(optimizer: torch.optim.Optimizer, model: nn.Module) -> Iterator[tuple[str, object]]:
    """Every value of the state as ``optimizer/<parameter>/<key>``: tensors whole, and where they live. Where each
    process holds a part, all must go through it alike."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    # In the order of the parameters: a state that was restored may be in another.
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                name = f"{PREFIX}{names[id(parameter)]}/{key}"
                yield name, whole(value) if isinstance(value, Tensor) else value


def take(optimizer: torch.optim.Optimizer, model: nn.Module, values: Mapping[str, object]) -> None:
    """Put back what was named. Learning rates and the like come from the settings of today: only the state is taken."""
    found: dict[str, dict[str, object]] = {}
    for name, value in values.items():
        parameter, key = name.removeprefix(PREFIX).rsplit("/", 1)
        found.setdefault(parameter, {})[key] = value
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    own: dict[str, Any] = optimizer.state_dict()
    own["state"] = {
        index: {key: _alike(value, parameter) for key, value in found[name].items()}
        for index, parameter in enumerate(order)
        if (name := names[id(parameter)]) in found
    }
    optimizer.load_state_dict(own)


def _alike(value: object, parameter: Tensor) -> object:
    """A whole tensor as this process holds the parameter that it belongs to."""
    if isinstance(value, Tensor) and is_sharded(parameter) and value.shape == parameter.shape:
        return like(value, parameter)
    return value
