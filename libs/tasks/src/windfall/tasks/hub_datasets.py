"""Text of a data set that Hugging Face ``datasets`` saved on disk. The library is an extra; nothing is downloaded."""

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from windfall.tasks.task import DataError

ROWS: Final = 1000
"""Rows that are read in one go."""


def is_data_set(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote this folder."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def read_data_set(folder: Path, column: str = "text") -> bytes:
    """A column of strings, each row ended by a line feed, in the order of the rows, as UTF-8.

    Raises:
        DataError: the library is not installed, the folder holds several splits or no such column, or is corrupt.
    """
    try:
        datasets: Any = import_module("datasets")
    except ModuleNotFoundError as error:
        raise DataError(
            f"{str(folder)!r} is a saved data set, and {error.name!r} is not installed. "
            "pip install 'windfall-tasks[datasets]'"
        ) from error
    try:
        rows = datasets.load_from_disk(str(folder))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the data set in {str(folder)!r}: {error}. Save it there again") from error
    if isinstance(rows, dict):
        raise DataError(f"{str(folder)!r} holds the splits {', '.join(rows)}. Name the folder of one of them")
    if column not in rows.column_names:
        raise DataError(f"the data set in {str(folder)!r} has no column {column!r} but {', '.join(rows.column_names)}")
    return b"".join(f"{text}\n".encode() for batch in rows.iter(ROWS) for text in batch[column])
