"""Tensors in a safetensors file that is the old one or the new one at any instant. Nothing is ever unpickled."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from windfall.servicekit.crashpoint import reach

log = logging.getLogger(__name__)

T = TypeVar("T")


class Unusable(Exception):
    """A file cannot be gone on from; the text says why in one line."""


def write_whole(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], two: bool = False) -> None:
    """Write a file that appears under its name only when it is whole and on disk.

    Args:
        two: keep what was written before as ``<name>.previous``.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    draft = path.with_name(f"{path.name}.new")
    try:
        save_file(dict(tensors), draft, dict(metadata))
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        reach("checkpoint.synced")
        if two:
            keep_previous(path)
        reach("checkpoint.aside")
        draft.replace(path)
        reach("checkpoint.named")
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


def keep_previous(path: Path) -> None:
    """What is there by this name stays, as ``<name>.previous``, when another takes its place.

    Between the two renames nothing is there by the name: :func:`newest_whole` looks at both.
    """
    if path.is_file():
        path.replace(_previous(path))


def newest_whole(path: Path, read: Callable[[Path], T]) -> T | None:
    """What the newest of two files holds that can be gone on from; none where neither does, and the log says why.

    Args:
        read: raises ``Unusable`` or ``OSError`` for what cannot be used.
    """
    for each in (path, _previous(path)):
        try:
            return read(each)
        except FileNotFoundError:
            log.info("no checkpoint at %s", each)
        except (Unusable, OSError) as error:
            log.warning("checkpoint %s left aside: %s", each, error)
    return None


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")
