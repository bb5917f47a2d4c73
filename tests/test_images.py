"""The images' rules, which need no engine: what a Dockerfile may say, and that an image brings all that it imports."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from deploy.images import sbom
from deploy.images.catalogue import IMAGES, ROOT, TORCH, TORCH_NEEDS, Image
from deploy.images.context import Source, parts
from deploy.images.engine import ENGINES, Name, build
from deploy.images.install import FOR_OTHERS, stripped
from deploy.images.requirements import locked, needed

ALL = (TORCH, *IMAGES)
PYTHON = "3.11"
LABELS = ("title", "description", "version", "revision", "source", "licenses")


@dataclass(frozen=True)
class Import:
    """One import statement that can be reached from a service."""

    name: str
    where: str
    lazy: bool
    """Within a function: it is looked for when that is called."""


def lines(image: Image) -> list[str]:
    """A Dockerfile's instructions, each on one line."""
    text = re.sub(r"\\\n\s*", " ", image.dockerfile.read_text(encoding="utf-8"))
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def told(image: Image, instruction: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in lines(image) if line.split(" ", 1)[0] == instruction]


@pytest.mark.parametrize("image", ALL, ids=lambda image: image.name)
def test_a_base_is_pinned_by_digest_and_the_rest_by_the_lock(image: Image) -> None:
    assert all(stage in ("${BASE} AS install", "${BASE}") for stage in told(image, "FROM")), "no base but BASE"
    default = told(image, "ARG")[0]
    # Whoever asks for torch says which; without saying it nothing is built.
    assert default == "BASE" if image.torch else re.fullmatch(r"BASE=\S+:\S+@sha256:[0-9a-f]{64}", default)
    assert not re.search(r"\blatest\b|https?://(?!github\.com/windfall-dev)", " ".join(lines(image)))
    assert not told(image, "ADD")
    assert not [line for line in told(image, "RUN") if "install" in line and "install.py" not in line]


@pytest.mark.parametrize("image", ALL, ids=lambda image: image.name)
def test_nobody_is_root_and_everything_is_labelled(image: Image) -> None:
    assert told(image, "USER")[-1] == "65532:65532"
    assert all(f'org.opencontainers.image.{label}="' in told(image, "LABEL")[0] for label in LABELS)
    assert len(told(image, "ENTRYPOINT")) == 1
    assert told(image, "ENTRYPOINT")[0].startswith("["), "signals go to the process, and no shell is needed"


@pytest.mark.parametrize("image", ALL, ids=lambda image: image.name)
def test_every_service_can_be_asked_how_it_is(image: Image) -> None:
    (check,) = told(image, "HEALTHCHECK")
    assert check.endswith('CMD ["windfall-health", "readyz"]') if image.kind == "service" else check == "NONE"
    if image.kind == "service":
        assert "WINDFALL_HEALTH_PORT=8081" in " ".join(told(image, "ENV"))
        assert "/state /var/lib/windfall" in " ".join(told(image, "COPY"))


def test_every_service_has_an_image_and_every_image_a_dockerfile() -> None:
    services = {folder.name for folder in (ROOT / "services").iterdir() if (folder / "pyproject.toml").exists()}
    assert services <= {image.name for image in IMAGES}
    found = {
        path.relative_to(ROOT).parent.as_posix() for path in ROOT.glob("*/**/Dockerfile") if "build" not in path.parts
    }
    assert found == {image.folder for image in ALL}


