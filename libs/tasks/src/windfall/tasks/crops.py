"""Training images as a site's model sees them: shifted and mirrored, each by its own number."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from windfall.tasks.images import Images
from windfall.tasks.order import Order, word
from windfall.tasks.task import Batch


@dataclass(frozen=True)
class View:
    """How a model looks at images: ``size`` × ``size`` pixels out of a square with ``margin`` more on every side."""

    size: int
    margin: int
    """A training image is moved by up to so many pixels, up or down and left or right (as in section 4.2 of arXiv
    1512.03385)."""
    mirror: bool
    """Every other training image is mirrored."""
    mean: float
    std: float
    """Of pixels in [0, 1]; an input is (pixel − mean) / std."""

    @property
    def side(self) -> int:
        return self.size + 2 * self.margin

    def middle(self, images: Images, indices: Tensor) -> Tensor:
        """What evaluation sees: the centre, fp32 ``[len(indices), channels, size, size]``."""
        squares = images.squares(indices, self.side)
        edge = self.margin
        return self._scaled(squares[..., edge : edge + self.size, edge : edge + self.size])

    def augmented(self, images: Images, indices: Tensor, draws: list[int]) -> Tensor:
        """What training sees, moved and mirrored by the bits of a random word per image: same shape."""
        squares = images.squares(indices, self.side)
        places = 2 * self.margin + 1
        top = torch.tensor([draw % places for draw in draws])
        left = torch.tensor([draw // places % places for draw in draws])
        mirrored = torch.tensor([self.mirror and draw // places**2 % 2 == 1 for draw in draws])
        along = torch.arange(self.size)
        rows = top[:, None] + along
        columns = left[:, None] + torch.where(mirrored[:, None], along.flip(0), along)
        every = torch.arange(len(draws))[:, None, None]
        # Advanced indices around a slice put the channels last.
        cut = squares[every, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        return self._scaled(cut)

    def _scaled(self, pixels: Tensor) -> Tensor:
        return (pixels.float() / 255 - self.mean) / self.std


class ImageLoader:
    """Endless epochs over some of a folder's images.

    Args:
        indices: the site's images, int64 ``[at least 1]``.
    """

    def __init__(self, images: Images, indices: Tensor, view: View, seed: int, cursor: int = 0) -> None:
        self.cursor = cursor
        self._images = images
        self._indices = indices
        self._view = view
        self._seed = seed
        self._order = Order(seed, len(indices))

    def skip(self, size: int) -> None:
        self.cursor += size

    def batch(self, size: int, model: nn.Module) -> Batch:
        picked = self._indices[self._order.draw(self.cursor, size)]
        draws = [word(self._seed, "view", index) for index in range(self.cursor, self.cursor + size)]
        batch = Batch(self._view.augmented(self._images, picked, draws), self._images.labels[picked], tokens=size)
        self.cursor += size
        return batch


class ImageRows:
    """Some of a folder's images by their number; each is moved and mirrored anew in every epoch.

    Args:
        indices: of the images in their files, int64 ``[at least 1]``.
    """

    def __init__(self, images: Images, indices: Tensor, view: View, seed: int) -> None:
        self._images = images
        self._indices = indices
        self._view = view
        self._seed = seed

    @property
    def rows(self) -> int:
        return len(self._indices)

    def batch(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        picked = self._indices[torch.tensor(numbers)]
        draws = [word(self._seed, "view", position) for position in positions]
        return Batch(self._view.augmented(self._images, picked, draws), self._images.labels[picked], len(numbers))
