"""A corpus that sites share, row by row, and the order in which an epoch goes over it.

A row is one training sample. The orders of all epochs lie end to end on one line of positions: position *p* is place
``p % rows`` of the order of epoch ``p // rows``. A coordinator leases ranges of that line, and whoever holds a copy of
the corpus, its number of rows and the seed finds the samples of a range by itself.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import nn

from windfall.tasks.ranges import Ranges
from windfall.tasks.task import Batch, DataError, Task

Positions = npt.NDArray[np.uint64]

_TURNS: Final = 6
_SHIFTS: Final = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Rows(Protocol):
    """A corpus whose samples are had by their number, in any order."""

    @property
    def rows(self) -> int:
        """How many there are, at least one. The same files and settings give the same at every site."""

    def batch(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        """Some samples.

        Args:
            numbers: of rows, in [0, ``rows``).
            positions: where each stands on the line of all epochs: what chance adds to a sample (a shift, a mirror)
                follows from the position, so that it is another one in every epoch and the same one at every site.
        """


@runtime_checkable
class SharesRows(Protocol):
    """What a task offers beside :class:`windfall.tasks.task.Task` when sites can share a corpus of its data."""

    def rows(self, folder: Path, seed: int) -> Rows:
        """The rows of a folder.

        Raises:
            DataError: the folder is missing or holds nothing to train on.
        """


class Shuffle:
    """The order of one epoch: a permutation of [0, ``rows``) that is computed place by place and never stored.

    A balanced Feistel network over the smallest even number of bits that holds ``rows``, with SplitMix64's finaliser as
    its round function and six rounds keyed by BLAKE2b of seed and epoch; what falls outside is encrypted again until it
    falls inside (cycle walking: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002).
    """

    def __init__(self, seed: int, epoch: int, rows: int) -> None:
        self._rows = np.uint64(rows)
        half = max(1, ((rows - 1).bit_length() + 1) // 2)
        self._half, self._mask = np.uint64(half), np.uint64((1 << half) - 1)
        word = blake2b(f"{seed}:rows:{epoch}".encode(), digest_size=8 * _TURNS).digest()
        self._keys = np.frombuffer(word, dtype="<u8").astype(np.uint64)

    def at(self, places: Positions) -> Positions:
        """The rows at these places of the order, uint64 of the same shape."""
        found = self._turned(places)
        while (outside := found >= self._rows).any():
            found[outside] = self._turned(found[outside])
        return found

    def _turned(self, places: Positions) -> Positions:
        left, right = places >> self._half, places & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return (left << self._half) | right


def _mixed(words: Positions) -> Positions:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014), modulo 2^64."""
    words = (words ^ (words >> _SHIFTS[0])) * _FACTORS[0]
    words = (words ^ (words >> _SHIFTS[1])) * _FACTORS[1]
    return words ^ (words >> _SHIFTS[2])


class RowLoader:
    """Hands out the samples at given positions. A :class:`windfall.tasks.task.Loader` over what was leased."""

    def __init__(self, source: Rows, seed: int, ranges: Ranges = ()) -> None:
        self._source, self._seed = source, seed
        self._left = list(ranges)
        self._shuffle: tuple[int, Shuffle] | None = None

    @property
    def cursor(self) -> int:
        """The next position; 0 when none is left."""
        return self._left[0][0] if self._left else 0

    def over(self, ranges: Ranges) -> "RowLoader":
        """The same corpus at other positions."""
        return RowLoader(self._source, self._seed, ranges)

    def batch(self, size: int, model: nn.Module) -> Batch:
        """The next ``size`` samples.

        Raises:
            ValueError: fewer are left.
        """
        positions: list[int] = []
        while len(positions) < size:
            if not self._left:
                raise ValueError(f"{size} rows are due, {len(positions)} are left of the lease")
            begin, end = self._left.pop(0)
            until = min(end, begin + size - len(positions))
            positions.extend(range(begin, until))
            if until < end:
                self._left.insert(0, (until, end))
        return self._source.batch(self._numbers(positions), positions)

    def _numbers(self, positions: list[int]) -> list[int]:
        epochs, places = np.divmod(np.array(positions, dtype=np.uint64), np.uint64(self._source.rows))
        numbers = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            numbers[here] = self._order(epoch).at(places[here])
        found: list[int] = numbers.tolist()
        return found

    def _order(self, epoch: int) -> Shuffle:
        if self._shuffle is None or self._shuffle[0] != epoch:
            self._shuffle = epoch, Shuffle(self._seed, epoch, self._source.rows)
        return self._shuffle[1]


def row_loader(task: Task, folder: Path, rows: int, seed: int) -> RowLoader:
    """What trains on a site's copy of a corpus.

    Args:
        rows: that the federation's corpus has.

    Raises:
        DataError: the task's data cannot be shared, or the copy is another corpus.
    """
    source = rows_of(task, folder, seed)
    if source.rows != rows:
        raise DataError(
            f"the corpus in {str(folder)!r} has {source.rows} rows, the federation's has {rows}. Copy it from there"
        )
    return RowLoader(source, seed)


def rows_of(task: Task, folder: Path, seed: int) -> Rows:
    """The rows of a folder.

    Raises:
        DataError: the task's data cannot be shared, or the folder holds nothing to train on.
    """
    return sharing(task).rows(folder, seed)


def sharing(task: Task) -> SharesRows:
    """The same task, as one whose data sites can share.

    Raises:
        DataError: they cannot.
    """
    if not isinstance(task, SharesRows):
        raise DataError(f"task {task.name!r} has no rows that sites could share. Let each site train its own data")
    return task
