"""wav2vec 2.0 (arXiv 2006.11477) on recorded speech: contrastive pre-training, CTC over letters, or spoken digits.

A site trains on all speakers of its folder, or on those whom ``speakers`` names in the folder's ``share.json`` or in
the settings. Tokens are clips.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.inner import inner_optimizer
from windfall.tasks.order import word
from windfall.tasks.presets import from_preset
from windfall.tasks.rates import parse_rate
from windfall.tasks.share import read_share
from windfall.tasks.speech import LABELS, ClipLoader, Hearing, Labels, find_clips
from windfall.tasks.task import Batch, DataError, Evaluation
from windfall.tasks.text import spread_starts
from windfall.tasks.wav2vec2_network import Wav2vec2
from windfall.tasks.wav2vec2_settings import PRESETS, Objective, Wav2vec2Settings

NAME: Final = "wav2vec2"
EVALUATION_BATCH: Final = 16
LEAST_STEPS: Final = 4
"""Steps that a clip is filled up to: two that are masked, and two that tell something about them."""

LABELS_OF: Final[dict[Objective, Labels]] = {"contrastive": "none", "ctc": "letters", "digits": "digit"}
METRIC_OF: Final[dict[Objective, str]] = {
    "contrastive": "contrastive accuracy",
    "ctc": "letter error rate",
    "digits": "accuracy",
}


@dataclass(frozen=True)
class Wav2vec2Task:
    """Learns from speech: what it sounds like, which letters it is, or which digit."""

    settings: Wav2vec2Settings
    name: str = NAME

    @property
    def gradient_norm(self) -> float:
        return self.settings.gradient_norm

    def model(self, seed: int) -> nn.Module:
        return Wav2vec2(self.settings).initialise(seed)

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> ClipLoader:
        place, share = read_share(folder)
        if share.part is not None or share.labels is not None or share.site is not None:
            raise DataError(f"share.json in {str(folder)!r} divides clips by something else than of and speakers")
        clips = [clip for clip in find_clips(place, self.settings.sample_rate) if not clip.held_out]
        if not clips:
            raise DataError(f"every clip in {str(place)!r} is held out. Add some to train on")
        wanted = self.settings.speakers if share.speakers is None else share.speakers
        heard = {clip.speaker for clip in clips}
        if absent := [speaker for speaker in wanted if speaker not in heard]:
            raise DataError(f"no speaker {absent[0]!r} in {str(place)!r}; there are {', '.join(sorted(heard))}")
        chosen = [clip for clip in clips if not wanted or clip.speaker in wanted]
        return ClipLoader(chosen, self._hearing(), seed, cursor)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Nats per clip (digits), per letter (CTC), or per masked step with the weighted diversity loss added."""
        logits, diversity = model(batch.inputs, batch.targets)
        loss: Tensor = self._nats(model, logits, batch.targets) + self.settings.diversity_weight * diversity
        return loss

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam as the paper sets it, β = (0.9, 0.98), with decoupled weight decay; or Muon beside it."""
        settings = self.settings
        return inner_optimizer(
            settings.optimizer,
            model.named_parameters(),
            settings.learning_rate,
            settings.weight_decay,
            betas=(0.9, 0.98),
            edges=("embedding", "head", "quantiser", "code_projection", "context_projection"),
        )

    def rate(self, tokens: int) -> float:
        return parse_rate(self.settings.rate)(tokens)

    def evaluate(self, model: nn.Module, folder: Path) -> Evaluation:
        """Held-out clips without augmentation. Accuracies and the letter error rate are shares of 1; a masked step of
        which all distractors are its own code counts as wrong."""
        settings = self.settings
        place, _ = read_share(folder)
        clips = [clip for clip in find_clips(place, settings.sample_rate) if clip.held_out]
        if not clips:
            raise DataError(f"no clip in {str(place)!r} is held out. Add some to evaluate on")
        chosen = spread_starts(settings.evaluation_clips, len(clips))
        hearing, device = self._hearing(), next(model.parameters()).device
        was_training = model.training
        model.eval()
        nats, right, asked = 0.0, 0, 0
        with torch.inference_mode():
            for at in range(0, len(chosen), EVALUATION_BATCH):
                part = chosen[at : at + EVALUATION_BATCH]
                noises = [word(0, "evaluation", index) for index in part]
                batch = hearing.pack([clips[index] for index in part], noises, part, training=False)
                targets = batch.targets.to(device)
                logits, diversity = model(batch.inputs.to(device), targets)
                loss = self._nats(model, logits, targets) + settings.diversity_weight * diversity
                nats += len(part) * loss.item()
                counted = self._count(model, logits, targets)
                right, asked = right + counted[0], asked + counted[1]
        model.train(was_training)
        return Evaluation(nats / len(chosen), METRIC_OF[settings.objective], right / asked, len(chosen))

    def _hearing(self) -> Hearing:
        settings = self.settings
        crop = None
        if settings.objective == "contrastive" and settings.crop_s is not None:
            crop = int(settings.crop_s * settings.sample_rate)
        return Hearing(
            sample_rate=settings.sample_rate,
            labels=LABELS_OF[settings.objective],
            at_least=settings.receptive_field + (LEAST_STEPS - 1) * prod(settings.strides),
            at_most=crop,
            augment=settings.augment,
        )

    def _nats(self, model: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        match self.settings.objective:
            case "digits":
                return F.cross_entropy(logits, targets[:, LABELS])
            case "contrastive":
                return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))
            case "ctc":
                labels = targets[:, LABELS:]
                loss: Tensor = F.ctc_loss(
                    logits.log_softmax(dim=-1).transpose(0, 1),
                    labels.clamp(min=0),
                    _steps(model, targets),
                    (labels >= 0).sum(dim=1),
                    # A clip that is too short for its letters teaches nothing; it must not teach infinity.
                    zero_infinity=True,
                )
                return loss

    def _count(self, model: nn.Module, logits: Tensor, targets: Tensor) -> tuple[int, int]:
        """What the metric is the share of, and what it is a share in."""
        match self.settings.objective:
            case "digits":
                return int((logits.argmax(dim=-1) == targets[:, LABELS]).sum()), len(logits)
            case "contrastive":
                told_apart = logits[:, 1:].amax(dim=1).isfinite()
                return int(((logits.argmax(dim=-1) == 0) & told_apart).sum()), len(logits)
            case "ctc":
                said = [[label for label in row if label >= 0] for row in targets[:, LABELS:].tolist()]
                heard = [
                    collapse(row[:steps])
                    for row, steps in zip(logits.argmax(dim=-1).tolist(), _steps(model, targets).tolist(), strict=True)
                ]
                return sum(map(edits, heard, said)), sum(map(len, said))


def _steps(model: nn.Module, targets: Tensor) -> Tensor:
    whole = getattr(model, "module", model)  # what DistributedDataParallel wraps
    assert isinstance(whole, Wav2vec2)
    return whole.steps(targets)


def collapse(path: list[int]) -> list[int]:
    """The letters that a path of CTC labels stands for: repetitions once, blanks (0) not at all."""
    return [label for before, label in zip([0, *path], path, strict=False) if label not in (0, before)]


def edits(heard: list[int], said: list[int]) -> int:
    """Fewest insertions, deletions and substitutions that turn one into the other (Levenshtein)."""
    row = list(range(len(said) + 1))
    for number, letter in enumerate(heard, start=1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(said, start=1):
            diagonal, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, diagonal + (letter != other))
    return row[-1]


def wav2vec2(settings: Mapping[str, object]) -> Wav2vec2Task:
    """The task from its settings: a ``preset`` (``small`` when none is named), and whatever differs from it.

    Raises:
        ValueError: unknown preset, unknown setting, or a value out of range.
    """
    return Wav2vec2Task(from_preset(Wav2vec2Settings, PRESETS, "small", settings))
