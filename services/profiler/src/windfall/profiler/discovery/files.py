"""Files of the kernel, read in a child process (``child/files.py``), and the small forms in which they hold values."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from windfall.profiler.child_process import CHILDREN, hear

PROGRAM = CHILDREN / "files.py"


@dataclass(frozen=True)
class Files:
    """Path below the root → text."""

    texts: dict[str, str] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    """Path → why."""
    why: str = ""
    """Why there may be more that was not read; empty when all was."""

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def number(self, path: str) -> int | None:
        """Decimal or ``0x``; none when it is not there or says that it does not know (a negative one)."""
        return number(self.texts.get(path))

    def below(self, folder: str) -> list[str]:
        """Names directly below a folder of which something was read, in the order of their numbers."""
        start = folder.rstrip("/") + "/"
        names = {path.removeprefix(start).split("/")[0] for path in self.texts if path.startswith(start)}
        return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def number(text: str | None) -> int | None:
    """A count as the kernel writes it."""
    try:
        value = int(text or "", 0)
    except ValueError:
        return None
    return value if value >= 0 else None


async def read(
    root: Path, patterns: Sequence[str], within: timedelta, python: Sequence[str] = (sys.executable, "-I", "-S")
) -> Files:
    """Read every file that matches."""
    heard = await hear([*python, str(PROGRAM), str(root), *patterns], within)
    texts, unread = {}, {}
    at = ""
    for line in heard.lines:
        match json.loads(line):
            case [at]:
                pass
            case [path, str(text)]:
                texts[path] = text
            case [path, None, why]:
                unread[path] = why
    done = not at or at in texts or at in unread
    why = heard.why if done or not heard.why else f"{heard.why} while {at} was read"
    return Files(texts, unread, why)
