"""GPT-NeoX (arXiv 2204.06745) on bytes or tokens of text.

Notable: rotary positions on the first quarter of each head's dimensions (RoFormer, arXiv 2104.09864, in the halves
layout of the reference implementation); attention and MLP side by side on one residual, each behind a LayerNorm of its
own; biases; queries, keys and values fused per head; an output head that is tied to the embedding only when a setting
says so; small init (arXiv 1910.05895) everywhere but on the projections back into the residual, which take Wang's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Final, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.inner import InnerName, inner_optimizer
from windfall.tasks.presets import from_preset
from windfall.tasks.rates import RateLine, parse_rate
from windfall.tasks.task import Batch, Evaluation
from windfall.tasks.text import VOCABULARY, Corpus, TextLoader, TextRows, spread_starts
from windfall.tasks.tokens import read_corpus

NAME: Final = "gpt-neox"
ROTARY_BASE: Final = 10_000
EVALUATION_BATCH: Final = 32


def _published(vocabulary: int = 50304, **settings: object) -> dict[str, object]:
    return {"context": 2048, "vocabulary": vocabulary, **settings}


PRESETS: Final[dict[str, dict[str, object]]] = {
    "tiny": {"width": 64, "layers": 2, "heads": 4, "context": 64, "learning_rate": 8e-3},
    "small": {
        "width": 128,
        "layers": 2,
        "heads": 4,
        "context": 64,
        "optimizer": "muon",
        "learning_rate": 6e-3,
        "rate": "cosine:warmup=6e4,total=6e6,floor=0.1",
    },
    "10m": {"width": 320, "layers": 8, "heads": 5, "context": 256, "learning_rate": 1e-3},
    "160m": _published(width=768, layers=12, heads=12, learning_rate=6e-4),
    "410m": _published(width=1024, layers=24, heads=16, learning_rate=3e-4),
    "1.4b": _published(width=2048, layers=24, heads=16, learning_rate=2e-4),
    "20b": _published(width=6144, layers=44, heads=64, learning_rate=0.97e-4, vocabulary=50432),
}
"""``tiny`` for tests and a fast demo (0.13 M parameters), ``small`` for a demo (0.46 M), ``10m`` for measurements; the
large ones are Pythia's (arXiv 2304.01373, table 1) and GPT-NeoX-20B (arXiv 2204.06745, section 2)."""


class NeoxSettings(BaseModel):
    """Everything that decides the model, its training and its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    width: int = Field(ge=8, le=8192)
    """Dimensions of the residual stream."""
    layers: int = Field(ge=1, le=128)
    heads: int = Field(ge=1, le=128)
    context: int = Field(ge=2, le=8192)
    """Tokens that a window spans."""
    vocabulary: int = Field(default=VOCABULARY, ge=VOCABULARY, le=1 << 20)
    """How many tokens there are; 256 are enough for bytes."""
    tokenizer: str = ""
    """Its file: a path inside the folder of data, or an absolute one. Without it, text is read byte by byte."""
    tokenizer_sha256: str = Field(default="", pattern="^([0-9a-f]{64})?$")
    """Of the tokenizer's file, so that no site trains on tokens of another meaning."""
    tied: bool = False
    """Whether the output head is the embedding."""
    rotary_pct: float = Field(default=0.25, gt=0, le=1)
    """Share of a head's dimensions that is rotated."""
    optimizer: InnerName = "adamw"
    learning_rate: float = Field(gt=0, le=1)
    """At the highest point of the schedule."""
    rate: RateLine = "constant"
    """The learning-rate schedule, over the federation's tokens."""
    weight_decay: float = Field(default=0.1, ge=0, le=1)
    """On matrices and embeddings; biases and LayerNorms do not decay."""
    gradient_norm: float = Field(default=1.0, gt=0)
    """A step's gradient is scaled down to this norm when it is longer."""
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
        if bool(self.tokenizer) != bool(self.tokenizer_sha256):
            raise ValueError("tokenizer and tokenizer_sha256 come together; `sha256sum` of the file gives the second")
        return self


