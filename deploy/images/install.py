"""Runs within a build, where there is nothing but Python: installs the wheels of the context, and leaves out what does
not run. ``python3 /context/install.py TARGET``.

No index is asked: every wheel lies in the context and has its hash in requirements.txt.
"""

import compileall
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Final

DEVELOPED_WITH: Final = ("tests", "test", "include")
"""Folders within packages that only their developers use. Those called ``testing`` stay: others import them."""
COMPILED_FROM: Final = (".pyi", ".pxd", ".pyx", ".c", ".h", ".a", ".proto")
KEPT_WHOLE: Final = ("torch", "windfall")
"""torch reads some of its headers and tests when it runs."""
NAMED_BY_NOBODY: Final = tuple(
    f"kubernetes/{client}/{part}" for client in ("client", "aio/client") for part in ("api", "models")
)
"""Two thousand generated modules for kinds and calls; our client speaks in plain documents, and they load on demand."""
FOR_OTHERS: Final = (
    *(f"faststream/{broker}" for broker in ("confluent", "kafka", "mqtt", "rabbit", "redis")),
    # With these cffi writes bindings; what it has written needs its backend alone.
    "cffi",
    "pycparser",
    *(f"google/{part}" for part in ("api", "cloud", "gapic", "logging", "longrunning", "shopping", "type")),
)
"""Packages that ours never import, nor what ours import: `tests/test_images.py` tries."""
ZONES: Final = Path("/usr/share/zoneinfo")
"""Where a base has them, the package that brings them is not asked."""


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
                elif found.suffix == ".so" or ".so." in found.name:
                    found.write_bytes(stripped(found.read_bytes()))
    for name in NAMED_BY_NOBODY:
        for module in (target / name).glob("*.py"):
            if module.name != "__init__.py":
                module.unlink()
    for name in (*FOR_OTHERS, *(["tzdata"] if ZONES.is_dir() else [])):
        shutil.rmtree(target / name, ignore_errors=True)


def stripped(library: bytes) -> bytes:
    """A shared library without what only linkers and debuggers read, which is four fifths of some: all that lies behind
    its last segment.

    System V ABI, *Object files* (ELF-64): a program is loaded by its segments; sections, and the table of them, may be
    missing. What is no such file stays as it is.
    """
    if not library.startswith(b"\x7fELF\x02\x01"):
        return library
    (table,) = struct.unpack_from("<Q", library, 0x20)
    width, count = struct.unpack_from("<HH", library, 0x36)
    end = table + width * count
    for entry in range(table, end, width):
        _, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", library, entry)
        end = max(end, offset + size)
    kept = bytearray(library[:end])
    struct.pack_into("<Q", kept, 0x28, 0)
    struct.pack_into("<HH", kept, 0x3C, 0, 0)
    return bytes(kept)


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
