"""The value sets of the two charts (``ci/*-values.yaml``), as Helm's own engine renders each."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from windfall.cli.gitops.charts import rendered, values_of
from windfall.cli.gitops.documents import Object

ROOT: Final = Path(__file__).resolve().parents[2]
CHARTS: Final = ROOT / "deploy" / "charts"
RELEASE: Final = "one"
NAMESPACE: Final = "windfall"
SETS: Final = tuple(
    f"{chart}/{path.name.removesuffix('-values.yaml')}"
    for chart in ("hub", "site")
    for path in sorted((CHARTS / chart / "ci").glob("*-values.yaml"))
)
"""``chart/set``."""
INSECURE: Final = tuple(name for name in SETS if name.endswith("/insecure"))


def values(name: str) -> dict[str, Any]:
    """The values of one set."""
    chart, _, kind = name.partition("/")
    return values_of(CHARTS / chart / "ci" / f"{kind}-values.yaml")


@cache
def objects(name: str) -> tuple[Object, ...]:
    """What one set renders to."""
    return rendered(CHARTS / name.partition("/")[0], values(name), RELEASE, NAMESPACE)


def changed(name: str, change: dict[str, Any], namespace: str = NAMESPACE) -> tuple[Object, ...]:
    """What it renders to with other values laid over it, as ``-f`` twice does."""
    return rendered(CHARTS / name.partition("/")[0], laid_over(values(name), change), RELEASE, namespace)


def laid_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Maps are merged, all else is replaced, and ``None`` takes away."""
    made = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = laid_over(made[key], value) if both else value
    return made


def of_kind(name: str, *kinds: str) -> list[Object]:
    return [obj for obj in objects(name) if obj["kind"] in kinds]


def pods(name: str) -> Iterator[tuple[str, Object, dict[str, Any]]]:
    """Name of the workload, the workload, and its pod's specification."""
    for obj in of_kind(name, "StatefulSet", "Deployment"):
        yield obj["metadata"]["name"], obj, obj["spec"]["template"]["spec"]


def nats_conf(found: tuple[Object, ...]) -> str:
    """The configuration of the NATS server among these objects."""
    (text,) = (obj["data"]["nats.conf"] for obj in found if "nats.conf" in obj.get("data", {}))
    return str(text)
