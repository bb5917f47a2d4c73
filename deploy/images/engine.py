"""docker, podman or buildah: whichever is there builds the images."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from deploy.images.context import Source

Name = Literal["docker", "podman", "buildah"]
ENGINES: Final[Sequence[Name]] = ("docker", "podman", "buildah")


def found() -> Name | None:
    """The first engine that answers; none when there is none."""
    for engine in ENGINES:
        # The docker command is often there without a daemon behind it.
        if shutil.which(engine) and subprocess.run([engine, "info"], check=False, capture_output=True).returncode == 0:
            return engine
    return None


def build(
    engine: Name, dockerfile: Path, context: Path, tag: str, arguments: Mapping[str, str], made_from: Source
) -> Sequence[str]:
    """The command that builds one image. Nothing in a build needs a network, and none is given where that can be said.

    Args:
        engine: who builds.
        dockerfile: what is built.
        context: the folder that it sees.
        tag: of the result, registry included.
        arguments: ``ARG`` of the Dockerfile.
        made_from: the revision, for its labels.
    """
    told = {"VERSION": made_from.version, "REVISION": made_from.revision, **arguments}
    asked = [part for name, value in told.items() for part in ("--build-arg", f"{name}={value}")]
    labels = {
        "org.opencontainers.image.created": datetime.fromtimestamp(made_from.committed_at, UTC).isoformat(),
    }
    asked += [part for name, value in labels.items() for part in ("--label", f"{name}={value}")]
    file = ["-f", str(dockerfile), "-t", tag, *asked]
    if engine == "docker":
        return ["docker", "build", "--network=none", *file, str(context)]
    # A health check is no part of the OCI format; with its time the same commit gives the same layers.
    format_ = ["--format=docker", f"--timestamp={made_from.committed_at}", "--pull=missing"]
    if engine == "podman":
        return ["podman", "build", "--network=none", *format_, *file, str(context)]
    return ["buildah", "bud", *format_, *file, str(context)]


def size(engine: Name, tag: str) -> str:
    """What an image weighs, unpacked, for a person."""
    if engine == "buildah":
        (image,) = json.loads(_said(["buildah", "images", "--json", tag]))
        return str(image["size"])
    return f"{int(_said([engine, 'image', 'inspect', '--format', '{{.Size}}', tag])) / 1e6:.1f} MB"


def _said(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
