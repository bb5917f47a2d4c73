"""What is in an image, as a CycloneDX document: each distribution with its version, its hashes and its package URL.

cyclonedx-py writes it from the image's own requirements, so that it cannot say anything else than what was installed.
It lives in an environment of its own, pinned by tools.lock.
"""

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from deploy.images.catalogue import ROOT, Image

TOOLS: Final = Path(__file__).with_name("tools.lock")
_PLACE: Final = ROOT / "build" / "tools"


def installed() -> Path:
    """The folder of the tools' programs; they are installed when they are missing or the lock has changed.

    Raises:
        subprocess.CalledProcessError: pip cannot get them.
    """
    lock, mark = TOOLS.read_text(encoding="utf-8"), _PLACE / "lock"
    if not mark.exists() or mark.read_text(encoding="utf-8") != lock:
        venv.create(_PLACE, with_pip=True, clear=True)
        quiet = ("-q", "--disable-pip-version-check")
        subprocess.run([_PLACE / "bin" / "pip", "install", *quiet, "--require-hashes", "-r", TOOLS], check=True)
        mark.write_text(lock, encoding="utf-8")
    return _PLACE / "bin"


def write(image: Image, requirements: Path, version: str, committed_at: int, to: Path) -> None:
    """Write the document of one image.

    Args:
        image: which.
        requirements: what it installs, pinned.
        version: of the image.
        committed_at: seconds since the epoch: the document's time.
        to: the file.

    Raises:
        subprocess.CalledProcessError: the document is not what its schema asks for.
    """
    # The tool takes what the document is about from a project's file.
    root = to.with_suffix(".toml")
    root.write_text(f'[project]\nname = "windfall-image-{image.name}"\nversion = "{version}"\n', encoding="utf-8")
    options = ("--pyproject", root, "--output-reproducible", "--of", "JSON", "--validate", "-o", to)
    subprocess.run(
        [installed() / "cyclonedx-py", "requirements", *options, requirements],
        check=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(committed_at), "PYTHONWARNINGS": "ignore"},
        stderr=sys.stderr,
    )
    root.unlink()
