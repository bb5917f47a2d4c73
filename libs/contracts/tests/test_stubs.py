"""The generated stubs are what ``proto/`` says now."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = sorted((ROOT / "proto").rglob("*.proto"))
KEPT = ROOT / "libs" / "contracts" / "src" / "windfall" / "contracts" / "v1"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stubs")
    subprocess.run(
        [
            sys.executable,
            *("-m", "grpc_tools.protoc"),
            *("-I", str(ROOT / "proto")),
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            f"--plugin=protoc-gen-mypy_grpc={Path(sys.executable).parent / 'protoc-gen-mypy_grpc'}",
            f"--mypy_grpc_out=quiet:{out}",
            *map(str, SOURCES),
        ],
        check=True,
    )
    return out / "windfall" / "contracts" / "v1"


def stubs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix in {".py", ".pyi"}} - {"__init__.py"}


def test_nothing_is_missing_and_nothing_is_left_over(generated: Path) -> None:
    assert len(SOURCES) == 6
    assert stubs(KEPT) == stubs(generated)
    assert len(stubs(generated)) == 4 * len(SOURCES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
@pytest.mark.parametrize("ending", ["_pb2.py", "_pb2.pyi", "_pb2_grpc.py", "_pb2_grpc.pyi"])
def test_a_stub_is_what_its_source_says(generated: Path, source: Path, ending: str) -> None:
    name = source.stem + ending
    assert (KEPT / name).read_text() == (generated / name).read_text(), "run `make proto`"
