"""GPT-NeoX (arXiv 2204.06745) on bytes of text.

Notable: rotary positions on the first quarter of each head's dimensions (RoFormer, arXiv 2104.09864, in the halves
layout of the reference implementation); attention and MLP side by side on one residual, each behind a LayerNorm of its
own; biases; queries, keys and values fused per head; an output head that is not tied to the embedding; small init
(arXiv 1910.05895) everywhere but on the projections back into the residual, which take Wang's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Final, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.task import Batch
from windfall.tasks.text import VOCABULARY, TextLoader, read_text, spread_starts, windows

NAME: Final = "gpt-neox"
ROTARY_BASE: Final = 10_000
EVALUATION_BATCH: Final = 32

PRESETS: Final[dict[str, dict[str, object]]] = {
    "tiny": {"width": 64, "layers": 2, "heads": 4, "context": 64, "learning_rate": 8e-3},
    "small": {"width": 128, "layers": 2, "heads": 4, "context": 64, "learning_rate": 2e-3},
    "10m": {"width": 320, "layers": 8, "heads": 5, "context": 256, "learning_rate": 1e-3},
}
"""``tiny`` for tests and a fast demo (0.13 M parameters), ``small`` for a demo (0.46 M), ``10m`` for measurements."""


class NeoxSettings(BaseModel):
    """Everything that decides the model, its training and its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    width: int = Field(ge=8, le=8192)
    """Dimensions of the residual stream."""
    layers: int = Field(ge=1, le=128)
    heads: int = Field(ge=1, le=128)
    context: int = Field(ge=2, le=8192)
    """Bytes that a window spans."""
    rotary_pct: float = Field(default=0.25, gt=0, le=1)
    """Share of a head's dimensions that is rotated."""
    learning_rate: float = Field(gt=0, le=1)
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    """On matrices and embeddings; biases and LayerNorms do not decay."""
    evaluation_windows: int = Field(default=128, ge=1, le=100_000)
    """Held-out windows, spread evenly over the text, that one evaluation reads."""

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def rotary_width(self) -> int:
        return int(self.head_width * self.rotary_pct)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of {self.heads} heads")
        if self.rotary_width < 2 or self.rotary_width % 2:
            raise ValueError(
                f"rotary_pct {self.rotary_pct} rotates {self.rotary_width} dimensions; an even number is due"
            )
        return self


