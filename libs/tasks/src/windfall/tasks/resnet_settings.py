"""Settings of the ResNet task, and its presets."""

from functools import cached_property
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from windfall.tasks.crops import View
from windfall.tasks.rates import RateLine
from windfall.tasks.share import ShareLine

_IMAGENET: Final[dict[str, object]] = {
    "width": 64,
    "stem": "imagenet",
    "classes": 1000,
    "channels": 3,
    "size": 224,
    "margin": 16,
    "mirror": True,
    "mean": 0.449,
    "std": 0.226,
    "label_smoothing": 0.1,
    "learning_rate": 1e-3,
}
PRESETS: Final[dict[str, dict[str, object]]] = {
    "small": {
        "width": 16,
        "blocks": [1, 1, 1],
        "stem": "small",
        "classes": 10,
        "channels": 1,
        "size": 28,
        "margin": 2,
        "mean": 0.2,
        "std": 0.32,
        "learning_rate": 1e-2,
    },
    "resnet18": {**_IMAGENET, "blocks": [2, 2, 2, 2]},
    "resnet50": {**_IMAGENET, "blocks": [3, 4, 6, 3], "bottleneck": True},
}
"""``small`` for 28×28 grey images on a CPU (0.08 M parameters), the others as published (11.7 M and 25.6 M).

With ``small``, 48,000 images in batches of 32 and the rate ``cosine:warmup=1000,total=48000`` reach over 98 % on MNIST
(trained on 8,000 images, held out 2,000) in about a minute of one CPU core.
"""


class ResNetSettings(BaseModel):
    """Everything that decides the model, its data, its training and its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    width: int = Field(ge=4, le=4096)
    """Channels of the first stage; every following stage has twice as many."""
    blocks: list[int] = Field(min_length=1, max_length=8)
    """Residual blocks of each stage; every stage but the first halves rows and columns."""
    bottleneck: bool = False
    stem: Literal["small", "imagenet"]
    """``small``: 3×3 with stride 1. ``imagenet``: 7×7 with stride 2, then pooling with stride 2."""
    norm: Literal["group", "batch"] = "group"
    group_width: int = Field(default=16, ge=1, le=4096)
    """Channels that GroupNorm takes together. Small groups lose what the mean over the picture should tell."""
    classes: int = Field(ge=2, le=100_000)
    channels: Literal[1, 3]
    """Grey or colour."""
    size: int = Field(ge=8, le=1024)
    """Rows and columns of an image."""
    margin: int = Field(ge=0, le=128)
    """Training moves an image by up to so many pixels."""
    mirror: bool = False
    mean: float = Field(ge=0, le=1)
    std: float = Field(gt=0, le=1)
    """Of the data's pixels in [0, 1]. The same for all sites, whatever their own data are like."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Of the training loss (arXiv 1512.00567, section 7)."""
    learning_rate: float = Field(gt=0, le=10)
    rate: RateLine = "constant"
    """The schedule; a token is an image."""
    weight_decay: float = Field(default=0.05, ge=0, le=1)
    """On convolutions and the output matrix; biases and norms do not decay."""
    gradient_norm: float = Field(default=1.0, gt=0)
    part: ShareLine = ""
    """Which images are trained on, by their index: ``0/3``, ``0-7999``; empty: all."""
    labels: list[int] = []
    """Which labels are trained on; empty: all."""
    holdout: ShareLine = ""
    """Images that are never trained on, and alone are evaluated: ``8000-9999``, ``75-89/90``; empty: none, and all
    test images of the folder that is named for evaluation are evaluated."""
    evaluation_images: int = Field(default=10_000, ge=1, le=10_000_000)
    """At most so many, spread evenly over the test images, are looked at by one evaluation."""

    @cached_property
    def view(self) -> View:
        return View(self.size, self.margin, self.mirror, self.mean, self.std)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.norm == "group" and self.width % min(self.width, self.group_width):
            raise ValueError(f"width {self.width} is no multiple of group_width {self.group_width}")
        if not all(1 <= count <= 1000 for count in self.blocks):
            raise ValueError(f"every stage has 1 to 1000 blocks, not {self.blocks}")
        return self
