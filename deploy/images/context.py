"""Makes the folder that an image is built from: its wheels, and the requirements that pin them with their hashes.

Wheels of others are downloaded once for all images, and only what the lock pins is taken; ours are built here.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import parse_wheel_filename

from deploy.images import sbom
from deploy.images.catalogue import ROOT, TORCH, TORCH_NEEDS, Image
from deploy.images.requirements import OURS, installed, locked, needed, projects

BUILD: Final = ROOT / "build" / "images"


@dataclass(frozen=True)
class Source:
    """What every build of one revision has in common."""

    version: str
    revision: str
    """Git's name of the commit, with ``-dirty`` where the tree differs from it."""
    committed_at: int
    """Seconds since the epoch: the time of all that is built from it."""


@dataclass(frozen=True)
class Parts:
    """What goes into one image."""

    ours: frozenset[str]
    others: Mapping[str, str]
    """Pinned lines by name."""


def source() -> Source:
    """The revision that lies here.

    Raises:
        subprocess.CalledProcessError: this is no Git repository.
    """
    version = str(projects(ROOT)["windfall-contracts"]["version"])
    changed = "-dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return Source(version, _git("rev-parse", "HEAD") + changed, int(_git("log", "-1", "--format=%ct")))


def parts(image: Image, python: str) -> Parts:
    """What an image on this Python (``3.11``) holds.

    Raises:
        ValueError: the lock does not pin all of it.
    """
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    roots = TORCH_NEEDS if image is TORCH else image.packages
    markers = {"python_version": python, "python_full_version": f"{python}.0"}
    ours, others = needed(roots, projects(ROOT), installed, markers)
    return Parts(ours, locked(lock, others))


def prepare(images: Sequence[Image], python: str, torch: str, made_from: Source) -> None:
    """Fill ``build/images/<name>`` for each of these.

    Args:
        images: which.
        python: version of the Python of their bases.
        torch: the requirement of the torch that :data:`TORCH` brings, or the path of its wheel.
        made_from: the revision.

    Raises:
        subprocess.CalledProcessError: pip cannot get a wheel or has another hash; its own words are on stderr.
    """
    sets = {image.name: parts(image, python) for image in images}
    target = ("--python-version", python, "--only-binary=:all:", "--no-deps")
    pins = {line for found in sets.values() for line in found.others.values()}
    wheels, tools, own, torch_wheel = (BUILD / name for name in ("wheels", "tools", "own-wheels", "torch-wheel"))
    _pip("download", *target, "--require-hashes", "-d", wheels, "-r", _written("all.txt", pins))
    only_pip = locked(sbom.TOOLS.read_text(encoding="utf-8"), ["pip"]).values()
    _pip("download", "--no-deps", "--require-hashes", "-d", tools, "-r", _written("tools.txt", only_pip))
    for folder in (own, torch_wheel):
        shutil.rmtree(folder, ignore_errors=True)
    if TORCH in images:
        _pip("download", *target, "-d", torch_wheel, torch)
    if names := {name for found in sets.values() for name in found.ours}:
        ours = [folder_of(name) for name in sorted(names)]
        # The same commit gives the same wheels.
        environ = {**os.environ, "SOURCE_DATE_EPOCH": str(made_from.committed_at)}
        _pip("wheel", "--no-deps", "--no-build-isolation", "-w", own, *ours, environ=environ)
    for image in images:
        found = sets[image.name]
        brought = torch_wheel.iterdir() if image is TORCH else _wheels_of(own, found.ours)
        lines = [*found.others.values(), *map(_hashed, sorted(brought))]
        folder = BUILD / image.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        listed = _written(f"{image.name}/requirements.txt", lines)
        at_hand = [part for place in (wheels, own, torch_wheel) for part in ("--find-links", place)]
        _pip("download", *target, "--no-index", *at_hand, "--require-hashes", "-d", folder / "wheels", "-r", listed)
        sbom.write(image, listed, made_from.version, made_from.committed_at, folder / "sbom.cdx.json")
        shutil.copy(Path(__file__).with_name("install.py"), folder)
        (wheel,) = tools.glob("pip-*.whl")
        shutil.copy(wheel, folder / "pip.whl")


def folder_of(distribution: str) -> Path:
    """Where a package of ours lies."""
    name = distribution.removeprefix(OURS)
    return next(folder for place in ("libs", "services") if (folder := ROOT / place / name).is_dir())


def _wheels_of(folder: Path, names: frozenset[str]) -> Iterable[Path]:
    return (wheel for wheel in folder.iterdir() if parse_wheel_filename(wheel.name)[0] in names)


def _hashed(wheel: Path) -> str:
    name, version, _, _ = parse_wheel_filename(wheel.name)
    return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def _written(name: str, lines: Iterable[str]) -> Path:
    path = BUILD / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(sorted(lines)), encoding="utf-8")
    return path


def _pip(*words: str | Path, environ: Mapping[str, str] | None = None) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *words], check=True, env=environ)


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
