"""The outer log on disk: what the last rounds said, for sites that hold an earlier base."""

import logging
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from shutil import copyfileobj
from typing import Final

from windfall.federation_coordinator.durable import Whole
from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.outer_step import Base, Stretch
from windfall.lowcomm.outerlog import Accepted, Entry, entry_head, read
from windfall.lowcomm.rotation import Rotation

log = logging.getLogger(__name__)

_NAME: Final = "log-"
_BLOCK: Final = 512 * 1024


class History:
    """One file per round. It goes back as far as it is shorter than the model: beyond that nobody wants it."""

    def __init__(self, folder: Path, fragments: Rotation, worth_bytes: int) -> None:
        self._folder = folder
        self._fragments = fragments
        self._worth = worth_bytes

    def add(
        self, number: int, base: str, model: str, contributions: Sequence[Contribution], messages: Sequence[Path]
    ) -> None:
        """Keep what a round said; again is harmless. A round longer than the model is not kept."""
        if sum(one.bytes_up for one in contributions) >= self._worth:
            return
        accepted = [
            Accepted(one.site, one.attempt, one.weight, one.sha256, one.bytes_up, None) for one in contributions
        ]
        ordered = sorted(zip(accepted, messages, strict=True), key=lambda one: one[0].order)
        with Whole(self._path(number)) as file:
            file.write(entry_head(number, base, model, accepted))
            for _, path in ordered:
                with path.open("rb") as message:
                    copyfileobj(message, file, _BLOCK)

    def drop(self, number: int) -> None:
        """Forget what a round said: the model that it led to is not kept."""
        self._path(number).unlink(missing_ok=True)

    def between(self, held: str, wanted: str, own: str) -> list[Stretch] | None:
        """The log from one base to another, without the message of that SHA-256, as bytes and stretches of files that
        lie end to end; none when it does not reach."""
        entries: list[Entry] = []
        pieces: list[list[Stretch]] = []
        for path in sorted(self._paths(), reverse=True):
            entry = self._read(path)
            if entry is None:
                return None
            expected = entries[-1].base if entries else wanted
            if entry.model == expected:
                entries.append(entry)
                pieces.append(_pieces(path, entry, own))
                if entry.base == held:
                    return [piece for of_round in reversed(pieces) for piece in of_round]
            elif entries:
                return None
        return None

    def _read(self, path: Path) -> Entry | None:
        """A round; none when it was pruned meanwhile, or is damaged: the model itself is always there."""
        try:
            # Only what is looked at is read: the list.
            with path.open("rb") as file:
                (entry,) = read(memoryview(mmap(file.fileno(), 0, access=ACCESS_READ)), self._fragments)
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("%s is not used: %s", path, error)
            return None
        return entry

    def prune(self) -> None:
        """Forget the oldest rounds when all of them together are longer than the model."""
        total = 0
        for path in sorted(self._paths(), reverse=True):
            total += path.stat().st_size
            if total > self._worth:
                path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if is_entry(path)]

    def _path(self, number: int) -> Path:
        return self._folder / f"{_NAME}{number:06d}"


def _pieces(path: Path, entry: Entry, own: str) -> list[Stretch]:
    """A round for who holds one of its messages: its head, and the other messages where they lie in its file."""
    listed = entry.contributions
    begin = path.stat().st_size - sum(one.nbytes for one in listed)
    found: list[Stretch] = [entry_head(entry.round, entry.base, entry.model, listed, {own})]
    for one in listed:
        if one.sha256 != own:
            found.append(Base(path, begin, one.nbytes))
        begin += one.nbytes
    return found


def is_entry(path: Path) -> bool:
    """Whether a file is a round of the log."""
    return path.name.startswith(_NAME) and path.suffix != ".tmp"
