"""Quotas of a namespace: on the double, and on a control plane that has its own."""

import pytest

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Kind, Object
from windfall.servicekit.kube.kinds import POD
from windfall.servicekit.testing.kube_examples import Space, created_pod, pod, until

QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas")


def asking(space: Space, name: str, gpus: int) -> Object:
    wanted = pod(space, name)
    wanted["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return wanted


async def test_what_is_beyond_a_quota_is_refused_in_its_words(space: Space) -> None:
    hard = {"requests.nvidia.com/gpu": "4", "pods": "3"}
    metadata = {"name": "few", "namespace": space.namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}}
    await space.cluster.create(QUOTA, quota)

    async def counted() -> bool:
        found = await space.cluster.get(QUOTA, "few", space.namespace) or {}
        return space.server.double is not None or bool((found.get("status") or {}).get("hard") == hard)

    await until(counted)
    await created_pod(space, asking(space, "one", 3))
    with pytest.raises(Mistake) as refused:
        await space.cluster.create(POD, asking(space, "two", 2))
    said = "exceeded quota: few, requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=3, limited: "
    assert f'pods "two" is forbidden: {said}requests.nvidia.com/gpu=4' in str(refused.value)
    await created_pod(space, asking(space, "two", 1))
    await created_pod(space, pod(space, "three"))
    with pytest.raises(Mistake, match="exceeded quota: few, requested: pods=1, used: pods=3, limited: pods=3"):
        await space.cluster.create(POD, pod(space, "four"))
