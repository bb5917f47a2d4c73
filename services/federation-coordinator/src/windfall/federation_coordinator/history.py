"""The outer log on disk: what the last rounds said, for sites that hold an earlier base."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from windfall.federation_coordinator.durable import Whole
from windfall.federation_coordinator.federation import Contribution
from windfall.lowcomm.outerlog import Accepted, Entry, read, smallest, write_entry
from windfall.lowcomm.rotation import Rotation

log = logging.getLogger(__name__)

_NAME: Final = "log-"


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
            Accepted.of(one.site, one.attempt, one.weight, path.read_bytes())
            for one, path in zip(contributions, messages, strict=True)
        ]
        with Whole(self._path(number)) as file:
            file.write(write_entry(number, base, model, accepted))

    def drop(self, number: int) -> None:
        """Forget what a round said: the model that it led to is not kept."""
        self._path(number).unlink(missing_ok=True)

    def between(self, held: str, wanted: str, own: str) -> bytes | None:
        """The log from one base to another, without the message of that SHA-256; none when it does not reach."""
        entries: list[Entry] = []
        for path in sorted(self._paths(), reverse=True):
            entry = self._read(path)
            if entry is None:
                return None
            expected = entries[-1].base if entries else wanted
            if entry.model == expected:
                entries.append(entry)
                if entry.base == held:
                    return b"".join(
                        smallest(one.round, one.base, one.model, one.contributions, held={own})
                        for one in reversed(entries)
                    )
            elif entries:
                return None
        return None

    def _read(self, path: Path) -> Entry | None:
        """A round; none when it was pruned meanwhile, or is damaged: the model itself is always there."""
        try:
            (entry,) = read(path.read_bytes(), self._fragments)
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


def is_entry(path: Path) -> bool:
    """Whether a file is a round of the log."""
    return path.name.startswith(_NAME) and path.suffix != ".tmp"
