"""ResNet (arXiv 1512.03385) on labelled images.

Version 1.5, as everybody trains it today: a bottleneck strides in its 3×3 convolution. The last normalisation of every
block begins with a gain of zero, so that a new model is shallow (arXiv 1706.02677, section 5.1). GroupNorm (arXiv
1803.08494) is the default, because batch statistics of sites whose data differ disagree, and a model that was averaged
over them then fails (arXiv 1910.00189).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.crops import ImageLoader, ImageRows
from windfall.tasks.images import Images, open_images
from windfall.tasks.inner import inner_optimizer
from windfall.tasks.presets import from_preset
from windfall.tasks.rates import Rate, parse_rate
from windfall.tasks.resnet_settings import PRESETS, ResNetSettings
from windfall.tasks.share import FILE as SHARE
from windfall.tasks.share import chosen, read_share
from windfall.tasks.task import Batch, DataError, Evaluation

NAME: Final = "resnet"
EXPANSION: Final = 4
"""A bottleneck's output has so many times the channels of its 3×3 convolution."""
EVALUATION_BATCH: Final = 250


def _convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    # Empty: torch's own initialisation would move the global generator.
    meta = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False, device="meta")
    return meta.to_empty(device="cpu")


def _norm(settings: ResNetSettings, channels: int) -> nn.Module:
    if settings.norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(max(1, channels // settings.group_width), channels)


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)), the branch being two 3×3 convolutions or a 1×1, 3×3, 1×1 bottleneck, each
    followed by a norm and all but the last by relu. The shortcut is a 1×1 convolution where shapes differ."""

    def __init__(self, settings: ResNetSettings, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width if settings.bottleneck else width
        if settings.bottleneck:
            shapes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, outputs, 1, 1)]
        else:
            shapes = [(inputs, width, 3, stride), (width, width, 3, 1)]
        self.convolutions = nn.ModuleList(_convolution(*shape) for shape in shapes)
        self.norms = nn.ModuleList(_norm(settings, shape[1]) for shape in shapes)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, 1, stride), _norm(settings, outputs))

    def forward(self, x: Tensor) -> Tensor:
        branch, last = x, len(self.norms) - 1
        for at, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            branch = norm(convolution(branch))
            branch = branch if at == last else F.relu(branch)
        return F.relu(self.shortcut(x) + branch)


class ResNet(nn.Module):
    """Images fp32 ``[batch, channels, rows, columns]`` to logits ``[batch, classes]``."""

    def __init__(self, settings: ResNetSettings, seed: int) -> None:
        super().__init__()
        imagenet = settings.stem == "imagenet"
        self.stem = _convolution(settings.channels, settings.width, 7 if imagenet else 3, 2 if imagenet else 1)
        self.stem_norm = _norm(settings, settings.width)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if imagenet else nn.Identity()
        self.blocks = nn.ModuleList()
        channels = settings.width
        for stage, count in enumerate(settings.blocks):
            width = settings.width << stage
            for block in range(count):
                self.blocks.append(Block(settings, channels, width, stride=2 if stage and not block else 1))
                channels = EXPANSION * width if settings.bottleneck else width
        self.head = nn.Linear(channels, settings.classes, device="meta").to_empty(device="cpu")
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(self, images: Tensor) -> Tensor:
        x = self.pool(F.relu(self.stem_norm(self.stem(images))))
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x.mean(dim=(2, 3)))
        return logits

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator) -> None:
        """He's for convolutions (arXiv 1502.01852, fan-out), 0.01 for the head (arXiv 1706.02677, section 5.1)."""
        for parameter in self.parameters():
            if parameter.ndim == 4:
                nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu", generator=generator)
        self.head.weight.normal_(0, 0.01, generator=generator)
        self.head.bias.zero_()
        for block in self.blocks:
            assert isinstance(block, Block)
            block.norms[-1].get_parameter("weight").zero_()


@dataclass(frozen=True)
class ResNetTask:
    """Classification of images with a ResNet."""

    settings: ResNetSettings
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
        return ResNet(self.settings, seed)

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> ImageLoader:
        images, own = self._training(folder)
        return ImageLoader(images, own, self.settings.view, seed, cursor)

    def rows(self, folder: Path, seed: int) -> ImageRows:
        _, share = read_share(folder)
        if share.part is not None or share.labels is not None:
            raise DataError(
                f"{str(folder / SHARE)!r} names a part, but sites share all rows. Name nothing but 'of' there"
            )
        images, own = self._training(folder)
        return ImageRows(images, own, self.settings.view, seed)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch.inputs), batch.targets, label_smoothing=self.settings.label_smoothing)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return inner_optimizer(
            "adamw", model.named_parameters(), self.settings.learning_rate, self.settings.weight_decay
        )

    def evaluate(self, model: nn.Module, folder: Path) -> Evaluation:
        """Accuracy on the held-out share of the folder's files, of all sites and labels, or else on its test images."""
        files, _ = read_share(folder)
        images = self._open(files, test=not self.settings.holdout)
        indices = torch.arange(len(images.labels))
        held_out = indices[chosen(self.settings.holdout, indices)] if self.settings.holdout else indices
        held_out = _spread(_some(held_out, folder, "evaluate"), self.settings.evaluation_images)
        was_training = model.training
        device = next(model.parameters()).device
        model.eval()
        loss, right = 0.0, 0
        with torch.inference_mode():
            for part in torch.split(held_out, EVALUATION_BATCH):
                labels = images.labels[part].to(device)
                logits = model(self.settings.view.middle(images, part).to(device))
                loss += F.cross_entropy(logits, labels, reduction="sum").item()
                right += int((logits.argmax(dim=1) == labels).sum())
        model.train(was_training)
        return Evaluation(loss / len(held_out), "accuracy", right / len(held_out), len(held_out))

    def _training(self, folder: Path) -> tuple[Images, Tensor]:
        """A folder's images, and which of them are the site's to train on."""
        files, share = read_share(folder)
        images = self._open(files, test=False)
        indices = torch.arange(len(images.labels))
        part = self.settings.part if share.part is None else share.part
        labels = torch.tensor(self.settings.labels if share.labels is None else share.labels, dtype=torch.int64)
        own = ~chosen(self.settings.holdout, indices)
        if part:
            own &= chosen(part, indices)
        if len(labels):
            own &= torch.isin(images.labels, labels)
        return images, _some(indices[own], folder, "train")

    def _open(self, folder: Path, test: bool) -> Images:
        settings = self.settings
        return open_images(folder, test=test, classes=settings.classes, channels=settings.channels, size=settings.size)


def _some(indices: Tensor, folder: Path, purpose: str) -> Tensor:
    if not len(indices):
        raise DataError(
            f"no image in {str(folder)!r} is left to {purpose} on. Check 'part', 'labels' and 'holdout' against its "
            "files"
        )
    return indices


def _spread(indices: Tensor, most: int) -> Tensor:
    count = min(most, len(indices))
    return indices[torch.arange(count) * len(indices) // count]


def resnet(settings: Mapping[str, object]) -> ResNetTask:
    """The task from its settings: a ``preset`` (``small`` when none is named), and whatever differs from it.

    Raises:
        ValueError: unknown preset, unknown setting, or a value out of range.
    """
    return ResNetTask(from_preset(ResNetSettings, PRESETS, "small", settings))
