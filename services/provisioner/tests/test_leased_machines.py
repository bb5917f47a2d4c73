"""Leases that are machines, by Cluster API in both contracts and by k0rdent, with their controllers played."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from windfall.provisioner.judgement import FAILED, KILLED
from windfall.provisioner.machine import NODE_LABEL
from windfall.provisioner.manifests.contracts import REMOTE_MACHINE
from windfall.provisioner.manifests.labels import LEASE, TOKEN, WINDOW
from windfall.provisioner.roster import Roster
from windfall.provisioner.testing.machine_ground import (
    RESOURCES,
    SITE,
    Ground,
    created,
    failed,
    gone_within,
    grounded,
    lease,
    nothing_left,
    there,
    until,
    versions,
)
from windfall.servicekit.kube.kinds import CONFIG_MAP
from windfall.servicekit.testing.kube_api import kube_api

PLATFORMS = [("cluster-api", "v1beta2"), ("k0rdent", "v1beta2"), ("cluster-api", "v1beta1")]
"""The backend, and the contract that its server speaks."""


@pytest.fixture(
    scope="module",
    params=[(server, *platform) for server in ("double", "real") for platform in PLATFORMS],
    ids="-".join,
)
def anywhere(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Of the module, so that one is done with first: a server takes a while to speak another contract."""
    chosen: tuple[str, str, str] = request.param
    return chosen


