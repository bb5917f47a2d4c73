"""Machines that are reached by SSH: a pool that is exhausted, one that does not answer, and what is free again after a
lease, with k0smotron's part played as it plays it, in both contracts."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from windfall.provisioner.holdings import Node
from windfall.provisioner.judgement import FAILED, KILLED
from windfall.provisioner.manifests.contracts import POOLED_MACHINE, REMOTE_MACHINE
from windfall.provisioner.manifests.labels import LEASE, SITE, TOKEN, WINDOW
from windfall.provisioner.manifests.pooled_machines import UNREACHABLE
from windfall.provisioner.testing.machine_ground import Ground, gone_within, grounded, lease, nothing_left, until
from windfall.servicekit.testing.kube_api import kube_api

CONTRACTS = ["v1beta2", "v1beta1"]


@pytest.fixture(
    scope="module", params=[(server, version) for server in ("double", "real") for version in CONTRACTS], ids="-".join
)
def anywhere(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Of the module, so that one is done with first: a server takes a while to speak another contract."""
    chosen: tuple[str, str] = request.param
    return chosen


@pytest.fixture
async def ground(anywhere: tuple[str, str], request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """With a pool of three: 192.0.2.1 to 192.0.2.3."""
    server, version = anywhere
    if server == "real":
        async with grounded(request.getfixturevalue("real_kubeconfig"), "cluster-api", version) as ground:
            yield ground
        return
    async with kube_api(tmp_path) as (_, kubeconfig), grounded(kubeconfig, "cluster-api", version) as ground:
        yield ground


def pool_of(count: int) -> list[dict[str, Any]]:
    return [{"name": f"m{n}", "address": f"192.0.2.{n}", "sshKeySecret": "ssh"} for n in range(1, count + 1)]


async def pool(ground: Ground) -> dict[str, tuple[str, bool]]:
    """Pool and whether it is taken, of each."""
    found = (await ground.cluster.list(POOLED_MACHINE.at(ground.version), ground.namespace)).items
    return {
        each["metadata"]["name"]: (each["spec"]["pool"], bool((each.get("status") or {}).get("reserved")))
        for each in found
    }


async def says(ground: Ground, node: Node, what: str) -> None:
    """Return once the lease says so."""
    async with asyncio.timeout(60):
        async for trouble in ground.backend.troubles(node):
            if trouble == what:
                return
    raise AssertionError(f"it never said: {what}")


async def again(ground: Ground, **said: Any) -> None:
    """Another life with other parameters."""
    await ground.backend.close()
    ground.said = said
    ground.backend = ground.make()


async def test_a_lease_takes_a_machine_of_the_pool_and_gives_it_back(ground: Ground) -> None:
    wanted = lease()
    node = await ground.backend.start(wanted, {})
    assert await ground.backend.ready(node)
    assert sorted(taken for _, taken in (await pool(ground)).values()) == [False, False, True]
    remotes = (await ground.cluster.list(REMOTE_MACHINE.at(ground.version), ground.namespace)).items
    (remote,) = remotes
    assert remote["spec"]["address"] == "192.0.2.3"
    assert remote["spec"]["sshKeyRef"] == {"name": "ssh"}
    await until(lambda: labels(ground, LEASE), [str(wanted.lease_id)])
    assert await labels(ground, WINDOW) == [str(wanted.window_id)]
    assert await labels(ground, SITE) == ["site-a"]
    await ground.backend.drain(node)
    assert await ground.backend.wait(node) == 0
    await nothing_left(ground)
    assert set((await pool(ground)).values()) == {("site-a", False)}
    found = (await ground.cluster.list(POOLED_MACHINE.at(ground.version), ground.namespace)).items
    assert not [each for each in found if LEASE in each["metadata"]["labels"]], "it would travel to the next machine"
    assert not [each for each in found if TOKEN in (each["metadata"].get("annotations") or {})]


async def labels(ground: Ground, label: str) -> list[str | None]:
    remotes = (await ground.cluster.list(REMOTE_MACHINE.at(ground.version), ground.namespace)).items
    return [each["metadata"]["labels"].get(label) for each in remotes]


async def test_a_pool_that_is_exhausted_is_said_so_and_the_next_free_machine_serves(ground: Ground) -> None:
    await again(ground, machines=pool_of(2))
    nodes = [await ground.backend.start(lease(token), {}) for token in (1, 2)]
    for node in nodes:
        assert await ground.backend.ready(node)
    third = await ground.backend.start(lease(3), {})
    await says(ground, third, "the pool site-a is exhausted: all 2 of its machines are taken")
    await ground.backend.drain(nodes[0])
    assert await ground.backend.wait(nodes[0]) == 0
    assert await ground.backend.ready(third)
    assert sorted((await pool(ground)).values()) == [("site-a", True)] * 2


async def test_a_pool_without_machines_is_said_so(ground: Ground) -> None:
    await again(ground, machines=[])
    node = await ground.backend.start(lease(), {})
    await says(ground, node, "the pool site-a has no machines: name some as machines, or fill it")
    await ground.backend.kill(node)
    assert await ground.backend.wait(node) == KILLED
    await nothing_left(ground)


async def test_a_machine_that_does_not_answer_is_named_and_the_next_attempt_gets_another(ground: Ground) -> None:
    ground.controllers.k0smotron.unreachable = {"192.0.2.3"}
    wanted = lease()
    node = await ground.backend.start(wanted, {})
    why = "ProvisionFailed: failed to dial: dial tcp {}:22: i/o timeout"
    await says(ground, node, f"site-a-m3: {why.format('site-a-m3')}")
    if ground.version == "v1beta2":
        # Nothing in the newer contract ends it but the provisioner's own patience.
        await ground.backend.kill(node)
        assert await ground.backend.wait(node) == KILLED
    else:
        assert await ground.backend.wait(node) == FAILED
    await ground.backend.start(wanted, {})
    assert await ground.backend.ready(node)
    # One that was taken may be taken again by the same: what the controller saw was older than what it wrote.
    assert list(dict.fromkeys(ground.controllers.k0smotron.taken)) == ["site-a-m3", "site-a-m2"]
    assert (await pool(ground))["site-a-m3"] == ("site-a-unreachable", False)
    found = await ground.cluster.get(POOLED_MACHINE.at(ground.version), "site-a-m3", ground.namespace)
    assert found and found["metadata"]["annotations"][UNREACHABLE] == why.format("192.0.2.3")


async def test_a_machine_that_answers_again_is_as_good_as_the_others(ground: Ground) -> None:
    ground.controllers.k0smotron.unreachable = {"192.0.2.2"}
    await again(ground, machines=pool_of(2))
    first = await ground.backend.start(lease(1), {})
    await says(ground, first, "site-a-m2: ProvisionFailed: failed to dial: dial tcp site-a-m2:22: i/o timeout")
    await ground.backend.kill(first)
    await ground.backend.wait(first)
    second = await ground.backend.start(lease(2), {})
    assert await ground.backend.ready(second)
    await until(lambda: pool(ground), {"site-a-m1": ("site-a", True), "site-a-m2": ("site-a", False)})
    ground.controllers.k0smotron.unreachable = set()
    third = await ground.backend.start(lease(3), {})
    assert await ground.backend.ready(third), "with no other one free it is tried again"
    await until(lambda: unreachable(ground), [])
    for node in (second, third):
        await ground.backend.drain(node)
        assert await ground.backend.wait(node) == 0
    await until(lambda: pool(ground), {"site-a-m1": ("site-a", False), "site-a-m2": ("site-a", False)})


async def unreachable(ground: Ground) -> list[str]:
    found = (await ground.cluster.list(POOLED_MACHINE.at(ground.version), ground.namespace)).items
    return [each["metadata"]["name"] for each in found if UNREACHABLE in (each["metadata"].get("annotations") or {})]


async def test_a_machine_that_is_slow_to_clean_up_is_taken_until_it_is_done(ground: Ground) -> None:
    await again(ground, machines=pool_of(1))
    ground.controllers.cleaned.clear()
    first = await ground.backend.start(lease(1), {})
    assert await ground.backend.ready(first)
    await ground.backend.kill(first)
    second = await ground.backend.start(lease(2), {})
    await says(ground, second, "the pool site-a is exhausted: all 1 of its machines are taken")
    assert await gone_within(ground, first, 0.1) == "still there"
    ground.controllers.cleaned.set()
    ground.controllers.nudge()
    assert await ground.backend.wait(first) == KILLED
    assert await ground.backend.ready(second)


async def test_a_machine_that_is_named_no_more_leaves_the_pool_once_it_is_free(ground: Ground) -> None:
    await again(ground, machines=pool_of(2))
    first = await ground.backend.start(lease(1), {})
    assert await ground.backend.ready(first)
    assert (await pool(ground))["site-a-m2"] == ("site-a", True)
    await again(ground, machines=pool_of(1))
    assert await ground.backend.adopt() == (first,)
    assert await ground.backend.ready(first)
    assert set(await pool(ground)) == {"site-a-m1", "site-a-m2"}
    await ground.backend.drain(first)
    assert await ground.backend.wait(first) == 0
    await until(lambda: pool(ground), {"site-a-m1": ("site-a", False)})
