"""What one look found."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final

from windfall.cli.resources.versioned import several

_MARKS: Final = {"ok": "✓", "warning": "!", "failure": "✗"}


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Training goes on, and may not for long."""
    FAILURE = "failure"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what was looked at: bus, clock, disk, keys, site-a …
        says: what was found.
        cure: what to do about it; empty where nothing is to be done.
    """

    level: Level
    about: str
    says: str
    cure: str = ""


def good(about: str, says: str) -> Finding:
    return Finding(Level.OK, about, says)


def warning(about: str, says: str, cure: str) -> Finding:
    return Finding(Level.WARNING, about, says, cure)


def failure(about: str, says: str, cure: str) -> Finding:
    return Finding(Level.FAILURE, about, says, cure)


def worst(findings: Sequence[Finding]) -> Level:
    """The worst level of all."""
    order = list(Level)
    return max((one.level for one in findings), key=order.index, default=Level.OK)


def for_machines(findings: Sequence[Finding], form: str) -> str:
    """A versioned list, as ``json``, ``yaml`` or ``jsonl``."""
    return several("Finding", [{**asdict(one), "level": one.level.value} for one in findings], form)


def in_words(findings: Sequence[Finding]) -> str:
    """A line each, the cure below what has one, and a last line that counts."""
    width = max((len(one.about) for one in findings), default=0)
    lines = []
    for one in findings:
        lines.append(f"{_MARKS[one.level]} {one.about:<{width}}  {one.says}")
        if one.cure:
            lines.append(f"  {'':<{width}}  → {one.cure}")
    count = {level: sum(one.level is level for one in findings) for level in Level}
    lines.append(f"{count[Level.FAILURE]} failed, {count[Level.WARNING]} to look at, {count[Level.OK]} well")
    return "\n".join(lines)
