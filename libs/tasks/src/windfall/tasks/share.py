"""Which of a folder's samples are whose: so that sites can split public files, and a held-out part stays unseen.

All sites of a federation have the same settings. What differs from site to site is therefore said by the site's own
folder, in a file ``share.json``, of which every part may be left out::

    {"of": "../mnist", "part": "0/3", "labels": [0, 1, 2, 3], "site": 0}
"""

import re
from pathlib import Path
from typing import Annotated, Final

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from torch import Tensor

from windfall.tasks.presets import mistakes
from windfall.tasks.task import DataError

FILE: Final = "share.json"
_LINE: Final = re.compile(r"(\d{1,18})(?:-(\d{1,18}))?(?:/(\d{1,18}))?")


def chosen(line: str, indices: Tensor) -> Tensor:
    """Which indices a line names: ``8000-9999`` those from 8000 to 9999, ``0/3`` those whose remainder by 3 is 0, and
    ``75-89/90`` those whose remainder by 90 is 75 to 89; an empty line names none.

    Args:
        indices: int64 ``[samples]``.

    Returns:
        bool ``[samples]``.

    Raises:
        ValueError: the line says something else.
    """
    if not line:
        return torch.zeros_like(indices, dtype=torch.bool)
    found = _LINE.fullmatch(line)
    first, last, modulus = (int(number) if number else None for number in found.groups()) if found else (None,) * 3
    if first is None or (last is None and modulus is None):
        raise ValueError(f"a share is written like 0/3, 8000-9999 or 75-89/90, not {line!r}")
    last = first if last is None else last
    if not first <= last < (last + 1 if modulus is None else modulus):
        raise ValueError(f"share {line!r} is empty: its first index is above its last, or its last not below {modulus}")
    place = indices % modulus if modulus else indices
    return (place >= first) & (place <= last)


def _checked(line: str) -> str:
    chosen(line, torch.empty(0, dtype=torch.int64))
    return line


ShareLine = Annotated[str, AfterValidator(_checked)]
"""A field of settings that holds such a line and refuses another when the settings are read."""


class Share(BaseModel):
    """What a site's ``share.json`` says. What is left out is as the task's settings say."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    of: str = ""
    """Where the files are, from this folder; empty for this folder itself."""
    part: ShareLine | None = None
    """The site's samples, by their index in the files."""
    labels: tuple[int, ...] | None = None
    """The labels of the site's samples."""
    site: int | None = None
    """The site's nodes of a graph, by their column ``site``."""
    speakers: tuple[str, ...] | None = None
    """Who speaks in the site's clips."""


def read_share(folder: Path) -> tuple[Path, Share]:
    """Where a site's files are and which part of them is its own: the folder and everything, without a ``share.json``.

    Raises:
        DataError: the file cannot be read or says something else.
    """
    path = folder / FILE
    try:
        share = Share.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return folder, Share()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror}. Make it readable") from error
    except ValidationError as error:
        raise DataError(f"{str(path)!r}: {mistakes(error, tuple(Share.model_fields))}") from error
    return folder / share.of, share
