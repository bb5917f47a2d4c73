"""The roles of ``deploy/management`` are enough for a machine's whole life, and read no Secret."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from windfall.provisioner.testing.granted import SOMEBODY, granted
from windfall.provisioner.testing.machine_ground import Ground, grounded, lease
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import SECRET
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
    for one in made:
        if "Cluster" not in one["kind"]:
            one["metadata"]["namespace"] = ground.namespace
    listed = [(ground.kind, ground.namespace)]
    async with (
        granted(ground.cluster, ground.kubeconfig, tmp_path, made, listed) as restricted,
        Cluster.connect(Connection(restricted)) as theirs,
    ):
        yield theirs


def bound(role: Object) -> Object:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role["kind"], "name": role["metadata"]["name"]}
    return {
        "apiVersion": role["apiVersion"],
        "kind": f"{role['kind']}Binding",
        "metadata": {"name": role["metadata"]["name"]},
        "roleRef": reference,
        "subjects": [SOMEBODY],
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
