"""Text from a folder, byte by byte, in windows.

The tokens are the bytes themselves (vocabulary of 256), so any language and encoding can be trained on and there is no
tokenizer that sites would have to share.
"""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from windfall.tasks.task import Batch, DataError

VOCABULARY: Final = 256


def read_text(folder: Path, at_least: int) -> Tensor:
    """The ``*.txt`` files of a folder, sorted by name, end to end.

    Returns:
        uint8 ``[bytes]``.

    Raises:
        DataError: the folder or its text is missing or unreadable, or shorter than ``at_least`` bytes.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix == ".txt" and path.is_file())
        text = bytearray().join(path.read_bytes() for path in files)
    except OSError as error:
        raise DataError(
            f"cannot read text from {str(folder)!r}: {error.strerror}. Name a folder that is there"
        ) from error
    if not files:
        raise DataError(f"no *.txt file in {str(folder)!r}. Put text to train on there")
    if len(text) < at_least:
        raise DataError(f"text in {str(folder)!r} has {len(text)} bytes, one window needs {at_least}. Add more text")
    return torch.frombuffer(text, dtype=torch.uint8)


def random_start(seed: int, index: int, starts: int) -> int:
    """Where window number ``index`` begins, in [0, ``starts``): a counter-based generator (BLAKE2b, RFC 7693, of seed
    and index), so that any window can be had without the ones before it."""
    word = blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return int.from_bytes(word, "little") % starts


def spread_starts(count: int, starts: int) -> list[int]:
    """At most ``count`` window beginnings, evenly over [0, ``starts``), each once."""
    count = min(count, starts)
    return [index * starts // count for index in range(count)]


def windows(text: Tensor, begins: Sequence[int], context: int) -> Batch:
    """Cut windows out of a text.

    Returns:
        inputs and targets, int64 ``[len(begins), context]``; a target is the byte that follows its input.
    """
    cut = text.unfold(0, context + 1, 1)[torch.tensor(begins)].long()
    return Batch(inputs=cut[:, :-1], targets=cut[:, 1:], tokens=len(begins) * context)


class TextLoader:
    """Random windows of a folder's text."""

    def __init__(self, folder: Path, context: int, seed: int, cursor: int = 0) -> None:
        self.cursor = cursor
        self._text = read_text(folder, at_least=context + 1)
        self._context = context
        self._seed = seed

    def batch(self, size: int) -> Batch:
        starts = len(self._text) - self._context
        begins = [random_start(self._seed, index, starts) for index in range(self.cursor, self.cursor + size)]
        self.cursor += size
        return windows(self._text, begins, self._context)