EXTRA = ("windfall.cli.gitops", "windfall.cli.declared")
"""Of the command: its image leaves that extra out, and the command says so where it would need it."""
LOOKED_FOR = {
    "torch": "the profiler's children run where it is there, and say so where it is not",
    "amdsmi": "AMD's own, of the host's driver",
    **dict.fromkeys(("helm_python", "kubernetes", "aiohttp"), "the command's extra `gitops`"),
    "pytest": "fixtures for who writes an adapter",
    "numpy": "the simulator; a watcher does not call it",
}
"""What may be missing, and why."""


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_brings_all_that_it_imports(image: Image) -> None:
    """Statically, functions included: whatever a started module may come to import is pinned for its image."""
    found = parts(image, PYTHON)
    provided = {*found.others, *({"torch", *TORCH_NEEDS} if image.torch else ())}
    providers = packages_distributions()
    missing = {}
    for one in reached([root.partition("[")[0] for root in image.packages]):
        top = one.name.partition(".")[0]
        # A namespace (google, opentelemetry) has many providers: which one is not told by its first part.
        if top in sys.stdlib_module_names or {canonicalize_name(name) for name in providers.get(top, ())} & provided:
            continue
        if not (top in LOOKED_FOR and one.lazy):
            missing[one.name] = one.where
    assert not missing


def reached(distributions: Sequence[str]) -> Iterator[Import]:
    """Imports of other people's modules, from every module of these distributions and what of ours they import."""
    sources = (*ROOT.glob("libs/*/src"), *ROOT.glob("services/*/src"))
    modules = {name: path for source in sources for name, path in _in(source)}
    starts = tuple(name.replace("windfall-", "windfall.", 1).replace("-", "_") for name in distributions)
    begun = [
        name for name in modules if name.startswith(starts) and not name.startswith(EXTRA) and ".testing" not in name
    ]
    # What is imported at the start is followed first: reached from there, a module is needed whoever else asks for it.
    waiting = [(False, name) for name in begun]
    seen = set(begun)
    while waiting:
        waiting.sort(reverse=True)
        lazy, name = waiting.pop()
        for one in _imports(modules[name], name):
            if not one.name.startswith("windfall"):
                yield replace(one, lazy=lazy or one.lazy)
                continue
            fresh = {found for found in (one.name, one.name.rpartition(".")[0]) if found in modules} - seen
            seen |= fresh
            waiting += [(lazy or one.lazy, found) for found in fresh]


def _in(source: Path) -> Iterator[tuple[str, Path]]:
    for path in source.rglob("*.py"):
        yield ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__"), path


def _imports(path: Path, module: str) -> Iterator[Import]:
    """What a module imports, but for its types alone or behind a guard against its absence."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, module, lazy) for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (Import(f"{node.module}.{alias.name}", module, lazy) for alias in node.names)
        guarded = isinstance(node, ast.Try) and any("Import" in ast.unparse(h.type or h) for h in node.handlers)
        within = lazy or guarded or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, within)

    yield from walk(ast.parse(path.read_text(encoding="utf-8")), False)


WITHOUT = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in left_out or name.startswith(tuple(f"{one}." for one in left_out)):
            raise ModuleNotFoundError(f"{name} is left out of images", name=name)
left_out = sys.argv[1].split(",")
sys.meta_path.insert(0, Absent())
for name in sys.argv[2:]:
    importlib.import_module(name)
print("all of them")
"""


def test_what_images_leave_out_is_imported_by_nobody() -> None:
    started = [name for image in IMAGES if image.kind == "service" for name in image.packages]
    begun = tuple({name.partition("[")[0].removeprefix("windfall-").replace("-", "_") for name in started})
    modules = [
        name
        for source in (*ROOT.glob("libs/servicekit/src"), *ROOT.glob("services/*/src"))
        for name, _ in _in(source)
        if name.startswith(tuple(f"windfall.{one}" for one in (*begun, "servicekit")))
        and ".testing" not in name
        and not name.endswith("site_trainer.ranks.__main__")
    ]
    modules += [f"opentelemetry.exporter.otlp.proto.grpc.{of}_exporter" for of in ("metric", "trace")]
    left_out = ",".join((*(name.replace("/", ".") for name in FOR_OTHERS), "tzdata"))
    said = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT, left_out, *modules], capture_output=True, text=True, check=False
    )
    assert said.stdout == "all of them\n", said.stderr[-1000:]