@pytest.fixture
async def ground(
    anywhere: tuple[str, str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Ground]:
    """On the double, and on a real API server where there is one."""
    server, platform, version = anywhere
    if server == "real":
        async with grounded(request.getfixturevalue("real_kubeconfig"), platform, version) as ground:
            yield ground
        return
    async with kube_api(tmp_path) as (api, kubeconfig), grounded(kubeconfig, platform, version) as ground:
        ground.api = api
        yield ground


async def test_a_lease_is_a_machine_that_comes_and_goes(ground: Ground) -> None:
    wanted = lease()
    node = await ground.backend.start(wanted, {})
    assert await ground.count() == 1
    assert await ground.backend.ready(node)
    machine = await ground.machine_of(node)
    assert machine["metadata"]["labels"][WINDOW] == str(wanted.window_id)
    assert machine["metadata"]["labels"][NODE_LABEL] == str(wanted.lease_id)
    assert machine["metadata"]["annotations"][TOKEN] == "1"
    await ground.backend.drain(node)
    assert await ground.backend.wait(node) == 0
    assert await ground.count() == 0
    await until(ground.machines, [])
    assert len(ground.controllers.created) == 1


async def test_two_leases_are_two_machines_and_each_leaves_with_its_own(ground: Ground) -> None:
    nodes = await asyncio.gather(*(ground.backend.start(lease(token), {}) for token in (1, 2, 3)))
    assert await ground.count() == 3
    for node in nodes:
        assert await ground.backend.ready(node)
    leaving = await ground.machine_of(nodes[1])
    await ground.backend.drain(nodes[1])
    assert await ground.backend.wait(nodes[1]) == 0
    assert set(ground.controllers.taken) == {leaving["metadata"]["name"]}
    assert len(ground.controllers.created) == 3
    assert await ground.count() == 2


async def test_a_machine_that_fails_ends_its_lease_with_the_platforms_reason(ground: Ground) -> None:
    ground.controllers.manner = "fail"
    node = await ground.backend.start(lease(), {})
    said = [trouble async for trouble in ground.backend.troubles(node)]
    assert "CreateError: the machine does not answer on port 22" in said
    assert said[-1] == "CreateError: the machine does not answer on port 22"
    assert not await ground.backend.ready(node)
    assert await ground.backend.wait(node) == FAILED
    assert await ground.backend.wait(node) is None
    await nothing_left(ground)


async def test_a_machine_that_failed_has_an_exit_code(bare: Ground) -> None:
    bare.controllers.manner = "fail"
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.wait(node) == FAILED


async def test_a_machine_that_failed_before_it_was_given_is_found_out(bare: Ground) -> None:
    first = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(first)
    await bare.backend.close()
    bare.controllers.manner = "fail"
    name = (await bare.object())["metadata"]["name"]
    await bare.cluster.patch(bare.kind, name, bare.namespace, {"spec": bare.counted().counting(2)})
    await until(lambda: failed(bare), 1)
    bare.backend = bare.make()
    node = await bare.backend.start(lease(2), {})
    assert await bare.backend.wait(node) == FAILED


async def test_a_machine_that_stalls_says_for_what_and_is_killed(bare: Ground) -> None:
    bare.controllers.manner = "stall"
    node = await bare.backend.start(lease(), {})
    async for trouble in bare.backend.troubles(node):
        if trouble == "InfrastructureReady False (NotReady: it does not come)":
            await bare.backend.kill(node)
    assert await bare.backend.wait(node) == KILLED
    await nothing_left(bare)


async def test_the_drain_is_waited_for_and_a_kill_is_not_kept_waiting(bare: Ground) -> None:
    bare.controllers.drained.clear()
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    await bare.backend.drain(node)
    assert await gone_within(bare, node, 0.7) == "still there"
    await bare.backend.kill(node)
    assert await bare.backend.wait(node) == KILLED
    await nothing_left(bare)


async def test_a_slow_delete_is_seen_to_its_end_by_the_next_life(ground: Ground) -> None:
    ground.controllers.cleaned.clear()
    node = await ground.backend.start(lease(), {})
    assert await ground.backend.ready(node)
    await ground.backend.kill(node)
    # Its count is given back long before it is gone.
    await until(ground.count, 0)
    assert await gone_within(ground, node, 0.7) == "still there"
    await ground.restart()
    assert await ground.backend.adopt() == (node,)
    assert not (await ground.count())
    await ground.backend.kill(node)
    ground.controllers.cleaned.set()
    ground.controllers.nudge()
    assert await ground.backend.wait(node) == KILLED
    await nothing_left(ground)


async def test_another_lease_does_not_wait_for_a_slow_delete(bare: Ground) -> None:
    bare.controllers.cleaned.clear()
    first = await bare.backend.start(lease(1), {})
    assert await bare.backend.ready(first)
    await bare.backend.kill(first)
    second = await bare.backend.start(lease(2), {})
    assert await bare.backend.ready(second)
    assert await gone_within(bare, first, 0.1) == "still there"
    bare.controllers.cleaned.set()
    bare.controllers.nudge()
    assert await bare.backend.wait(first) == KILLED
    assert await bare.count() == 1


async def test_a_machine_that_somebody_deletes_takes_its_lease_along(bare: Ground) -> None:
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    found = await bare.machine_of(node)
    await bare.cluster.delete(bare.controllers.machines, found["metadata"]["name"], bare.namespace)
    assert await bare.backend.wait(node) is None
    await until(bare.machines, [])
    await nothing_left(bare)


async def test_a_machine_that_vanished_while_nobody_looked_is_not_replaced_unsaid(bare: Ground) -> None:
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    await bare.backend.close()
    found = await bare.machine_of(node)
    await bare.cluster.delete(bare.controllers.machines, found["metadata"]["name"], bare.namespace)
    await until(lambda: created(bare), 2)
    bare.backend = bare.make()
    assert await bare.backend.adopt() == (node,)
    assert await bare.backend.wait(node) is None


async def test_a_count_that_somebody_changes_is_put_right(ground: Ground) -> None:
    node = await ground.backend.start(lease(), {})
    assert await ground.backend.ready(node)
    name = (await ground.object())["metadata"]["name"]
    await ground.cluster.patch(ground.kind, name, ground.namespace, {"spec": ground.counted().counting(3)})
    if ground.platform == "k0rdent":
        # Its template says which goes; if it is the lease's, the lease says so and ends.
        await until(lambda: matches(ground), True)
        return
    await until(ground.count, 1)
    await until(lambda: there(ground), 1)
    assert await ground.machine_of(node)


async def matches(ground: Ground) -> bool:
    """Whether there are as many machines as the leases want, and as the object says."""
    wanted = Roster.of(await ground.object()).count
    return await ground.count() == wanted == await there(ground)


async def test_a_lease_is_started_once_however_often_it_is_asked_for(bare: Ground) -> None:
    wanted = lease()
    node = await bare.backend.start(wanted, {})
    assert await bare.backend.start(wanted, {}) == node
    await bare.restart()
    assert await bare.backend.start(wanted, {}) == node
    assert await bare.backend.ready(node)
    assert await bare.count() == 1
    assert len(bare.controllers.created) == 1


async def test_what_is_so_already_is_not_written_again(ground: Ground) -> None:
    wanted = lease()
    node = await ground.backend.start(wanted, {})
    assert await ground.backend.ready(node)
    await until(lambda: named(ground), True)
    before = await versions(ground)
    await ground.restart()
    assert await ground.backend.adopt() == (node,)
    await ground.restart()
    assert await ground.backend.start(wanted, {}) == node
    assert await ground.backend.ready(node)
    await asyncio.sleep(0.5)
    assert await versions(ground) == before


async def named(ground: Ground) -> bool:
    """Whether every RemoteMachine says whose it is, which it does a moment after its lease is ready."""
    remotes = (await ground.cluster.list(REMOTE_MACHINE.at(ground.version), ground.namespace)).items
    return all(LEASE in each["metadata"]["labels"] for each in remotes)


async def test_a_plan_shows_what_is_written_and_writes_nothing(ground: Ground) -> None:
    before = await versions(ground)
    lines = [json.loads(line) for line in await ground.backend.plan(lease(), {})]
    after = await versions(ground)
    assert set(after) - set(before) <= {("ConfigMap", f"windfall-{SITE}")}
    assert ground.counted().count(lines[-1]) == 1
    assert lines[-1]["kind"] in ("MachineDeployment", "ClusterDeployment")
    assert all(line["metadata"].get("ownerReferences") for line in lines)


async def test_everything_has_an_owner(bare: Ground) -> None:
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    theirs = {"cred", "remote-1-0-0", f"windfall-{SITE}", "kube-root-ca.crt"}
    ours = [key for key in await versions(bare) if key[1] not in theirs]
    assert len(ours) >= 3
    kinds = {kind.kind: kind for kind in [r.at(bare.version if len(r.versions) > 1 else "v1beta1") for r in RESOURCES]}
    for kind, name in ours:
        found = await bare.cluster.get(kinds.get(kind, CONFIG_MAP), name, bare.namespace)
        assert found and found["metadata"]["ownerReferences"], f"{kind} {name} has no owner"


async def test_a_lease_of_two_workers_is_two_machines(bare: Ground) -> None:
    wanted = lease().model_copy(update={"workers": 2})
    node = await bare.backend.start(wanted, {})
    other = await bare.backend.start(lease(2), {})
    assert await bare.count() == 3
    assert await bare.backend.ready(node)
    assert await bare.backend.ready(other)
    await bare.restart()
    assert set(await bare.backend.adopt()) == {node, other}
    assert await bare.backend.ready(node)
    await bare.backend.drain(node)
    assert await bare.backend.wait(node) == 0
    assert await bare.count() == 1
    assert await bare.machine_of(other)