class Rotary(nn.Module):
    """Turns dimension pairs (i, i + r/2) of queries and keys by their position times 10000^(−2i/r)."""

    def __init__(self, rotary_width: int, context: int, device: str = "cpu") -> None:
        super().__init__()
        self.rotary_width = rotary_width
        frequency = ROTARY_BASE ** (-torch.arange(0, rotary_width, 2, dtype=torch.float64) / rotary_width)
        angle = torch.outer(torch.arange(context, dtype=torch.float64), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos().float().to(device), persistent=False)
        self.register_buffer("sin", angle.sin().float().to(device), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[..., positions, head width]`` in and out."""
        turned, rest = x[..., : self.rotary_width], x[..., self.rotary_width :]
        first, second = turned.chunk(2, dim=-1)
        across = torch.cat((-second, first), dim=-1)
        positions = x.shape[-2]
        cos, sin = self.get_buffer("cos")[:positions], self.get_buffer("sin")[:positions]
        # Turned in fp32 even where autocast made the projections bf16.
        return torch.cat(((turned * cos + across * sin).to(x.dtype), rest), dim=-1)


def _linear(inputs: int, outputs: int, device: str, bias: bool = True) -> nn.Linear:
    # Empty: torch's own initialisation would move the global generator.
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device=device)


class Attention(nn.Module):
    """Causal self-attention; each head's rows of the fused projection are its query, key and value."""

    def __init__(self, settings: NeoxSettings, device: str) -> None:
        super().__init__()
        self.heads = settings.heads
        self.rotary = Rotary(settings.rotary_width, settings.context, device)
        self.query_key_value = _linear(settings.width, 3 * settings.width, device)
        self.dense = _linear(settings.width, settings.width, device)

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

    def __init__(self, settings: NeoxSettings, device: str) -> None:
        super().__init__()
        width = settings.width
        self.attention_norm = nn.LayerNorm(width, device=device)
        self.attention = Attention(settings, device)
        self.mlp_norm = nn.LayerNorm(width, device=device)
        self.up = _linear(width, 4 * width, device)
        self.down = _linear(4 * width, width, device)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(self.attention_norm(x))
        transformed: Tensor = self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x + attended + transformed


class GptNeox(nn.Module):
    """Tokens ``[batch, positions]`` (int64) to logits ``[batch, positions, vocabulary]``.

    Weights are not initialised yet; on the device ``meta`` there are only shapes.
    """

    def __init__(self, settings: NeoxSettings, device: str = "cpu") -> None:
        super().__init__()
        self.settings = settings
        vocabulary, width = settings.vocabulary, settings.width
        # Empty as well; on ``meta`` torch would load its compiler to initialise it, a second and 100 MB.
        empty = torch.empty(vocabulary, width, device=device)
        self.embedding = nn.Embedding.from_pretrained(empty, freeze=False)  # type: ignore[no-untyped-call]
        self.layers = nn.ModuleList(Layer(settings, device) for _ in range(settings.layers))
        self.final_norm = nn.LayerNorm(width, device=device)
        self.head = _linear(width, vocabulary, device, bias=False)
        if settings.tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.head(self.final_norm(x))
        return logits

    @torch.no_grad()
    def initialise(self, seed: int) -> Self:
        """Draw every weight anew; the seed decides them."""
        generator = torch.Generator().manual_seed(seed)
        width, layers = self.settings.width, self.settings.layers
        small, wang = sqrt(2 / (5 * width)), 2 / (layers * sqrt(width))
        for name, parameter in self.named_parameters():
            if name.endswith(("dense.weight", "down.weight")):
                parameter.normal_(0, wang, generator=generator)
            elif parameter.ndim == 2:
                parameter.normal_(0, small, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
        return self


@dataclass(frozen=True)
class GptNeoxTask:
    """Next-token prediction with GPT-NeoX."""

    settings: NeoxSettings
    name: str = NAME

    @property
    def gradient_norm(self) -> float:
        return self.settings.gradient_norm

    def model(self, seed: int) -> nn.Module:
        return GptNeox(self.settings).initialise(seed)

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> TextLoader:
        return TextLoader(self._corpus(folder), seed, cursor)

    def rows(self, folder: Path, seed: int) -> TextRows:
        return TextRows(self._corpus(folder))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        # In fp32 where autocast made the logits bf16.
        return F.cross_entropy(model(batch.inputs).flatten(0, 1).float(), batch.targets.flatten())

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """AdamW as the paper sets it, β = (0.9, 0.95), ε = 1e-8; or Muon beside it."""
        settings = self.settings
        return inner_optimizer(
            settings.optimizer, model.named_parameters(), settings.learning_rate, settings.weight_decay
        )

    def rate(self, tokens: int) -> float:
        return parse_rate(self.settings.rate)(tokens)

    def evaluate(self, model: nn.Module, folder: Path) -> Evaluation:
        """Mean loss over held-out windows, as nats per byte of their targets where a token's bytes are known, so that
        models with different vocabularies compare."""
        corpus = self._corpus(folder)
        begins = spread_starts(self.settings.evaluation_windows, corpus.starts)
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        nats, tokens, octets = 0.0, 0, 0
        with torch.inference_mode():
            for at in range(0, len(begins), EVALUATION_BATCH):
                batch = corpus.windows(begins[at : at + EVALUATION_BATCH])
                moved = Batch(batch.inputs.to(device), batch.targets.to(device), batch.tokens)
                nats += batch.tokens * self.loss(model, moved).item()
                tokens += batch.tokens
                if corpus.octets is not None:
                    octets += int(corpus.octets[batch.targets.numpy()].sum())
        model.train(was_training)
        metric, units = ("nats per byte", octets) if octets else ("nats per token", tokens)
        return Evaluation(loss=nats / tokens, metric=metric, value=nats / units, samples=len(begins))

    def _corpus(self, folder: Path) -> Corpus:
        settings = self.settings
        tokenizer = folder / settings.tokenizer if settings.tokenizer else None
        return read_corpus(folder, settings.context, settings.vocabulary, tokenizer, settings.tokenizer_sha256)


def gpt_neox(settings: Mapping[str, object]) -> GptNeoxTask:
    """The task from its settings: a ``preset`` (``tiny`` when none is named), and whatever differs from it.

    Raises:
        ValueError: unknown preset, unknown setting, or a value out of range.
    """
    return GptNeoxTask(from_preset(NeoxSettings, PRESETS, "tiny", settings))
