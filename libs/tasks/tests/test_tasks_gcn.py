import json
from math import log
from pathlib import Path

import pytest
import torch
from torch import nn

from windfall.tasks.gcn import GcnTask, GraphBatch, gcn
from windfall.tasks.graph import normalised
from windfall.tasks.registry import load_task
from windfall.tasks.shipped import shipped
from windfall.tasks.task import Batch, DataError

CORA = shipped("cora")


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """A stochastic block model: 90 nodes in 3 classes, mostly connected to their own, each with 4 of 12 words that say
    little; sites are thirds of every class."""
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand(90, 90, generator=generator)
    words = torch.rand(90, 12, generator=generator)
    lines = ["id\tlabel\tsplit\tsite\twords"]
    for node in range(90):
        label = node % 3
        words[node, 4 * label : 4 * label + 4] += 0.2
        said = ",".join(str(word) for word in sorted(words[node].topk(4).indices.tolist()))
        lines.append(f"{node}\t{label}\t{'train' if node < 36 else 'test'}\t{node // 3 % 3}\t{said}")
    edges = [f"{u}\t{v}" for u in range(90) for v in range(u) if draw[u, v] < (0.2 if u % 3 == v % 3 else 0.01)]
    (tmp_path / "nodes.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "edges.tsv").write_text("\n".join(["u\tv", *edges]) + "\n")
    return tmp_path


def on_blocks(**settings: object) -> GcnTask:
    return gcn({"features": 12, "classes": 3, "learning_rate": 0.05, **settings})


@pytest.mark.parametrize(("preset", "parameters"), [("small", 23_063), ("large", 110_120)])
def test_presets_have_the_published_size(preset: str, parameters: int) -> None:
    """``large``: the count on the leaderboard of ogbn-arxiv."""
    model = gcn({"preset": preset}).model(seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_the_large_preset_steps() -> None:
    task = gcn({"preset": "large"})
    model = task.model(seed=0)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(20, 128, generator=generator)
    nodes = torch.arange(5)
    adjacency = normalised(torch.empty(2, 0, dtype=torch.int64), 20)
    loss = _step(task, model, GraphBatch(features, nodes, 5, nodes, adjacency, dropout_seed=1))
    assert 1 < loss < 10
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_layers_are_what_the_paper_writes(blocks: Path) -> None:
    """softmax(Â relu(Â X W₀) W₁), equation 9, with biases."""
    task = on_blocks()
    model = task.model(seed=0)
    batch = task.loader(blocks, seed=0).batch(4, model)
    assert isinstance(batch, GraphBatch)
    around, x = batch.adjacency.to_dense(), batch.inputs.to_dense()
    w0, w1 = (model.get_parameter(f"weights.{layer}") for layer in range(2))
    b0, b1 = (model.get_parameter(f"biases.{layer}") for layer in range(2))
    expected = around @ (torch.relu(around @ x @ w0 + b0) @ w1) + b1
    torch.testing.assert_close(model(batch.inputs, batch.adjacency), expected)
    model.eval()
    picked = nn.functional.cross_entropy(expected[batch.nodes], batch.targets)
    torch.testing.assert_close(task.loss(model, batch), picked)


def test_dropout_follows_from_seed_and_cursor(blocks: Path) -> None:
    task = on_blocks()
    model = task.model(seed=0)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    loader = task.loader(blocks, seed=3)
    losses = [task.loss(model, loader.batch(36, model)).item() for _ in range(3)]
    assert len(set(losses)) == 3
    resumed = task.loader(blocks, seed=3, cursor=72).batch(36, model)
    assert task.loss(model, resumed).item() == losses[2]
    assert task.loss(model, task.loader(blocks, seed=4).batch(36, model)).item() not in losses
    assert torch.equal(torch.get_rng_state(), before), "the global generator was moved"


def test_dropout_keeps_the_mean(blocks: Path) -> None:
    task = on_blocks(layers=1, dropout=0.3)
    model = task.model(seed=0)
    batch = task.loader(blocks, seed=0).batch(1, model)
    assert isinstance(batch, GraphBatch)
    with torch.no_grad():
        dropped = torch.stack([model(batch.inputs, batch.adjacency, seed) for seed in range(600)])
        torch.testing.assert_close(dropped.mean(dim=0), model(batch.inputs, batch.adjacency), atol=0.05, rtol=0)


def test_labelled_nodes_come_in_epochs(blocks: Path) -> None:
    task = on_blocks()
    model = task.model(seed=0)
    loader = task.loader(blocks, seed=0)
    first, second = loader.batch(36, model), loader.batch(36, model)
    assert first.tokens == 36 and loader.cursor == 72
    assert isinstance(first, GraphBatch) and isinstance(second, GraphBatch)
    assert sorted(first.nodes.tolist()) == sorted(second.nodes.tolist()) == list(range(36))
    assert torch.equal(first.targets, first.nodes % 3)
    parts = task.loader(blocks, seed=0)
    drawn = [part for size in (5, 40, 27) if isinstance(part := parts.batch(size, model), GraphBatch)]
    assert torch.equal(torch.cat([part.nodes for part in drawn]), torch.cat((first.nodes, second.nodes)))


def test_the_seed_alone_decides_the_model() -> None:
    task = on_blocks()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = task.model(seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "the global generator was moved"
    second, other = task.model(seed=7).state_dict(), task.model(seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["weights.0"], other["weights.0"])


def test_training_learns_blocks(blocks: Path) -> None:
    task = on_blocks()
    model = task.model(seed=0)
    untrained = task.evaluate(model, blocks)
    assert untrained.loss == pytest.approx(log(3), abs=0.2)
    assert (untrained.metric, untrained.samples) == ("accuracy", 54)
    loader, optimizer = task.loader(blocks, seed=0), task.optimizer(model)
    for _ in range(60):
        _step(task, model, loader.batch(36, model), optimizer)
    assert task.evaluate(model, blocks).value > 0.9


def test_evaluation_is_of_the_whole_graph_and_leaves_the_model_alone(blocks: Path) -> None:
    task = on_blocks(site=1)
    model = task.model(seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert task.evaluate(model, blocks) == on_blocks().evaluate(model, blocks)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_folder_says_whose_nodes_it_sees(blocks: Path, tmp_path: Path) -> None:
    home = tmp_path / "site"
    home.mkdir()
    (home / "share.json").write_text(json.dumps({"of": "..", "site": 2}))
    model = nn.Identity()
    own = on_blocks().loader(home, seed=0).batch(12, model)
    assert own.inputs.shape == (30, 12)
    assert torch.equal(own.targets, on_blocks(site=2).loader(blocks, seed=0).batch(12, model).targets)


def test_only_the_first_matrix_decays() -> None:
    task = on_blocks(weight_decay=0.01)
    first, others = task.optimizer(task.model(seed=0)).param_groups
    assert (first["weight_decay"], others["weight_decay"]) == (0.01, 0)
    assert [parameter.shape for parameter in first["params"]] == [(12, 16)]
    assert len(others["params"]) == 3


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_graph_without_labels_of_a_kind_is_told(blocks: Path, split: str) -> None:
    nodes = blocks / "nodes.tsv"
    nodes.write_text(nodes.read_text().replace(f"\t{split}\t", "\tnone\t"))
    task = on_blocks()
    with pytest.raises(DataError, match=f"no node of the graph in .* (has a label to train on|is for {split})"):
        task.loader(blocks, seed=0)
        task.evaluate(task.model(seed=0), blocks)


def test_a_foreign_batch_is_refused() -> None:
    task = on_blocks()
    with pytest.raises(TypeError, match="batches of its own loader"):
        task.loss(task.model(seed=0), Batch(torch.zeros(1, 12), torch.zeros(1), tokens=1))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"preset": "huge"}, "unknown preset 'huge'; known are small, large"),
        ({"depth": 3}, "depth: unknown setting; known are preset, features, hidden"),
        ({"dropout": 1.0}, "dropout: Input should be less than 1"),
        ({"site": -1}, "site: Input should be greater than or equal to 0"),
    ],
    ids=json.dumps,
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        gcn(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_small_preset_reaches_80_percent_on_cora() -> None:
    """The paper reports 81.5 % on this split after 200 steps."""
    task = load_task("gcn")
    assert isinstance(task, GcnTask)
    for seed in range(3):
        model = task.model(seed)
        loader, optimizer = task.loader(CORA, seed), task.optimizer(model)
        for _ in range(200):
            _step(task, model, loader.batch(140, model), optimizer)
        assert task.evaluate(model, CORA).value > 0.8


def _step(task: GcnTask, model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer | None = None) -> float:
    optimizer = optimizer or task.optimizer(model)
    optimizer.zero_grad()
    loss = task.loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), task.gradient_norm)
    optimizer.step()
    return loss.item()
