"""The role that the site's chart gives the provisioner is enough for a node's whole life, and no wider than that."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from windfall.cli.gitops.charts import rendered, values_of
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes import KubernetesBackend
from windfall.provisioner.testing.granted import RIGHTS, SOMEBODY, granted, may_list
from windfall.provisioner.testing.machine_ground import SITE, lease
from windfall.provisioner.testing.pod_stage import eventually, untainted
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import JOB, NODE, POD, SECRET
from windfall.servicekit.testing.kube_examples import Space
from windfall.servicekit.testing.kube_played import Kubelet, node, played

CHART = Path(__file__).parents[3] / "deploy" / "charts" / "site"
SECONDS = 60.0


NEED = {"gpus": 1, "jurisdictions": ["CA"]}


def given(space: Space, tmp_path: Path, need: Mapping[str, Any]) -> AbstractAsyncContextManager[Path]:
    """The kubeconfig of somebody who may do what the chart grants, and nothing else."""
    listed = [(JOB, space.namespace), (POD, None if need else space.namespace)]
    return granted(space.cluster, space.server.kubeconfig, tmp_path, roles(space.namespace, need), listed)


def roles(namespace: str, need: Mapping[str, Any]) -> list[Object]:
    """Those of the chart, bound to whoever is nobody else."""
    values = values_of(CHART / "ci" / "nvidia-values.yaml")
    values["provisioner"] = {**values.get("provisioner", {}), "need": dict(need)}
    values["trainer"]["dedicated"] = not need
    found = [one for one in rendered(CHART, values, "site", namespace) if one["kind"] in RIGHTS]
    for one in found:
        if one["kind"].endswith("Binding"):
            one["subjects"] = [SOMEBODY]
    return found


@pytest.mark.parametrize("need", [{}, NEED], ids=["scheduled", "placed"])
async def test_the_role_is_enough_for_a_nodes_life(space: Space, tmp_path: Path, need: dict[str, Any]) -> None:
    machine = node(f"{space.namespace}-0", {"pool": space.namespace}, nvidia=1)
    placing = {"kube_need": json.dumps(need), "kube_vendor": "nvidia", "kube_runtime_class": "none"} if need else {}
    async with given(space, tmp_path, need) as restricted, played(space.server.kubeconfig, Kubelet(nodes=(machine,))):
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
    async with given(space, tmp_path, NEED) as restricted, Cluster.connect(Connection(restricted)) as theirs:
        with pytest.raises(Mistake, match="secrets"):
            await theirs.get(SECRET, "anything", space.namespace)


async def test_without_a_need_the_pods_of_others_are_not_to_be_seen(space: Space, tmp_path: Path) -> None:
    async with given(space, tmp_path, {}) as restricted, Cluster.connect(Connection(restricted)) as theirs:

        async def refused() -> bool:
            return not await may_list(theirs, POD, None)

        await eventually(refused)
