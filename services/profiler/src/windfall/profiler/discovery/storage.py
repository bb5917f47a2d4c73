"""The storage that the folder of state lies on, looked at and measured in a child process."""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from windfall.contracts.hardware import Storage, token
from windfall.profiler.child_process import CHILDREN, hear
from windfall.profiler.discovery.part import Part

PROGRAM: Final = CHILDREN / "storage_speed.py"
BUDGET: Final = timedelta(milliseconds=300)
"""To write and read in. One synchronisation may take longer than all of it."""
MOST_BYTES: Final = 32 * 2**20
_PARTS: Final = ("fsync_ms", "write_mb_per_s", "read_mb_per_s")


class StateFolder:
    """Looks at a folder.

    Args:
        budget: for the measurement.
        within: wall time after which it is given up; a disk that is slow may take longer than the budget.
    """

    name: Final = "storage"

    def __init__(
        self,
        folder: Path,
        within: timedelta,
        budget: timedelta = BUDGET,
        mounts: Path = Path("/proc/self/mounts"),
        python: Sequence[str] = (sys.executable, "-I", "-S"),
    ) -> None:
        self._folder = folder
        self._within = within
        self._budget = budget
        self._mounts = mounts
        self._python = python

    async def find(self) -> Part:
        missing: dict[str, str] = {}
        found: dict[str, Any] = {}
        budget = f"{self._budget.total_seconds():g}"
        command = [*self._python, str(PROGRAM), str(self._folder), budget, str(MOST_BYTES)]
        heard = await hear(command, self._within)
        for line in heard.lines:
            told = json.loads(line)
            if "error" in told:
                return Part(missing={"storage": f"{self._folder} cannot be looked at: {told['error']}"})
            if "folder" in told:
                found["filesystem"] = self._filesystem(Path(told.pop("folder")))
                if found["filesystem"] is None:
                    missing["storage.filesystem"] = f"{self._folder} lies below no mount in {self._mounts}"
            missing |= {f"storage.{part}": f"{self._folder}: {why}" for part, why in told.pop("missing", {}).items()}
            found |= told
        silent = [part for part in _PARTS if part not in found and f"storage.{part}" not in missing]
        why = f"the storage of {self._folder} {heard.why or 'was not measured'}"
        missing |= {f"storage.{part}": why for part in silent}
        if not found:
            return Part(missing={"storage": why})
        return Part(storage=Storage(**found), storage_folder=str(self._folder), missing=missing)

    def _filesystem(self, folder: Path) -> str | None:
        """Of the longest mount point that the folder lies below."""
        try:
            lines = self._mounts.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return None
        mounts = [(Path(words[1].replace("\\040", " ")), words[2]) for words in map(str.split, lines) if len(words) > 2]
        around = [(len(at.parts), kind) for at, kind in mounts if folder.is_relative_to(at)]
        return token(max(around)[1]) if around else None