def test_a_stripped_library_is_smaller_and_loads(tmp_path: Path) -> None:
    found = Path(str(importlib.util.find_spec("multidict._multidict").origin))  # type: ignore[union-attr]
    library = found.read_bytes()
    kept = stripped(library)
    assert len(kept) < len(library) and stripped(kept) == kept
    (tmp_path / found.name).write_bytes(kept)
    loaded = "import _multidict; assert _multidict.__file__.startswith({0!r}); print(_multidict.istr('A'))"
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys, multidict; sys.path.insert(0, {str(tmp_path)!r}); " + loaded.format(str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout == "A\n", said.stderr
    assert stripped(b"#!/bin/sh") == b"#!/bin/sh"


def test_small_images_have_nothing_heavy() -> None:
    for image in IMAGES:
        if not image.torch and image.kind == "service":
            assert (
                not {"torch", "numpy", "matplotlib", "flwr", "grpcio-tools", "pip"} & parts(image, PYTHON).others.keys()
            )


def test_what_is_needed_is_followed_through_extras_and_markers() -> None:
    ours: dict[str, dict[str, Any]] = {
        "windfall-a": {"dependencies": ["windfall-b[fast]", "torch"]},
        "windfall-b": {"dependencies": ["x"], "optional-dependencies": {"fast": ["y[z]", "w; python_version < '3'"]}},
    }
    others = {"x": ["v ; extra == 'more'"], "y": ["u ; extra == 'z'", "x"], "u": ["y"]}
    found = needed(["windfall-a"], ours, lambda name: others[name], {"python_version": "3.11"})
    assert [sorted(names) for names in found] == [["windfall-a", "windfall-b"], ["u", "x", "y"]]


def test_what_the_lock_does_not_pin_is_said() -> None:
    pins = ("a==1 ; python_version < '3'", "a==2", "b==3")
    lock = "".join(f"{pin} --hash=sha256:{number}\n" for number, pin in enumerate(pins))
    assert locked(lock, ["a"])["a"].count("--hash") == 2
    with pytest.raises(ValueError, match="does not pin c, d: run `make lock`"):
        locked(lock, ["a", "d", "c"])


def test_every_pin_has_its_hash() -> None:
    for image in ALL:
        for block in parts(image, PYTHON).others.values():
            assert re.search(r"==\S+.*\\\n\s+--hash=sha256:[0-9a-f]{64}", block), block


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_told_the_same(engine: Name) -> None:
    made_from = Source("1.2.3", "abc", 0)
    command = build(engine, Path("Dockerfile"), Path("context"), "registry/name:1.2.3", {"BASE": "base"}, made_from)
    said = " ".join(command)
    for part in (
        "-f Dockerfile",
        "-t registry/name:1.2.3",
        "BASE=base",
        "VERSION=1.2.3",
        "REVISION=abc",
        "1970-01-01T",
    ):
        assert part in said
    assert ("--network=none" in command) is (engine != "buildah")
    assert command[-1] == "context"


def test_the_sbom_is_a_valid_document_of_exactly_what_is_pinned(tmp_path: Path) -> None:
    if not (ROOT / "build" / "tools" / "lock").exists():
        pytest.skip("the SBOM's tool is not installed; `make images` installs it")
    image = IMAGES[2]
    pinned = parts(image, PYTHON).others
    requirements, document = tmp_path / "requirements.txt", tmp_path / "sbom.cdx.json"
    requirements.write_text("".join(pinned.values()))
    sbom.write(image, requirements, "1.2.3", 0, document)
    found = json.loads(document.read_text())
    assert (found["bomFormat"], found["metadata"]["component"]["version"]) == ("CycloneDX", "1.2.3")
    assert {component["name"] for component in found["components"]} == pinned.keys()
    assert all(component["purl"].startswith("pkg:pypi/") for component in found["components"])
