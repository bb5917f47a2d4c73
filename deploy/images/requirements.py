"""What an image needs from others: read from our packages' pyproject.toml, followed through what is installed here, and
pinned by the lines of requirements.lock. Pure, but for reading metadata."""

import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS: Final = "windfall-"
FROM_THE_BASE: Final = frozenset({"torch"})
"""What an image takes from its base and never brings."""

Requires = Callable[[str], Sequence[str]]
"""What a distribution requires, as its metadata says it."""


def projects(root: Path) -> dict[str, Mapping[str, Any]]:
    """``[project]`` of each package of ours, by its distribution's name."""
    found = {}
    for path in sorted(root.glob("libs/*/pyproject.toml")) + sorted(root.glob("services/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        found[str(project["name"])] = project
    return found


def installed(name: str) -> Sequence[str]:
    """What a distribution of this environment requires.

    Raises:
        importlib.metadata.PackageNotFoundError: it is not installed; ``make setup`` installs all of the lock.
    """
    return metadata.requires(name) or ()


def needed(
    roots: Iterable[str],
    ours: Mapping[str, Mapping[str, Any]],
    requires: Requires,
    environment: Mapping[str, str],
) -> tuple[frozenset[str], frozenset[str]]:
    """Everything that these distributions need, themselves included: ours, and others'.

    Args:
        roots: requirements, like ``windfall-profiler[nvml]``.
        ours: see :func:`projects`.
        requires: what others require.
        environment: markers of the image, over those of this machine (``python_version``).
    """
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(root) for root in roots]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if name in FROM_THE_BASE:
            continue
        for extra in ("", *sorted(asked.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            lines = _of_ours(ours[name], extra) if name in ours else requires(name)
            waiting += [line for line in map(Requirement, lines) if _wanted(line, extra, environment)]
    names = {name for name, _ in seen}
    return frozenset(names & ours.keys()), frozenset(names - ours.keys())


def _of_ours(project: Mapping[str, Any], extra: str) -> Sequence[str]:
    optional: Mapping[str, Sequence[str]] = project.get("optional-dependencies", {})
    return optional[extra] if extra else project["dependencies"]


def _wanted(line: Requirement, extra: str, environment: Mapping[str, str]) -> bool:
    return line.marker is None or line.marker.evaluate({**environment, "extra": extra})


def locked(lock: str, names: Iterable[str]) -> dict[str, str]:
    """The lines of a lock file for each of these distributions, hashes included.

    Raises:
        ValueError: naming what the lock does not pin.
    """
    wanted, found = set(names), defaultdict[str, str](str)
    # A line that is not indented begins a pin; one distribution may have several, each under a marker of its own.
    for block in re.split(r"\n(?=\S)", lock.strip()):
        name = canonicalize_name(block.split("==", 1)[0])
        if name in wanted:
            found[name] += f"{block}\n"
    if missing := sorted(wanted - found.keys()):
        raise ValueError(f"requirements.lock does not pin {', '.join(missing)}: run `make lock`")
    return dict(sorted(found.items()))
