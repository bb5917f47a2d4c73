"""Charts as Helm's own engine renders them, so that nothing here differs from what Helm, Flux or k0rdent would do."""

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import yaml

from windfall.cli.gitops.documents import Object, read
from windfall.cli.unambiguous import Unambiguous
from windfall.servicekit.errors import ExitCode, Mistake

DEPLOY: Final = Path(__file__).resolve().parents[6] / "deploy"
"""Charts of this checkout."""
FLEET: Final = Path("k0rdent/charts/fleet")
_PREFIX: Final = re.compile(r"^.*?execution error at \([^)]*\): ", re.DOTALL)
_TOLD: Final = 3
"""Mistakes told at once."""


def rendered(chart: Path, values: Mapping[str, Any], name: str, namespace: str) -> tuple[Object, ...]:
    """The objects of a chart, in the order of its templates' names.

    Raises:
        Mistake: the values are not what the chart's schema or its templates want; Helm's engine is not installed.
    """
    try:
        import helm_python
    except ImportError as error:
        raise Mistake(
            "Helm's engine is not installed", "Install it with: pip install 'windfall-cli[gitops]'", ExitCode.RESOURCE
        ) from error
    try:
        with _without_links(chart) as folder, helm_python.Chart.load(folder) as loaded:
            files = loaded.render(dict(values), name=name, namespace=namespace)
    except helm_python.HelmChartLoadError as error:
        raise Mistake(
            f"{chart} is no chart ({_line(error)})", "Name a checkout's deploy folder", ExitCode.RESOURCE
        ) from error
    except helm_python.HelmValuesError as error:
        raise Mistake(
            _refused(str(error)), "Correct the values; the chart's values.schema.json says what they may be"
        ) from error
    except helm_python.HelmError as error:
        raise Mistake(_PREFIX.sub("", _line(error)), "Correct the values and render again") from error
    return tuple(obj for file in sorted(files) if file.endswith(".yaml") for obj in read(files[file], file))


@contextmanager
def _without_links(chart: Path) -> Iterator[Path]:
    """The engine says on stderr of every link that it follows one: it gets a copy that has none."""
    if not chart.is_dir():
        yield chart
        return
    with TemporaryDirectory() as folder:
        yield Path(shutil.copytree(chart, Path(folder) / chart.name))


def values_of(path: Path) -> dict[str, Any]:
    """A values file.

    Raises:
        Mistake: it cannot be read, is no YAML, says one thing twice, or is no mapping.
    """
    try:
        found = yaml.load(path.read_text(encoding="utf-8"), Unambiguous)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"cannot read {path} ({error})", "Name a values file", ExitCode.RESOURCE) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Mistake(f"{path} is no YAML ({_line(error)})", "Correct it there") from error
    if not isinstance(found, dict):
        raise Mistake(f"{path} holds no mapping", "Start from deploy/k0rdent/examples/study/fleet.yaml")
    return found


def _refused(text: str) -> str:
    told = [line.removeprefix("- ") for line in text.splitlines() if line.startswith("- ")]
    more = f"; and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return "the values are wrong " + "; ".join(told[:_TOLD]) + more if told else _line(text)


def _line(error: object) -> str:
    return " ".join(str(error).split())
