"""Graph convolutional network (arXiv 1609.02907): what a node is, from its own features and its neighbours'.

Notable: one batch is the whole graph of a site, of which only some labelled nodes are asked for; Xavier's init; dropout
on the input of every layer; L2 on the first layer alone, as in the paper. A sparse product with the normalised
adjacency carries features along edges.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.graph import Graph, open_graph
from windfall.tasks.order import Order, word
from windfall.tasks.presets import from_preset
from windfall.tasks.rates import Rate, RateLine, parse_rate
from windfall.tasks.share import read_share
from windfall.tasks.task import Batch, DataError, Evaluation

NAME: Final = "gcn"

PRESETS: Final[dict[str, dict[str, object]]] = {
    "small": {"features": 1433, "hidden": 16, "layers": 2, "classes": 7, "norm": "none", "weight_decay": 5e-4},
    "large": {"features": 128, "hidden": 256, "layers": 3, "classes": 40, "norm": "layer", "weight_decay": 0.0},
}
"""``small`` for Cora as published (23,063 parameters); ``large`` of the size published for ogbn-arxiv (110,120), with
LayerNorm in the place of BatchNorm, whose statistics differ from site to site."""


class GcnSettings(BaseModel):
    """Everything that decides the model, its data, its training and its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    features: int = Field(ge=1, le=1_000_000)
    hidden: int = Field(ge=1, le=65_536)
    layers: int = Field(ge=1, le=64)
    classes: int = Field(ge=2, le=100_000)
    norm: Literal["none", "layer"]
    """After every layer but the last, before its relu."""
    dropout: float = Field(default=0.5, ge=0, lt=1)
    """Share of every layer's input that training sets to zero."""
    learning_rate: float = Field(default=0.01, gt=0, le=1)
    rate: RateLine = "constant"
    """The schedule; a token is a labelled node."""
    weight_decay: float = Field(ge=0, le=1)
    """L2 on the first layer's matrix, as a part of its gradient."""
    gradient_norm: float = Field(default=1.0, gt=0)
    site: int | None = Field(default=None, ge=0)
    """Training sees the nodes whose column ``site`` says so, and the edges between them; none: the whole graph.
    Evaluation always sees the whole graph."""


@dataclass(frozen=True)
class GraphBatch(Batch):
    """``inputs`` are the features of all n nodes, ``targets`` the labels of those that are asked for."""

    nodes: Tensor
    """Those that are asked for, int64 ``[tokens]``."""
    adjacency: Tensor
    """sparse fp32 ``[n, n]``, normalised."""
    dropout_seed: int


class GraphLoader:
    """The whole graph, again and again, with ``size`` of its labelled training nodes to be asked for.

    Labelled nodes come in epochs, so a size that is their number takes each once per step, as the paper does. Dropout
    follows from the seed and from the cursor at which a batch begins.
    """

    def __init__(self, graph: Graph, seed: int, cursor: int = 0) -> None:
        self.cursor = cursor
        self._graph = graph
        self._seed = seed
        self._order = Order(seed, len(graph.train))

    def skip(self, size: int) -> None:
        self.cursor += size

    def batch(self, size: int, model: nn.Module) -> GraphBatch:
        graph, start = self._graph, self.cursor
        nodes = graph.train[self._order.draw(start, size)]
        self.cursor += size
        return GraphBatch(
            graph.features, graph.labels[nodes], size, nodes, graph.adjacency, word(self._seed, "dropout", start)
        )


