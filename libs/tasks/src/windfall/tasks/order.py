"""The order in which a site sees its samples: every one once per epoch, by a seed."""

from hashlib import blake2b

import torch
from torch import Tensor


def word(seed: int, *counter: int | str) -> int:
    """63 random bits: a counter-based generator (BLAKE2b, RFC 7693, of seed and counter), so that any draw can be had
    without the ones before it."""
    text = ":".join(str(part) for part in (seed, *counter))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


class Order:
    """Draw *i* is place ``i % samples`` of the permutation of epoch ``i // samples``, and so depends on the seed and
    *i* alone."""

    def __init__(self, seed: int, samples: int) -> None:
        self._seed = seed
        self._samples = samples
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def draw(self, start: int, count: int) -> Tensor:
        """Draws ``start`` to ``start + count − 1``: places in [0, samples), int64 ``[count]``."""
        drawn = [torch.empty(0, dtype=torch.int64)]
        while count:
            epoch, at = divmod(start, self._samples)
            drawn.append(self._permuted(epoch)[at : at + count])
            start, count = start + len(drawn[-1]), count - len(drawn[-1])
        return torch.cat(drawn)

    def _permuted(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(word(self._seed, "epoch", epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self._samples, generator=generator)
        return self._permutation
