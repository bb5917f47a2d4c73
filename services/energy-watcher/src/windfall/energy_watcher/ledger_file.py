"""``ledger.jsonl``: the site's ledger as it stands on its disk. Lines are only ever appended."""

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from windfall.servicekit.errors import ExitCode, Mistake

log = logging.getLogger(__name__)

LEDGER_FILE: Final = "ledger.jsonl"
_TAIL_BYTES: Final = 64 * 1024
"""More than any line has."""


class LedgerFile:
    """The file, mended when it is opened: a last line that a crash cut short is dropped.

    Raises:
        Mistake: it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._mend()
        except OSError as error:
            raise self._refused(error) from error

    def last(self) -> str | None:
        """The last line; none when there is none."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(error) from error
        return lines[-2] if len(lines) > 1 else None

    def lines(self) -> Iterator[str]:
        """Every line, from the first."""
        with self.path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                yield line.removesuffix("\n")

    def append(self, lines: Sequence[str]) -> None:
        """Add lines; when this returns, a power cut keeps them.

        Raises:
            Mistake: the disk is full or refuses; what was written of it is dropped at the next start.
        """
        try:
            new = not self.path.exists()
            with self.path.open("ab", buffering=0) as file:
                data = "".join(f"{line}\n" for line in lines).encode()
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            if new:
                self._sync_folder()
        except OSError as error:
            raise self._refused(error) from error

    def _mend(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            tail = file.read()
            torn = len(tail) - (tail.rfind(b"\n") + 1)
            if torn:
                log.warning("the last line of %s was cut short by a crash: %d bytes of it are dropped", self.path, torn)
                file.truncate(size - torn)
                os.fsync(file.fileno())

    def _sync_folder(self) -> None:
        descriptor = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _refused(self, error: OSError) -> Mistake:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "Free space and start again" if full else "Set WINDFALL_STATE_DIR to a folder that this user may write"
        return Mistake(
            f"cannot use the ledger {self.path} ({error.strerror})",
            cure,
            ExitCode.DISK_FULL if full else ExitCode.RESOURCE,
        )