class Rotary(nn.Module):
    """Turns dimension pairs (i, i + r/2) of queries and keys by their position times 10000^(−2i/r)."""

    def __init__(self, rotary_width: int, context: int) -> None:
        super().__init__()
        self.rotary_width = rotary_width
        frequency = ROTARY_BASE ** (-torch.arange(0, rotary_width, 2, dtype=torch.float64) / rotary_width)
        angle = torch.outer(torch.arange(context, dtype=torch.float64), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[..., positions, head width]`` in and out."""
        turned, rest = x[..., : self.rotary_width], x[..., self.rotary_width :]
        first, second = turned.chunk(2, dim=-1)
        across = torch.cat((-second, first), dim=-1)
        positions = x.shape[-2]
        cos, sin = self.get_buffer("cos")[:positions], self.get_buffer("sin")[:positions]
        return torch.cat((turned * cos + across * sin, rest), dim=-1)


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    # Empty: torch's own initialisation would move the global generator.
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device="cpu")


class Attention(nn.Module):
    """Causal self-attention; each head's rows of the fused projection are its query, key and value."""

    def __init__(self, settings: NeoxSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.rotary = Rotary(settings.rotary_width, settings.context)
        self.query_key_value = _linear(settings.width, 3 * settings.width)
        self.dense = _linear(settings.width, settings.width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[batch, positions, width]`` in and out."""
        batch, positions, width = x.shape
        fused = self.query_key_value(x).view(batch, positions, self.heads, 3, width // self.heads)
        fused = fused.permute(3, 0, 2, 1, 4)  # [q k v, batch, heads, positions, head width]
        query, key = self.rotary(fused[:2]).unbind(0)
        seen = F.scaled_dot_product_attention(query, key, fused[2], is_causal=True)
        merged: Tensor = self.dense(seen.transpose(1, 2).reshape(batch, positions, width))
        return merged


class Layer(nn.Module):
    """x + attention(LN₁(x)) + MLP(LN₂(x))."""

    def __init__(self, settings: NeoxSettings) -> None:
        super().__init__()
        width = settings.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(settings)
        self.mlp_norm = nn.LayerNorm(width)
        self.up = _linear(width, 4 * width)
        self.down = _linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(self.attention_norm(x))
        transformed: Tensor = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + attended + transformed


class GptNeox(nn.Module):
    """Bytes ``[batch, positions]`` (int64) to logits ``[batch, positions, 256]``."""

    def __init__(self, settings: NeoxSettings, seed: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, settings.width, device="meta").to_empty(device="cpu")
        self.layers = nn.ModuleList(Layer(settings) for _ in range(settings.layers))
        self.final_norm = nn.LayerNorm(settings.width)
        self.head = _linear(settings.width, VOCABULARY, bias=False)
        self._initialise(settings, torch.Generator().manual_seed(seed))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.final_norm(x))
        return logits

    @torch.no_grad()
    def _initialise(self, settings: NeoxSettings, generator: torch.Generator) -> None:
        small, wang = sqrt(2 / (5 * settings.width)), 2 / (settings.layers * sqrt(settings.width))
        for name, parameter in self.named_parameters():
            if name.endswith(("dense.weight", "down.weight")):
                parameter.normal_(0, wang, generator=generator)
            elif parameter.ndim == 2:
                parameter.normal_(0, small, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()


@dataclass(frozen=True)
class GptNeoxTask:
    """Next-byte prediction with GPT-NeoX."""

    settings: NeoxSettings
    name: str = NAME

    def model(self, seed: int) -> nn.Module:
        return GptNeox(self.settings, seed)

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> TextLoader:
        return TextLoader(folder, self.settings.context, seed, cursor)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch.inputs).flatten(0, 1), batch.targets.flatten())

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW as the paper sets it: β = (0.9, 0.95), ε = 1e-8."""
        matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
        groups: list[dict[str, object]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
        return torch.optim.AdamW(
            groups,
            lr=self.settings.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def evaluate(self, model: nn.Module, folder: Path) -> float:
        context = self.settings.context
        text = read_text(folder, at_least=context + 1)
        begins = spread_starts(self.settings.evaluation_windows, len(text) - context)
        was_training = model.training
        model.eval()
        total = 0.0
        with torch.inference_mode():
            for at in range(0, len(begins), EVALUATION_BATCH):
                part = begins[at : at + EVALUATION_BATCH]
                total += len(part) * self.loss(model, windows(text, part, context)).item()
        model.train(was_training)
        return total / len(begins)


def gpt_neox(settings: Mapping[str, object]) -> GptNeoxTask:
    """The task from its settings: a ``preset`` (``tiny`` when none is named), and whatever differs from it.

    Raises:
        ValueError: unknown preset, unknown setting, or a value out of range.
    """
    own = dict(settings)
    preset = own.pop("preset", "tiny")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}; known are {', '.join(PRESETS)}")
    try:
        return GptNeoxTask(NeoxSettings.model_validate({**PRESETS[preset], **own}))
    except ValidationError as error:
        raise ValueError("; ".join(_line(mistake["loc"], mistake["msg"]) for mistake in error.errors())) from error


def _line(where: tuple[int | str, ...], problem: str) -> str:
    place = ".".join(str(part) for part in where)
    if problem == "Extra inputs are not permitted":
        problem = f"unknown setting; known are preset, {', '.join(NeoxSettings.model_fields)}"
    return f"{place}: {problem}" if place else problem.removeprefix("Value error, ")
