"""Tensors in a safetensors file that is the old one or the new one at any instant. Nothing is ever unpickled."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class Unusable(Exception):
    """A file cannot be gone on from; the text says why in one line."""


def write_whole(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file that appears under its name only when it is whole and on disk.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    draft = path.with_name(f"{path.name}.new")
    try:
        save_file(dict(tensors), draft, dict(metadata))
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except SafetensorError as error:
        draft.unlink(missing_ok=True)
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, f"not written: {error}", str(path)) from error


def read_whole(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Its metadata and its tensors.

    Raises:
        Unusable: it is cut short or no such file.
        OSError: it cannot be read; ``FileNotFoundError`` when there is none.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Unusable(f"not whole: {error}") from error
