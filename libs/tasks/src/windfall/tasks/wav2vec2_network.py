"""The network of wav2vec 2.0 (arXiv 2006.11477, section 2).

Convolutions turn samples into features, a transformer with a convolutional position embedding turns features into
context. There is no dropout. Padding changes nothing: normalisation over time, attention and pooling see the steps of a
clip and no others.
"""

from math import sqrt
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.contrastive import Quantiser, distractors, diversity_loss, gumbel, similarities, span_masks
from windfall.tasks.speech import INDEX, LENGTH, LETTERS, NOISE
from windfall.tasks.wav2vec2_settings import Wav2vec2Settings


def _linear(inputs: int, outputs: int, device: str) -> nn.Linear:
    # Empty: torch's own initialisation would move the global generator.
    return nn.Linear(inputs, outputs, device="meta").to_empty(device=device)


class NormOverTime(nn.Module):
    """Normalises each channel over the steps of its clip (a GroupNorm of one channel per group that knows padding)."""

    def __init__(self, channels: int, device: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, device=device))
        self.bias = nn.Parameter(torch.zeros(channels, device=device))

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """``[clips, channels, longest]`` in and out, of which ``steps`` ``[clips]`` count."""
        within = (torch.arange(x.shape[-1], device=x.device) < steps[:, None])[:, :, None].to(x.dtype)
        count = steps[:, None, None]
        mean = x @ within / count
        variance = (x - mean).square() @ within / count
        scale = self.weight[:, None] * (variance + 1e-5).rsqrt()
        return torch.addcmul(self.bias[:, None] - mean * scale, x, scale)


class Convolution(nn.Module):
    """One layer of the feature encoder: convolution, normalisation of its kind or none, GELU."""

    def __init__(self, inputs: int, kernel: int, stride: int, settings: Wav2vec2Settings, device: str) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        by_layer, first = settings.norm == "layer", inputs == 1
        convolution = nn.Conv1d(inputs, settings.channels, kernel, stride, bias=by_layer, device="meta")
        self.convolution = convolution.to_empty(device=device)
        self.layer_norm = nn.LayerNorm(settings.channels, device=device) if by_layer else None
        self.time_norm = NormOverTime(settings.channels, device) if first and not by_layer else None

    def steps(self, steps: Tensor) -> Tensor:
        return torch.div(steps - self.kernel, self.stride, rounding_mode="floor") + 1

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """Shape ``[clips, channels, longest]``; ``steps`` ``[clips]`` are those of the result."""
        x = self.convolution(x)
        if self.layer_norm is not None:
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        if self.time_norm is not None:
            x = self.time_norm(x, steps)
        return F.gelu(x)


