"""What wav2vec 2.0 (arXiv 2006.11477, section 3) learns without labels: masks, a product quantiser, distractors.

Every random draw comes from a seed of its clip, on the CPU, so that a clip is treated alike in every batch and on every
device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.order import word


def span_mask(steps: int, probability: float, length: int, seed: int) -> Tensor:
    """Spans of ``length`` steps from a share ``probability`` of all steps, which may overlap (section 4.2 there).

    At least one span, and none longer than half of the steps.

    Returns:
        bool ``[steps]``.
    """
    generator = torch.Generator().manual_seed(seed)
    length = max(1, min(length, steps // 2))
    # Rounded up or down at random, so that the share holds on average for short clips as well.
    count = max(1, int(probability * steps + torch.rand((), generator=generator).item()))
    begins = torch.randperm(steps - length + 1, generator=generator)[:count]
    mask = torch.zeros(steps, dtype=torch.bool)
    mask[(begins[:, None] + torch.arange(length)).flatten()] = True
    return mask


def span_masks(steps: Sequence[int], longest: int, probability: float, length: int, seeds: Sequence[int]) -> Tensor:
    """bool ``[clips, longest]``; nothing is masked after the end of a clip."""
    masks = torch.zeros(len(steps), longest, dtype=torch.bool)
    for row, (own, seed) in enumerate(zip(steps, seeds, strict=True)):
        masks[row, :own] = span_mask(own, probability, length, word(seed, "mask"))
    return masks


def gumbel(masked: Sequence[int], width: int, seeds: Sequence[int]) -> Tensor:
    """Gumbel noise for so many masked steps of each clip: fp32 ``[sum(masked), width]``."""
    drawn = []
    for steps, seed in zip(masked, seeds, strict=True):
        generator = torch.Generator().manual_seed(word(seed, "gumbel"))
        uniform = torch.rand(steps, width, generator=generator).clamp_(min=1e-20)
        drawn.append(-(-uniform.log()).clamp_(min=1e-20).log())
    return torch.cat(drawn)


def distractors(masked: Sequence[int], count: int, seeds: Sequence[int]) -> Tensor:
    """For each masked step the places of ``count`` other masked steps of its clip, with replacement.

    Returns:
        int64 ``[sum(masked), count]``, places among all masked steps end to end. A clip with a single masked step has
        itself for a distractor, which :func:`similarities` leaves out.
    """
    places, begin = [], 0
    for steps, seed in zip(masked, seeds, strict=True):
        generator = torch.Generator().manual_seed(word(seed, "distractors"))
        drawn = torch.randint(max(1, steps - 1), (steps, count), generator=generator)
        if steps > 1:
            drawn += drawn >= torch.arange(steps)[:, None]
        places.append(drawn + begin)
        begin += steps
    return torch.cat(places)


class Quantiser(nn.Module):
    """Chooses one entry in each of several codebooks and joins them (product quantisation)."""

    def __init__(self, inputs: int, groups: int, entries: int, width: int, device: str) -> None:
        super().__init__()
        self.groups, self.entries = groups, entries
        self.choice = nn.Linear(inputs, groups * entries, device="meta").to_empty(device=device)
        self.entry = nn.Parameter(torch.empty(groups, entries, width // groups, device=device))

    def forward(self, features: Tensor, noise: Tensor | None, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """
        Args:
            features: ``[steps, inputs]``.
            noise: Gumbel noise ``[steps, groups × entries]``; without it the likeliest entries are chosen.
            temperature: ``[steps]``.

        Returns:
            the joined entries ``[steps, width]``, chosen hard on the way forward and by the Gumbel softmax on the way
            back (straight-through), and the probability of each entry ``[steps, groups, entries]``.
        """
        logits = self.choice(features).float()
        probabilities = logits.view(-1, self.groups, self.entries).softmax(dim=-1)
        noisy = logits if noise is None else (logits + noise) / temperature[:, None]
        soft = noisy.view(-1, self.groups, self.entries).softmax(dim=-1)
        hard = F.one_hot(soft.argmax(dim=-1), self.entries).to(soft.dtype)
        chosen = hard + (soft - soft.detach())
        return torch.einsum("nge,gew->ngw", chosen, self.entry).flatten(1), probabilities


def diversity_loss(probabilities: Tensor) -> Tensor:
    """How far the mean choice over ``[steps, groups, entries]`` is from using all entries alike, in [0, 1).

    The share of entries that lie idle: (V − exp H(p̄)) / V, averaged over groups. This is the form of the paper's
    reference implementation; equation 4 of the paper has the negative entropy itself.
    """
    mean = probabilities.mean(dim=0)
    entropy = -torch.xlogy(mean, mean).sum(dim=-1)
    return (1 - entropy.exp() / probabilities.shape[-1]).mean()


def similarities(context: Tensor, codes: Tensor, places: Tensor, temperature: float) -> Tensor:
    """Cosine of each step's context with its own code and with its distractors', by the temperature κ (equation 3).

    A distractor that is the same code as the right one is left out (−∞).

    Args:
        context: ``[steps, width]``, like ``codes``.
        places: from :func:`distractors`.

    Returns:
        ``[steps, 1 + distractors]``; the right answer is column 0.
    """
    others = codes[places]
    same = (others == codes[:, None]).all(dim=-1)
    candidates = torch.cat((codes[:, None], others), dim=1)
    cosine = F.cosine_similarity(context[:, None].float(), candidates.float(), dim=-1) / temperature
    return cosine.masked_fill(F.pad(same, (1, 0)), float("-inf"))
