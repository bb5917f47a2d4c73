"""Text from a folder, byte by byte or token by token, in windows.

Without a tokenizer the tokens of text are its bytes (vocabulary of 256), so any language and encoding can be trained on
and there is nothing that sites would have to share.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from windfall.tasks.hub_datasets import is_data_set, read_data_set
from windfall.tasks.task import Batch, DataError

VOCABULARY: Final = 256
"""As many bytes as there are."""

Tokens = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
"""One-dimensional; a file's may be mapped into memory."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Stretches of tokens, each of which has room for a window; no window crosses from one to the next."""

    stretches: tuple[Tokens, ...]
    context: int
    """Tokens of which a window predicts the next."""
    octets: npt.NDArray[np.int64] | None
    """Bytes that each token of the vocabulary stands for, where that is known."""

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(len(stretch) - self.context for stretch in self.stretches))

    @property
    def starts(self) -> int:
        """How many windows there are."""
        return self._ends[-1]

    def windows(self, begins: Sequence[int]) -> Batch:
        """Cut out windows, by their numbers in [0, ``starts``).

        Returns:
            inputs and targets, int64 ``[len(begins), context]``; a target is the token that follows its input.
        """
        cut = np.empty((len(begins), self.context + 1), dtype=np.int64)
        for row, begin in zip(cut, begins, strict=True):
            number = bisect_right(self._ends, begin)
            offset = begin - (self._ends[number - 1] if number else 0)
            row[:] = self.stretches[number][offset : offset + self.context + 1]
        tokens = torch.from_numpy(cut)
        return Batch(inputs=tokens[:, :-1], targets=tokens[:, 1:], tokens=len(begins) * self.context)


def list_files(folder: Path, suffix: str) -> list[Path]:
    """The folder's files that end so, sorted by name.

    Raises:
        DataError: the folder is missing or cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == suffix and path.is_file())
    except OSError as error:
        raise _unreadable(folder, error) from error


def read_text(folder: Path) -> bytes:
    """The ``*.txt`` files of a folder, sorted by name, end to end; or a data set that ``datasets`` saved there.

    Raises:
        DataError: the folder or its text is missing or unreadable.
    """
    files = list_files(folder, ".txt")
    if not files and is_data_set(folder):
        return read_data_set(folder)
    if not files:
        raise DataError(f"no *.txt and no *.bin file in {str(folder)!r}. Put text or tokens to train on there")
    try:
        return b"".join(path.read_bytes() for path in files)
    except OSError as error:
        raise _unreadable(folder, error) from error


def text_corpus(folder: Path, tokens: Tokens, context: int, octets: npt.NDArray[np.int64]) -> Corpus:
    """The corpus of what was read from a folder as one stretch.

    Raises:
        DataError: it is too short for a window.
    """
    if len(tokens) <= context:
        raise DataError(
            f"text in {str(folder)!r} has {len(tokens)} tokens, one window needs {context + 1}. Add more text"
        )
    return Corpus((tokens,), context, octets)


def _unreadable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot read text from {str(folder)!r}: {error.strerror}. Name a folder that is there")


def random_start(seed: int, index: int, starts: int) -> int:
    """Where window number ``index`` begins, in [0, ``starts``): a counter-based generator (BLAKE2b, RFC 7693, of seed
    and index), so that any window can be had without the ones before it."""
    word = blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(word, "little") % starts


def spread_starts(count: int, starts: int) -> list[int]:
    """At most ``count`` window beginnings, evenly over [0, ``starts``), each once."""
    count = min(count, starts)
    return [index * starts // count for index in range(count)]


class TextLoader:
    """Random windows of a corpus."""

    def __init__(self, corpus: Corpus, seed: int, cursor: int = 0) -> None:
        self.cursor = cursor
        self._corpus = corpus
        self._seed = seed

    def skip(self, size: int) -> None:
        self.cursor += size

    def batch(self, size: int, model: nn.Module) -> Batch:
        starts = self._corpus.starts
        begins = [random_start(self._seed, index, starts) for index in range(self.cursor, self.cursor + size)]
        self.cursor += size
        return self._corpus.windows(begins)


class TextRows:
    """A corpus as windows side by side: every token but a stretch's first is predicted once per epoch, up to what is
    left over at a stretch's end."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        lengths = [len(stretch) for stretch in corpus.stretches]
        self._rows = (0, *accumulate((length - 1) // corpus.context for length in lengths))
        self._starts = (0, *accumulate(length - corpus.context for length in lengths))

    @property
    def rows(self) -> int:
        return self._rows[-1]

    def batch(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        begins = []
        for number in numbers:
            stretch = bisect_right(self._rows, number) - 1
            begins.append(self._starts[stretch] + (number - self._rows[stretch]) * self._corpus.context)
        return self._corpus.windows(begins)
