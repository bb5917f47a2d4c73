"""A parser as the fuzzer sees it."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_ROOM = Path("/dev/shm")
_made: list[tuple[int, Path]] = []
"""Folders, and which process made each."""


@atexit.register
def clean_up() -> None:
    """Remove the folders that this process has made; a fork that ends in its own way calls it."""
    for pid, folder in _made:
        if pid == os.getpid():
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        seeds: inputs that it accepts, or nearly.
        parse: gives it an input; what it returns is nothing to us.
        refusals: what it documents to raise.
        mended: an input with its checksums put right, so that what lies behind them is reached; used for half of them.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    parse: Callable[[bytes], object]
    refusals: tuple[type[BaseException], ...] = ()
    mended: Callable[[bytes], bytes] | None = None


@dataclass
class Place:
    """A file for parsers that read one; made when it is first written."""

    suffix: str = ""
    _path: Path | None = field(default=None)

    def holding(self, data: bytes) -> Path:
        if self._path is None:
            folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_ROOM if _ROOM.is_dir() else None))
            _made.append((os.getpid(), folder))
            self._path = folder / f"input{self.suffix}"
        self._path.write_bytes(data)
        self._path.chmod(0o600)
        return self._path


def of_file(
    name: str,
    seeds: Callable[[], Sequence[bytes]],
    read: Callable[[Path], object],
    refusals: tuple[type[BaseException], ...] = (),
    suffix: str = "",
    mended: Callable[[bytes], bytes] | None = None,
) -> Target:
    """Of a parser that reads a file."""
    place = Place(suffix)
    return Target(name, seeds, lambda data: read(place.holding(data)), refusals, mended)


ANY_TEXT: Final = "surrogateescape"
"""How bytes that are no UTF-8 become a text, as Python's own command lines do."""


def text(data: bytes) -> str:
    """As a parser of text is given it."""
    return data.decode(errors=ANY_TEXT)
