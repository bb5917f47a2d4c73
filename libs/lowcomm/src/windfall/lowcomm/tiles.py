"""A long vector in short runs of rows, so that what is computed about it stays in the processor's cache."""

from collections.abc import Iterator
from dataclasses import dataclass

CACHED_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Tile:
    """``rows`` rows of ``width`` elements, end to end from ``begin``; ``first`` counts the rows before them."""

    begin: int
    first: int
    rows: int
    width: int

    @property
    def span(self) -> slice:
        return slice(self.begin, self.begin + self.rows * self.width)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.width


def tiles(elements: int, width: int) -> Iterator[Tile]:
    """Cut a vector into rows of ``width``; what is left over is a last tile of one shorter row."""
    rows = elements // width
    batch = max(1, CACHED_ELEMENTS // width)
    for first in range(0, rows, batch):
        yield Tile(first * width, first, min(batch, rows - first), width)
    if rest := elements % width:
        yield Tile(rows * width, rows, 1, rest)


def rows_of(elements: int, width: int) -> int:
    """How many rows the tiles have together."""
    return -(-elements // width)