class Gcn(nn.Module):
    """Features ``[n, features]`` and normalised adjacency ``[n, n]`` to logits ``[n, classes]``."""

    def __init__(self, settings: GcnSettings, seed: int) -> None:
        super().__init__()
        widths = [settings.features, *[settings.hidden] * (settings.layers - 1), settings.classes]
        shapes = list(pairwise(widths))
        self.weights = nn.ParameterList(torch.empty(shape) for shape in shapes)
        self.biases = nn.ParameterList(torch.zeros(width) for width in widths[1:])
        self.norms = nn.ModuleList(
            nn.LayerNorm(width) if settings.norm == "layer" else nn.Identity() for width in widths[1:-1]
        )
        self.dropout = settings.dropout
        generator = torch.Generator().manual_seed(seed)
        for weight in self.weights:
            nn.init.xavier_uniform_(weight, generator=generator)

    def forward(self, features: Tensor, adjacency: Tensor, dropout_seed: int | None = None) -> Tensor:
        """Without a seed nothing is dropped."""
        generator = None if dropout_seed is None else torch.Generator().manual_seed(dropout_seed)
        x = features
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                x = F.relu(self.norms[layer - 1](x))
            if generator is not None and self.dropout:
                x = _dropped(x, self.dropout, generator)
            x = adjacency @ (x @ weight) + bias
        return x


def _dropped(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Some elements set to zero and the others scaled up; of a sparse matrix those that are not zero already."""
    values = x.values() if x.is_sparse else x
    # Drawn on the CPU, so that a site's accelerator does not decide what is dropped.
    kept = (torch.rand(values.shape, generator=generator) >= share).to(values.device)
    values = values * kept / (1 - share)
    if not x.is_sparse:
        return values
    return torch.sparse_coo_tensor(x.indices(), values, x.shape, is_coalesced=True, check_invariants=False)


@dataclass(frozen=True)
class GcnTask:
    """Classification of a graph's nodes with a GCN."""

    settings: GcnSettings
    name: str = NAME

    @property
    def gradient_norm(self) -> float:
        return self.settings.gradient_norm

    @cached_property
    def _rate(self) -> Rate:
        return parse_rate(self.settings.rate)

    def rate(self, tokens: int) -> float:
        return self._rate(tokens)

    def model(self, seed: int) -> nn.Module:
        return Gcn(self.settings, seed)

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> GraphLoader:
        files, share = read_share(folder)
        site = self.settings.site if share.site is None else share.site
        graph = self._open(files, site)
        if not len(graph.train):
            raise DataError(f"no node of the graph in {str(folder)!r} has a label to train on. Give it some")
        return GraphLoader(graph, seed, cursor)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        if not isinstance(batch, GraphBatch):
            raise TypeError("a GCN trains on batches of its own loader")
        device = batch.inputs.device
        # Sparse products are not there in 16 bits, and would be too coarse for sums over many neighbours.
        with torch.autocast(device.type, enabled=False):
            logits = model(batch.inputs, batch.adjacency.to(device), batch.dropout_seed if model.training else None)
            return F.cross_entropy(logits[batch.nodes.to(device)], batch.targets)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam as the paper sets it."""
        first = [parameter for name, parameter in model.named_parameters() if name == "weights.0"]
        others = [parameter for name, parameter in model.named_parameters() if name != "weights.0"]
        groups: list[dict[str, object]] = [
            {"params": first, "weight_decay": self.settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        return torch.optim.Adam(groups, lr=self.settings.learning_rate)

    def evaluate(self, model: nn.Module, folder: Path) -> Evaluation:
        """Accuracy on the test nodes of the whole graph in the folder."""
        files, _ = read_share(folder)
        graph = self._open(files, site=None)
        if not len(graph.test):
            raise DataError(f"no node of the graph in {str(folder)!r} is for test. Mark some with split 'test'")
        was_training = model.training
        device = next(model.parameters()).device
        model.eval()
        with torch.inference_mode():
            logits = model(graph.features.to(device), graph.adjacency.to(device))[graph.test.to(device)]
            labels = graph.labels[graph.test].to(device)
            loss = F.cross_entropy(logits, labels).item()
            right = int((logits.argmax(dim=1) == labels).sum())
        model.train(was_training)
        return Evaluation(loss, "accuracy", right / len(labels), len(labels))

    def _open(self, folder: Path, site: int | None) -> Graph:
        return open_graph(folder, self.settings.features, self.settings.classes, site)


def gcn(settings: Mapping[str, object]) -> GcnTask:
    """The task from its settings: a ``preset`` (``small`` when none is named), and whatever differs from it.

    Raises:
        ValueError: unknown preset, unknown setting, or a value out of range.
    """
    return GcnTask(from_preset(GcnSettings, PRESETS, "small", settings))
