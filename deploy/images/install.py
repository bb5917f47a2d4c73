"""Runs within a build, where there is nothing but Python: installs the wheels of the context, and leaves out what does
not run. ``python3 /context/install.py TARGET``.

No index is asked: every wheel lies in the context and has its hash in requirements.txt.
"""

import compileall
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

DEVELOPED_WITH: Final = ("tests", "test", "include")
"""Folders within packages that only their developers use. Those called ``testing`` stay: others import them."""
COMPILED_FROM: Final = (".pyi", ".pxd", ".pyx", ".c", ".h", ".a")
KEPT_WHOLE: Final = ("torch", "windfall")
"""torch reads some of its headers and tests when it runs."""
NAMED_BY_NOBODY: Final = tuple(
    f"kubernetes/{client}/{part}" for client in ("client", "aio/client") for part in ("api", "models")
)
"""Two thousand generated modules for kinds and calls; our client speaks in plain documents, and they load on demand."""


def install(context: Path, target: Path) -> None:
    """Unpack the context's wheels, as its requirements.txt has them."""
    subprocess.run(
        [
            sys.executable,
            str(context / "pip.whl" / "pip"),
            *("install", "--no-index", "--no-deps", "--require-hashes", "--only-binary=:all:", "--no-compile"),
            *("--no-cache-dir", "--disable-pip-version-check", "--root-user-action=ignore", "--quiet"),
            *(
                "--find-links",
                str(context / "wheels"),
                "--target",
                str(target),
                "-r",
                str(context / "requirements.txt"),
            ),
        ],
        check=True,
    )


def slim(target: Path) -> None:
    """Remove what others' packages bring and never run."""
    for package in target.iterdir():
        if package.is_dir() and package.name not in KEPT_WHOLE:
            for found in sorted(package.rglob("*"), reverse=True):
                if found.is_dir() and found.name in DEVELOPED_WITH:
                    shutil.rmtree(found)
                elif found.suffix in COMPILED_FROM:
                    found.unlink()
    for name in NAMED_BY_NOBODY:
        for module in (target / name).glob("*.py"):
            if module.name != "__init__.py":
                module.unlink()


def compiled(target: Path) -> None:
    """Bytecode that is not held against its source again: the root filesystem is read-only, and what a file's time
    stamp says would differ from build to build."""
    for package in sorted(target.iterdir()):
        if package.is_dir():
            compileall.compile_dir(
                package, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH, stripdir=str(target)
            )


def main(target: Path) -> None:
    install(Path(__file__).parent, target)
    slim(target)
    compiled(target)
    shutil.copy(Path(__file__).with_name("sbom.cdx.json"), target)
    # A volume that is mounted for the first time takes its owner from the folder that it covers.
    Path("/state").mkdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