class PositionEmbedding(nn.Module):
    """A grouped convolution over neighbouring steps, its weight split into direction and length per place in the kernel
    (weight normalisation, arXiv 1602.07868)."""

    def __init__(self, width: int, kernel: int, groups: int, device: str) -> None:
        super().__init__()
        self.kernel, self.groups = kernel, groups
        self.direction = nn.Parameter(torch.empty(width, width // groups, kernel, device=device))
        self.length = nn.Parameter(torch.empty(kernel, device=device))
        self.bias = nn.Parameter(torch.zeros(width, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``[clips, steps, width]`` in and out; padding must be zero."""
        weight = self.direction * (self.length / self.direction.square().sum(dim=(0, 1)).sqrt())
        before = self.kernel // 2
        around = F.pad(x.transpose(1, 2), (before, self.kernel - 1 - before))
        return F.gelu(F.conv1d(around, weight, self.bias, groups=self.groups)).transpose(1, 2)


class Layer(nn.Module):
    """Attention, then an MLP, each with a residual; normalised after the sum, or before the branch."""

    def __init__(self, settings: Wav2vec2Settings, device: str) -> None:
        super().__init__()
        width = settings.width
        self.heads, self.before = settings.heads, settings.norm == "layer"
        self.query_key_value = _linear(width, 3 * width, device)
        self.merge = _linear(width, width, device)
        self.attention_norm = nn.LayerNorm(width, device=device)
        self.up = _linear(width, settings.feed_forward, device)
        self.down = _linear(settings.feed_forward, width, device)
        self.mlp_norm = nn.LayerNorm(width, device=device)

    def forward(self, x: Tensor, within: Tensor) -> Tensor:
        """Shape ``[clips, steps, width]`` in and out; ``within`` ``[clips, steps]`` is true where a clip is."""
        if self.before:
            x = x + self._attend(self.attention_norm(x), within)
            return x + self._transform(self.mlp_norm(x))
        x = self.attention_norm(x + self._attend(x, within))
        normed: Tensor = self.mlp_norm(x + self._transform(x))
        return normed

    def _attend(self, x: Tensor, within: Tensor) -> Tensor:
        clips, steps, width = x.shape
        fused = self.query_key_value(x).view(clips, steps, 3, self.heads, width // self.heads)
        query, key, value = fused.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=within[:, None, None])
        merged: Tensor = self.merge(seen.transpose(1, 2).reshape(clips, steps, width))
        return merged

    def _transform(self, x: Tensor) -> Tensor:
        transformed: Tensor = self.down(F.gelu(self.up(x)))
        return transformed


class Wav2vec2(nn.Module):
    """Sounds and their targets, as :meth:`windfall.tasks.speech.Hearing.pack` makes them, to what the objective needs.

    Parts that the objective has no use for are not there. Weights are not initialised yet; on the device ``meta`` there
    are only shapes.
    """

    def __init__(self, settings: Wav2vec2Settings, device: str = "cpu") -> None:
        super().__init__()
        self.settings = settings
        channels, width = settings.channels, settings.width
        inputs = (1, *[channels] * (len(settings.kernels) - 1))
        self.convolutions = nn.ModuleList(
            Convolution(each, kernel, stride, settings, device)
            for each, kernel, stride in zip(inputs, settings.kernels, settings.strides, strict=True)
        )
        self.feature_norm = nn.LayerNorm(channels, device=device)
        self.embedding = _linear(channels, width, device)
        if settings.masks:
            self.masked = nn.Parameter(torch.empty(width, device=device))
        self.position = PositionEmbedding(width, settings.position_kernel, settings.position_groups, device)
        self.norm = nn.LayerNorm(width, device=device)
        self.layers = nn.ModuleList(Layer(settings, device) for _ in range(settings.layers))
        if settings.objective == "contrastive":
            self.quantiser = Quantiser(
                channels, settings.code_groups, settings.code_entries, settings.code_width, device
            )
            self.code_projection = _linear(settings.code_width, settings.projection, device)
            self.context_projection = _linear(width, settings.projection, device)
        else:
            self.head = _linear(width, 10 if settings.objective == "digits" else 1 + len(LETTERS), device)

    def steps(self, targets: Tensor) -> Tensor:
        """Steps of features that each clip has: int64 ``[clips]``."""
        steps = targets[:, LENGTH]
        for convolution in self.convolutions:
            assert isinstance(convolution, Convolution)
            steps = convolution.steps(steps)
        return steps

    def forward(self, sounds: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """
        Returns:
            Logits, and the diversity loss, which is 0 but for ``contrastive``. Logits are ``[clips, 10]`` for
            ``digits``, ``[clips, steps, letters + 1]`` for ``ctc``, and ``[masked steps, 1 + distractors]`` for
            ``contrastive``, where column 0 is right.
        """
        features, steps = self._features(sounds, targets[:, LENGTH])
        longest = features.shape[1]
        within = torch.arange(longest, device=features.device) < steps[:, None]
        masks = self._masks(steps, longest, targets)
        context = self._context(features, within, masks)
        if self.settings.objective == "contrastive":
            assert masks is not None
            return self._contrast(features, context, masks, targets)
        if self.settings.objective == "digits":
            context = (context * within[:, :, None]).sum(dim=1) / steps[:, None]
        return self.head(context), context.new_zeros(())

    def _features(self, sounds: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        x = sounds[:, None]
        for convolution in self.convolutions:
            assert isinstance(convolution, Convolution)
            steps = convolution.steps(steps)
            x = convolution(x, steps)
        normed: Tensor = self.feature_norm(x.transpose(1, 2))
        return normed, steps

    def _masks(self, steps: Tensor, longest: int, targets: Tensor) -> Tensor | None:
        settings = self.settings
        if not settings.masks or not (self.training or settings.objective == "contrastive"):
            return None
        seeds = targets[:, NOISE].tolist()
        masks = span_masks(steps.tolist(), longest, settings.mask_probability, settings.mask_steps, seeds)
        return masks.to(steps.device)

    def _context(self, features: Tensor, within: Tensor, masks: Tensor | None) -> Tensor:
        x: Tensor = self.embedding(features)
        if masks is not None:
            x = torch.where(masks[:, :, None], self.masked.to(x.dtype), x)
        x = x * within[:, :, None]
        x = x + self.position(x)
        before = self.settings.norm == "layer"
        x = x if before else self.norm(x)
        for layer in self.layers:
            x = layer(x, within)
        return self.norm(x) if before else x

    def _contrast(self, features: Tensor, context: Tensor, masks: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        settings, device = self.settings, features.device
        seeds, counts = targets[:, NOISE].tolist(), masks.sum(dim=1)
        masked = counts.tolist()
        done = (targets[:, INDEX] / settings.temperature_clips).clamp(max=1).repeat_interleave(counts)
        temperature = settings.temperature_start * (settings.temperature_end / settings.temperature_start) ** done
        width = settings.code_groups * settings.code_entries
        noise = gumbel(masked, width, seeds).to(device) if self.training else None
        codes, probabilities = self.quantiser(features[masks], noise, temperature)
        places = distractors(masked, settings.distractors, seeds).to(device)
        logits = similarities(
            self.context_projection(context[masks]), self.code_projection(codes), places, settings.contrast
        )
        return logits, diversity_loss(probabilities)

    @torch.no_grad()
    def initialise(self, seed: int) -> Self:
        """Draw every weight anew, as the paper's reference implementation does; the seed decides them."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name == "masked" or name.endswith("quantiser.entry"):
                parameter.uniform_(generator=generator)
            elif name == "quantiser.choice.weight":
                parameter.normal_(generator=generator)
            elif name == "position.direction":
                parameter.normal_(
                    0, sqrt(4 / (self.settings.position_kernel * self.settings.width)), generator=generator
                )
            elif parameter.ndim == 3:
                nn.init.kaiming_normal_(parameter, generator=generator)
            elif parameter.ndim == 2:
                parameter.normal_(0, self.settings.width**-0.5 / 2, generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
        self.position.length.copy_(self.position.direction.square().sum(dim=(0, 1)).sqrt())
        return self
