"""The sizes and settings of wav2vec 2.0: the published models, and a small one for spoken digits."""

from math import prod
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from windfall.tasks.inner import InnerName
from windfall.tasks.rates import RateLine

Objective = Literal["contrastive", "ctc", "digits"]

PRESETS: Final[dict[str, dict[str, object]]] = {
    "small": {
        "objective": "digits",
        "sample_rate": 8000,
        "channels": 64,
        "kernels": (16, 8, 4, 4),
        "strides": (8, 5, 2, 2),
        "width": 96,
        "layers": 2,
        "heads": 4,
        "feed_forward": 192,
        "position_kernel": 16,
        "position_groups": 8,
        "code_entries": 32,
        "code_width": 64,
        "projection": 64,
        "mask_probability": 0.05,
        "mask_steps": 4,
        "distractors": 20,
        "temperature_clips": 20_000,
        "augment": True,
        "learning_rate": 2e-3,
        "rate": "cosine:warmup=1e3,total=3.6e4,floor=0.02",
    },
    "base": {
        "objective": "contrastive",
        "width": 768,
        "layers": 12,
        "heads": 8,
        "feed_forward": 3072,
        "code_width": 256,
        "projection": 256,
        "learning_rate": 5e-4,
        "crop_s": 15.6,
    },
    "large": {
        "objective": "contrastive",
        "norm": "layer",
        "width": 1024,
        "layers": 24,
        "heads": 16,
        "feed_forward": 4096,
        "code_width": 768,
        "projection": 768,
        "temperature_end": 0.1,
        "learning_rate": 3e-4,
        "crop_s": 20.0,
    },
}
"""``small`` for spoken digits at 8 kHz on a CPU; ``base`` (95 M parameters) and ``large`` (317 M) as published."""


class Wav2vec2Settings(BaseModel):
    """Everything that decides the model, its training and its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    objective: Objective
    sample_rate: int = Field(default=16_000, ge=1000, le=192_000)
    """Samples per second of every clip."""
    norm: Literal["group", "layer"] = "group"
    """``group`` (base): the first convolution's channels are normalised over time, and a transformer layer normalises
    after each sum. ``layer`` (large): every convolution's and every branch's inputs are normalised over channels."""
    channels: int = Field(default=512, ge=1, le=4096)
    """Of every convolution."""
    kernels: Annotated[tuple[int, ...], Field(strict=False, min_length=1, max_length=16)] = (10, 3, 3, 3, 3, 2, 2)
    strides: Annotated[tuple[int, ...], Field(strict=False, min_length=1, max_length=16)] = (5, 2, 2, 2, 2, 2, 2)
    width: int = Field(ge=8, le=8192)
    """Dimensions of the transformer."""
    layers: int = Field(ge=1, le=128)
    heads: int = Field(ge=1, le=128)
    feed_forward: int = Field(ge=1, le=32_768)
    position_kernel: int = Field(default=128, ge=1, le=1024)
    """Steps that the position embedding looks at."""
    position_groups: int = Field(default=16, ge=1, le=1024)
    mask_probability: float = Field(default=0.065, ge=0, le=1)
    """Share of the steps at which a masked span begins, in training; contrastive evaluation masks as well."""
    mask_steps: int = Field(default=10, ge=1, le=1000)
    """Length of a masked span."""
    code_groups: int = Field(default=2, ge=1, le=16)
    """Codebooks."""
    code_entries: int = Field(default=320, ge=2, le=65_536)
    """Entries of a codebook."""
    code_width: int = Field(ge=1, le=8192)
    """Dimensions of a joined code."""
    projection: int = Field(ge=1, le=8192)
    """Dimensions in which context and codes are compared."""
    distractors: int = Field(default=100, ge=1, le=1000)
    contrast: float = Field(default=0.1, gt=0)
    """κ, by which similarities are divided."""
    diversity_weight: float = Field(default=0.1, ge=0)
    temperature_start: float = Field(default=2.0, gt=0)
    """Of the Gumbel softmax at a site's first clip."""
    temperature_end: float = Field(default=0.5, gt=0)
    temperature_clips: float = Field(default=1.3e8, gt=0)
    """Clips of one site over which the temperature falls, by the same factor with each."""
    augment: bool = False
    """Whether training clips are moved, made louder or quieter, and get some noise."""
    crop_s: float | None = Field(default=None, gt=0)
    """Seconds that contrastive training cuts out of longer clips."""
    speakers: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Who is trained on; everybody in the folder when nobody is named. Evaluation always hears everybody."""
    optimizer: InnerName = "adamw"
    learning_rate: float = Field(gt=0, le=1)
    """At the highest point of the schedule."""
    rate: RateLine = "constant"
    """The learning-rate schedule, over the federation's clips."""
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    gradient_norm: float = Field(default=1.0, gt=0)
    """A step's gradient is scaled down to this norm when it is longer."""
    evaluation_clips: int = Field(default=512, ge=1, le=1_000_000)
    """Held-out clips, spread evenly over the folder, that one evaluation hears."""

    @property
    def masks(self) -> bool:
        return self.objective == "contrastive" or self.mask_probability > 0

    @property
    def receptive_field(self) -> int:
        """Samples that one step of features sees."""
        return 1 + sum((kernel - 1) * prod(self.strides[:at]) for at, kernel in enumerate(self.kernels))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.kernels) != len(self.strides):
            raise ValueError(f"{len(self.kernels)} kernels go with {len(self.strides)} strides; one each is due")
        if min(*self.kernels, *self.strides) < 1:
            raise ValueError("kernels and strides are at least 1")
        for name, divisor in (("heads", self.heads), ("position_groups", self.position_groups)):
            if self.width % divisor:
                raise ValueError(f"width {self.width} is no multiple of {divisor} {name}")
        if self.code_width % self.code_groups:
            raise ValueError(f"code_width {self.code_width} is no multiple of {self.code_groups} code_groups")
        return self
