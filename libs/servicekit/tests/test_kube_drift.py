"""The same writes, at random, on the double and on a real API server: afterwards both hold the same.

Left out is what a server of version 1.20 does and later ones do not: an apply that empties a list or map is refused
there, and an update claims what it once owned of a map. Where it refuses the first, the double is not asked either.
"""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest

from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import NAMESPACE
from windfall.servicekit.testing.kube_api.field_sets import paths
from windfall.servicekit.testing.kube_examples import WIDGET, WIDGET_SPEC, ApiServer, Space, defined, typed, until

_STEPS: Final = 25
_EMPTIED: Final = 'must be of type array: "null"', 'must be of type object: "null"'


@pytest.fixture
async def spaces(real_kubeconfig: Path, kubeconfig: Path) -> AsyncIterator[tuple[Space, Space]]:
    """On the real one and on the double."""
    name = f"test-{uuid4().hex[:10]}"
    async with AsyncExitStack() as stack:
        found = []
        for path in (real_kubeconfig, kubeconfig):
            cluster = await stack.enter_async_context(Cluster.connect(Connection(path)))
            await cluster.create(NAMESPACE, {"metadata": {"name": name}})
            scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
            await defined(cluster, WIDGET, WIDGET_SPEC, {"status": {}, "scale": scale})
            space = Space(cluster, name, ApiServer(path, None))
            await until(partial(typed, space))
            found.append(space)
        yield found[0], found[1]
        for space in found:
            await space.cluster.delete(NAMESPACE, name)


def _plain_spec(chance: random.Random) -> Object:
    spec: Object = {"size": chance.randint(1, 3)}
    if chance.random() < 0.4:
        spec["steps"] = [str(chance.randint(0, 1)) for _ in range(chance.randint(1, 2))]
    if chance.random() < 0.3:
        spec["color"] = chance.choice(["red", "blue", "green"])
    if chance.random() < 0.3:
        spec["name"] = chance.choice(["aa", "bb", "BAD"])
    if chance.random() < 0.2:
        spec["replicas"] = chance.randint(0, 3)
    return spec


def _whole_spec(chance: random.Random) -> Object:
    spec = _plain_spec(chance)
    if chance.random() < 0.5:
        spec["labels"] = {name: str(chance.randint(0, 2)) for name in chance.sample("abc", chance.randint(1, 2))}
    if chance.random() < 0.5:
        texts = [{}, {"text": "0"}, {"text": "1"}]
        spec["parts"] = [{"id": name, **chance.choice(texts)} for name in chance.sample("xyz", chance.randint(1, 3))]
    if chance.random() < 0.4:
        spec["tags"] = chance.sample(["t", "u", "v"], chance.randint(1, 2))
    return spec


async def _write(space: Space, chance: random.Random) -> tuple[str, str]:
    """One write; the same for the same chance. The sort of its outcome, and what was said."""
    cluster, namespace = space.cluster, space.namespace
    obj: Object = {"apiVersion": WIDGET.api_version, "kind": WIDGET.kind}
    obj["metadata"] = {"name": "w", "namespace": namespace}
    try:
        match chance.random():
            case how if how < 0.6:
                labels = {name: str(chance.randint(0, 1)) for name in chance.sample("lm", chance.randint(0, 2))}
                obj["metadata"] |= {"labels": labels} if labels else {}
                manager, force = chance.choice(["one", "two", "three"]), chance.random() < 0.4
                await cluster.apply(WIDGET, obj | {"spec": _whole_spec(chance)}, manager=manager, force=force)
            case how if how < 0.8:
                await cluster.patch(WIDGET, "w", namespace, {"spec": _plain_spec(chance)})
            case how if how < 0.95:
                status = {"phase": str(chance.randint(0, 2)), "replicas": chance.randint(0, 2)}
                await cluster.apply_status(WIDGET, obj | {"status": status}, manager="status")
            case _:
                await cluster.delete(WIDGET, "w", namespace)
    except (Mistake, Transient) as error:
        return type(error).__name__, str(error)
    return "done", ""


async def _held(space: Space) -> Any:
    """What counts of the object: its order of map items and sets does not."""
    found = await space.cluster.get(WIDGET, "w", space.namespace)
    if found is None:
        return None
    metadata, spec = found["metadata"], dict(found["spec"])
    for name in ("parts", "tags"):
        if name in spec:
            spec[name] = sorted(spec[name], key=str)
    owned: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for entry in metadata["managedFields"]:
        owned.setdefault((entry["manager"], entry["operation"]), set()).update(paths(entry["fieldsV1"]))
    return spec, found.get("status"), metadata["generation"], metadata.get("labels"), owned


@pytest.mark.parametrize("seed", range(12))
async def test_both_hold_the_same(spaces: tuple[Space, Space], seed: int) -> None:
    real, double = spaces
    chance = random.Random(seed)
    for step in range(_STEPS):
        of_step = chance.random()
        outcome, said = await _write(real, random.Random(of_step))
        if any(text in said for text in _EMPTIED):
            continue
        assert (outcome, step) == ((await _write(double, random.Random(of_step)))[0], step), said
        assert await _held(real) == await _held(double), (step, outcome)
