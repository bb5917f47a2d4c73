"""Two versions of the product beside each other: wheels of two commits, each installed into a folder of its own.

Nothing is asked of a network: what the wheels depend on is this environment's.
"""

import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

from windfall.servicekit.errors import ExitCode, Mistake

ROOT: Final = Path(__file__).parents[2]
BUILT: Final = ROOT / "build" / "versions"
"""Not in Git. A commit is built once."""
BEFORE: Final = os.environ.get("UPGRADE_FROM", "2618a69")
"""The commit that is upgraded from."""
AFTER: Final = os.environ.get("UPGRADE_TO", "HEAD")
_PARTS: Final = ("libs", "services", "proto")


@dataclass(frozen=True)
class Version:
    """A commit as it is installed."""

    commit: str
    folder: Path
    """What PYTHONPATH names so that a program runs it."""


def version(ref: str) -> Version:
    """A commit's wheels, built and installed if they are not.

    Raises:
        Mistake: there is no such commit, or it cannot be built.
    """
    commit = _run("git", "-C", str(ROOT), "rev-parse", "--verify", "--short=12", f"{ref}^{{commit}}").decode().strip()
    place = BUILT / commit
    if not (place / "whole").exists():
        shutil.rmtree(place, ignore_errors=True)
        _unpack(commit, place / "source")
        _raise(place / "source", commit)
        packages = [str(one.parent) for one in sorted((place / "source").glob("*/*/pyproject.toml"))]
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
        _run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", str(place / "wheels"), *packages)
        wheels = [str(one) for one in sorted((place / "wheels").glob("*.whl"))]
        _run(*pip, "install", "--no-index", "--no-deps", "--root-user-action=ignore", "--target",
             str(place / "installed"), *wheels)  # fmt: skip
        (place / "whole").touch()
    made = Version(commit, place / "installed")
    _runs(made)
    return made


def _unpack(commit: str, folder: Path) -> None:
    archive = _run("git", "-C", str(ROOT), "archive", commit, *_PARTS)
    with tarfile.open(fileobj=BytesIO(archive)) as tree:
        tree.extractall(folder, filter="data")


def _raise(source: Path, commit: str) -> None:
    """Give every package a version of its own, by which whoever runs it can be told."""
    for path in source.glob("*/*/pyproject.toml"):
        text = path.read_text(encoding="utf-8")
        number = next(line for line in text.splitlines() if line.startswith("version = "))
        path.write_text(text.replace(number, f'{number.rstrip(chr(34))}+{commit}"', 1), encoding="utf-8")


def _runs(made: Version) -> None:
    """See that a program that is told of it runs it, and nothing of this tree."""
    ask = (
        "import windfall.contracts.events, windfall.servicekit.service as kit, importlib.metadata as known;"
        "print(windfall.contracts.events.__file__, kit.__file__, known.version('windfall-servicekit'))"
    )
    said = _run(sys.executable, "-c", ask, environ={"PYTHONPATH": str(made.folder)}).decode().split()
    if not all(path.startswith(f"{made.folder}/") for path in said[:2]) or not said[2].endswith(made.commit):
        raise Mistake(f"{made.commit} is not what runs: {' '.join(said)}", "Remove build/versions", ExitCode.FAILED)


def _run(*command: str, environ: dict[str, str] | None = None) -> bytes:
    ended = subprocess.run(command, capture_output=True, check=False, env={**os.environ, **(environ or {})})
    if ended.returncode:
        last = (ended.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise Mistake(f"{' '.join(command[:5])} … failed: {last}", "See what it says by itself", ExitCode.FAILED)
    return ended.stdout
