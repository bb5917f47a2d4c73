"""Kernel, operating system, what this process is contained by, and the container runtimes that are installed."""

import asyncio
import os
import platform
import re
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from windfall.contracts.hardware import System, token
from windfall.profiler.child_process import Heard, hear
from windfall.profiler.discovery.part import Part

RUNTIMES: Final = ("containerd", "crio", "docker", "podman", "apptainer", "nvidia-container-runtime", "enroot")
_VERSION: Final = re.compile(r"\d+\.\d+[A-Za-z0-9._+-]*")
_MARKS: Final = (("kubepods", "kubernetes"), ("docker", "docker"), ("libpod", "podman"), ("containerd", "containerd"))
"""What a group's path holds → what contains this process."""


class Systems:
    """Looks at the system.

    Args:
        root: of the file system that is read.
        path: where runtimes are looked for; none is the environment's.
    """

    name: Final = "system"

    def __init__(
        self,
        within: timedelta,
        root: Path = Path("/"),
        path: str | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._within = within
        self._root = root
        self._path = path
        self._environment = environment

    async def find(self) -> Part:
        installed = {name: where for name in RUNTIMES if (where := shutil.which(name, path=self._path))}
        heard = await asyncio.gather(*(hear([where, "--version"], self._within) for where in installed.values()))
        missing: dict[str, str] = {}
        versions: dict[str, str] = {}
        for name, said in zip(installed, heard, strict=True):
            if version := runtime_version(said):
                versions[name] = version
            else:
                why = said.why or "tells no version"
                missing[f"system.container_runtimes.{name}"] = f"{installed[name]} {why}"
        release = self._root / "etc" / "os-release"
        operating_system = _pretty_name(_text(release))
        if operating_system is None:
            missing["system.operating_system"] = f"no name of one in {release}"
        system = System(
            kernel=token(platform.release()),
            operating_system=operating_system,
            container=self._container(),
            container_runtimes=versions,
        )
        return Part(system=system, missing=missing)

    def _container(self) -> str | None:
        if "KUBERNETES_SERVICE_HOST" in self._environment:
            return "kubernetes"
        if (self._root / "run" / ".containerenv").exists():
            return "podman"
        if (self._root / ".dockerenv").exists():
            return "docker"
        groups = _text(self._root / "proc" / "self" / "cgroup")
        return next((name for mark, name in _MARKS if mark in groups), None)


def runtime_version(said: Heard) -> str | None:
    """Of the line ``containerd github.com/containerd/containerd v1.7.22 7f7fdf5``."""
    found = _VERSION.search(said.text)
    return token(found[0]) if found and not said.why else None


def _pretty_name(os_release: str) -> str | None:
    for line in os_release.splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")
    return None


def _text(path: Path) -> str:
    """A file's text; one that is not here tells nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
