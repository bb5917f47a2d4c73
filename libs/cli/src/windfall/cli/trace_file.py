"""Reading the trace that a person named, or the shipped one."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.status import Status

from windfall.cli.spool import Spool
from windfall.energy.column import Column
from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import TraceError
from windfall.energy.traces import Block, blocks, gather, heading
from windfall.servicekit.errors import ExitCode, Mistake

MOST_HELD: Final = 4_000_000
"""Values in memory, 32 MB; of a larger trace one column at a time."""


def name_of(path: Path | None) -> str:
    """What to call it."""
    return "the shipped trace" if path is None else str(path)


def columns_of(path: Path | None) -> tuple[str, ...]:
    """Its columns, without that of the time.

    Raises:
        Mistake: it cannot be read.
    """
    with _lines(path) as lines:
        return heading(lines).columns


def read(path: Path | None, intensities: Sequence[str], prices: Sequence[str]) -> tuple[Sequence[Column], bool]:
    """Its columns, first those of gCO2/kWh and then those of prices, and whether its instants had no time zone.

    Those of a trace of more than some millions of values stay on disk: a ``Spool``, which reads one at each access.

    Raises:
        Mistake: it cannot be read, holds what cannot be, or is too large for the disk.
    """
    with busy(f"reading {name_of(path)}"), _lines(path) as lines:
        coming = blocks(lines, intensities, prices, naive_is_utc=True)
        held, size = list[Block](), 0
        for block in coming:
            held.append(block)
            size += block.values.size
            if size > MOST_HELD:
                return Spool(chain(held, coming)), block.naive
        return gather(held), held[0].naive


def busy(doing: str) -> Status:
    """A line that a terminal shows for as long as something is done; nobody else sees it."""
    return Console(stderr=True).status(doing)


@contextmanager
def _lines(path: Path | None) -> Iterator[Iterator[str]]:
    try:
        if path is None:
            yield iter(synthetic_trace())
            return
        with path.open(encoding="utf-8", newline="") as file:
            yield iter(file)
    except TraceError as error:
        raise Mistake(f"{name_of(path)}, {error.cause}", error.cure[0].upper() + error.cure[1:]) from error
    except UnicodeDecodeError as error:
        raise Mistake(f"the trace {path} is not text in UTF-8", "Save it as plain CSV in UTF-8") from error
    except OSError as error:
        cure = "Give a CSV file with --trace"
        raise Mistake(f"cannot read the trace {path} ({error.strerror})", cure, ExitCode.RESOURCE) from error
