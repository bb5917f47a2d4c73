"""The role that the site's chart gives the provisioner is enough for a node's whole life, and no wider than that."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from windfall.cli.gitops.charts import rendered, values_of
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes import KubernetesBackend
from windfall.provisioner.testing.machine_ground import SITE, lease
from windfall.provisioner.testing.pod_stage import eventually, untainted
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import (
    CLUSTER_ROLE,
    CLUSTER_ROLE_BINDING,
    JOB,
    NODE,
    POD,
    ROLE,
    ROLE_BINDING,
    SECRET,
)
from windfall.servicekit.testing.kube_examples import Space
from windfall.servicekit.testing.kube_played import Kubelet, node, played

CHART = Path(__file__).parents[3] / "deploy" / "charts" / "site"
KINDS = {kind.kind: kind for kind in (ROLE, ROLE_BINDING, CLUSTER_ROLE, CLUSTER_ROLE_BINDING)}
SECONDS = 60.0


NEED = {"gpus": 1, "jurisdictions": ["CA"]}


@asynccontextmanager
async def granted(space: Space, tmp_path: Path, need: Mapping[str, Any]) -> AsyncIterator[Path]:
    """The kubeconfig of somebody who may do what the chart grants, and nothing else."""
    made = roles(space.namespace, need)
    for one in made:
        await space.cluster.create(KINDS[one["kind"]], one)
    restricted = tmp_path / "restricted"
    restricted.write_text(space.server.kubeconfig.read_text().replace("admintoken", "viewtoken"))
    try:
        async with Cluster.connect(Connection(restricted)) as theirs:
            # A real server's authorizer hears of a role a moment after it was written.
            await eventually(partial(may_list, theirs, JOB, space.namespace))
            await eventually(partial(may_list, theirs, POD, None if need else space.namespace))
        yield restricted
    finally:
        for one in made:
            await space.cluster.delete(KINDS[one["kind"]], one["metadata"]["name"], one["metadata"].get("namespace"))


async def may_list(theirs: Cluster, kind: Kind, namespace: str | None) -> bool:
    try:
        await theirs.list(kind, namespace)
    except Mistake:
        return False
    return True


def roles(namespace: str, need: Mapping[str, Any]) -> list[Object]:
    """Those of the chart, bound to whoever is nobody else."""
    values = values_of(CHART / "ci" / "nvidia-values.yaml")
    values["provisioner"] = {**values.get("provisioner", {}), "need": dict(need)}
    values["trainer"]["dedicated"] = not need
    found = [one for one in rendered(CHART, values, "site", namespace) if one["kind"] in KINDS]
    for one in found:
        if one["kind"].endswith("Binding"):
            one["subjects"] = [{"kind": "Group", "name": "viewers", "apiGroup": "rbac.authorization.k8s.io"}]
    return found


@pytest.mark.parametrize("need", [{}, NEED], ids=["scheduled", "placed"])
async def test_the_role_is_enough_for_a_nodes_life(space: Space, tmp_path: Path, need: dict[str, Any]) -> None:
    machine = node(f"{space.namespace}-0", {"pool": space.namespace}, nvidia=1)
    placing = {"kube_need": json.dumps(need), "kube_vendor": "nvidia", "kube_runtime_class": "none"} if need else {}
    async with granted(space, tmp_path, need) as restricted, played(space.server.kubeconfig, Kubelet(nodes=(machine,))):
        settings = TrainerSettings.model_validate(
            {
                "kubeconfig": restricted,
                "kube_namespace": space.namespace,
                "kube_image": "trainer:1",
                "kube_node_selector": {"pool": space.namespace},
                "kube_dedicated": not need,
                "jurisdiction": "CA-QC",
                **placing,
            }
        )
        await untainted(space)
        backend = KubernetesBackend(SITE, settings, "windfall.site_trainer", timedelta(minutes=1), SystemClock())
        try:
            async with asyncio.timeout(SECONDS):
                assert await backend.plan(lease(1), {"WINDFALL_NATS_URL": "nats://trainer:secret@leaf:4222"})
                for end in (backend.drain, backend.kill):
                    started = await backend.start(lease(1 + (end == backend.kill)), {"WINDFALL_SITE": "site-a"})
                    assert await backend.ready(started)
                    assert started in await backend.adopt()
                    await end(started)
                    await backend.wait(started)
        finally:
            await backend.close()
    await space.cluster.delete(NODE, machine["metadata"]["name"])


async def test_the_role_reads_no_secrets(space: Space, tmp_path: Path) -> None:
    async with granted(space, tmp_path, NEED) as restricted, Cluster.connect(Connection(restricted)) as theirs:
        with pytest.raises(Mistake, match="secrets"):
            await theirs.get(SECRET, "anything", space.namespace)


async def test_without_a_need_the_pods_of_others_are_not_to_be_seen(space: Space, tmp_path: Path) -> None:
    async with granted(space, tmp_path, {}) as restricted, Cluster.connect(Connection(restricted)) as theirs:

        async def refused() -> bool:
            return not await may_list(theirs, POD, None)

        await eventually(refused)
