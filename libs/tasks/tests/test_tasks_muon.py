from copy import deepcopy
from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from windfall.tasks.gpt_neox import gpt_neox
from windfall.tasks.inner import InnerName, inner_optimizer
from windfall.tasks.muon import MuonWithAdamW

SMALLEST = {"width": 16, "layers": 2, "heads": 2, "context": 8, "rotary_pct": 0.5}


def model_and_muon(weight_decay: float = 0.0) -> tuple[nn.Module, MuonWithAdamW]:
    task = gpt_neox({**SMALLEST, "optimizer": "muon", "weight_decay": weight_decay})
    model = task.model(seed=0)
    optimizer = task.optimizer(model)
    assert isinstance(optimizer, MuonWithAdamW)
    return model, optimizer


def give_gradients(model: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_every_parameter_has_one_optimizer_and_hidden_matrices_have_muon() -> None:
    model, optimizer = model_and_muon()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    muon, *adamw = ([names[id(each)] for each in group["params"]] for group in optimizer.param_groups)
    assert sorted(chain(muon, *adamw)) == sorted(names.values())
    assert muon == [
        f"layers.{layer}.{part}.weight"
        for layer in range(2)
        for part in ("attention.query_key_value", "attention.dense", "up", "down")
    ]
    assert adamw[0] == ["embedding.weight", "head.weight"]


def test_an_update_of_a_hidden_matrix_is_nearly_orthogonal_and_as_large_as_adamws() -> None:
    model, optimizer = model_and_muon()
    before = values(model)
    give_gradients(model)
    optimizer.step()
    for name in ("layers.0.up.weight", "layers.1.down.weight", "layers.0.attention.dense.weight"):
        update = (before[name] - model.get_parameter(name).detach()) / optimizer.param_groups[0]["lr"]
        singular = torch.linalg.svdvals(update) / (0.2 * max(update.shape) ** 0.5)
        # Newton–Schulz with these coefficients stops at singular values in about [0.7, 1.2], not at 1.
        assert singular.min() > 0.5 and singular.max() < 1.5
        assert 0.1 < update.square().mean().sqrt() < 0.3


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_loss_falls(tmp_path: Path, name: InnerName) -> None:
    (tmp_path / "verse.txt").write_text("the wind blows where it will; " * 40)
    task = gpt_neox({**SMALLEST, "optimizer": name, "learning_rate": 0.01})
    model = task.model(seed=0)
    optimizer, loader = task.optimizer(model), task.loader(tmp_path, seed=1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = task.loss(model, loader.batch(4, model))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_a_rate_of_zero_moves_nothing_in_any_group() -> None:
    model, optimizer = model_and_muon(weight_decay=0.1)
    before = values(model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    give_gradients(model)
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in values(model).items())


def test_a_state_that_is_loaded_is_gone_on_from_to_the_bit() -> None:
    model, optimizer = model_and_muon()
    for seed in range(3):
        give_gradients(model, seed)
        optimizer.step()
    other, loaded = model_and_muon()
    other.load_state_dict(model.state_dict())
    loaded.load_state_dict(deepcopy(optimizer.state_dict()))
    for each, steps in ((model, optimizer), (other, loaded)):
        give_gradients(each, seed=9)
        steps.step()
    assert all(torch.equal(tensor, values(other)[name]) for name, tensor in values(model).items())


def test_a_closure_is_called_once() -> None:
    model, optimizer = model_and_muon()
    calls: list[bool] = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        give_gradients(model)
        return 0.5

    assert optimizer.step(closure) == 0.5
    assert calls == [True]


def test_convolutions_and_frozen_weights_stay_out_of_muon() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2), nn.Linear(2, 2))
    model[2].weight.requires_grad_(False)
    optimizer = inner_optimizer("muon", model.named_parameters(), learning_rate=0.01)
    shapes = [[tuple(each.shape) for each in group["params"]] for group in optimizer.param_groups]
    assert shapes == [[(2, 2)], [(2, 1, 3, 3)], [(2,), (2,), (2,)]]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.1, 0]


def test_a_model_without_hidden_matrices_is_adamws() -> None:
    optimizer = inner_optimizer("muon", nn.LayerNorm(4).named_parameters(), learning_rate=0.01)
    assert isinstance(optimizer, torch.optim.AdamW)
