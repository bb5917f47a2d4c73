"""What a disk does to files: bits that flip, blocks that are gone, ends that are cut off."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from windfall.federation_coordinator.federation import Contribution

_BLOCK: Final = 1024 * 1024
_PRIME: Final = 0x9E3779B97F4A7C15
"""Odd, so that no block's share is lost when sums are folded (2^64 over the golden ratio)."""


def checksum(path: Path) -> str:
    """64-bit sum of a file's little-endian words, folded block by block; empty when there is no such file.

    It runs at the speed of memory, several times that of SHA-256, and finds what a disk does to a file. It is no
    defence against a forger, whom nothing helps in a folder that he can write.
    """
    try:
        with path.open("rb") as file:
            total = path.stat().st_size
            while block := file.read(_BLOCK):
                words = np.frombuffer(block + bytes(-len(block) % 8), "<u8")
                total = (total * _PRIME + int(words.sum(dtype=np.uint64))) % 2**64
    except FileNotFoundError:
        return ""
    return f"{total:016x}"


def damaged_of(files: Mapping[Path, Contribution]) -> tuple[Contribution, ...]:
    """Contributions whose file is missing or has not their SHA-256 any more."""
    return tuple(one for path, one in files.items() if _sha256(path) != one.sha256)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
