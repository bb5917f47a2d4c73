"""The roles of ``deploy/management`` are enough for a machine's whole life, and read no Secret."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from windfall.provisioner.testing.machine_ground import Ground, grounded, lease
from windfall.provisioner.testing.pod_stage import eventually
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING, SECRET
from windfall.servicekit.testing.kube_examples import ApiServer

ROLES = Path(__file__).parents[3] / "deploy" / "management" / "provisioner-role.yaml"
SECONDS = 60.0


@pytest.fixture(params=["cluster-api", "k0rdent"])
async def ground(api_server: ApiServer, request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    async with grounded(api_server.kubeconfig, request.param, "v1beta2") as ground:
        yield ground


@pytest.fixture
async def theirs(ground: Ground, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Of somebody who may do what the role grants, and nothing else."""
    wanted, made = f"windfall-provisioner-{ground.platform}", []
    for one in yaml.safe_load_all(ROLES.read_text(encoding="utf-8")):
        if one["metadata"]["name"] == wanted:
            made += [one, bound(one)]
    kinds = {kind.kind: kind for kind in (ROLE, ROLE_BINDING, CLUSTER_ROLE, CLUSTER_ROLE_BINDING)}
    for one in made:
        if "Cluster" not in one["kind"]:
            one["metadata"]["namespace"] = ground.namespace
        await ground.cluster.apply(kinds[one["kind"]], one)
    restricted = tmp_path / "restricted"
    restricted.write_text(ground.kubeconfig.read_text().replace("admintoken", "viewtoken"))
    async with Cluster.connect(Connection(restricted)) as theirs:
        # A real server's authorizer hears of a role a moment after it was written.
        await eventually(partial(_may, theirs, ground))
        yield theirs
    for one in made:
        await ground.cluster.delete(kinds[one["kind"]], one["metadata"]["name"], one["metadata"].get("namespace"))


async def _may(theirs: Cluster, ground: Ground) -> bool:
    try:
        await theirs.list(ground.kind, ground.namespace)
    except Mistake:
        return False
    return True


def bound(role: Object) -> Object:
    group = {"kind": "Group", "name": "viewers", "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": role["metadata"]["name"]}
    return {
        "apiVersion": role["apiVersion"],
        "kind": f"{role['kind']}Binding",
        "metadata": {"name": role["metadata"]["name"]},
        "roleRef": reference,
        "subjects": [group],
    }


async def test_the_role_is_enough_for_a_machines_life(ground: Ground, theirs: Cluster) -> None:
    backend = ground.make(theirs)
    try:
        async with asyncio.timeout(2 * SECONDS):
            assert await backend.plan(lease(1), {})
            for number, end in enumerate((backend.drain, backend.kill), 1):
                started = await backend.start(lease(number), {})
                assert await backend.ready(started)
                assert started in await backend.adopt()
                await end(started)
                await backend.wait(started)
    finally:
        await backend.close()


async def test_it_reads_no_secret(ground: Ground, theirs: Cluster) -> None:
    with pytest.raises(Mistake, match="secrets"):
        await theirs.get(SECRET, "anything", ground.namespace)
