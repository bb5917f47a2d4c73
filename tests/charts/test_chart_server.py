"""What the charts render is taken by an API server, by server-side apply, and taken again without a change: the double,
and a real one where there is one."""

import pytest

from tests.charts.value_sets import SETS, changed
from windfall.cli.gitops.documents import Object
from windfall.servicekit.kube import Cluster, Kind, kinds
from windfall.servicekit.testing.kube_examples import Space

KINDS = {
    (kind.api_version, kind.kind): kind
    for kind in (
        kinds.CLUSTER_ROLE,
        kinds.CLUSTER_ROLE_BINDING,
        kinds.CONFIG_MAP,
        kinds.CRD,
        kinds.DEPLOYMENT,
        kinds.NETWORK_POLICY,
        kinds.PDB,
        kinds.PERSISTENT_VOLUME_CLAIM,
        kinds.ROLE,
        kinds.ROLE_BINDING,
        kinds.SERVICE,
        kinds.SERVICE_ACCOUNT,
        kinds.STATEFUL_SET,
    )
}
ELSEWHERE = ("cert-manager.io/", "monitoring.coreos.com/")
"""Groups that neither server knows."""


@pytest.mark.parametrize("name", SETS)
async def test_a_server_takes_it_and_takes_it_again(space: Space, name: str) -> None:
    found = changed(name, {}, space.namespace)
    # Rules within a definition (CEL) are younger than that, and refused by server-side apply.
    old = int((await space.cluster.version()).split(".")[1]) < 25
    made = []
    try:
        for obj in found:
            if obj["apiVersion"].startswith(ELSEWHERE) or (obj["kind"] == "CustomResourceDefinition" and old):
                continue
            kind, obj = await known(space.cluster, obj)
            made.append((kind, obj, await space.cluster.apply(kind, obj)))
        assert len(made) > 5
        for kind, obj, first in made:
            again = await space.cluster.apply(kind, obj)
            assert wanted(again) == wanted(first), obj["metadata"]["name"]
    finally:
        for kind, obj, _ in made:
            # What belongs to no namespace does not go with this one; definitions stay.
            if not kind.namespaced and kind is not kinds.CRD:
                await space.cluster.delete(kind, obj["metadata"]["name"])


def wanted(obj: Object) -> object:
    """What is wanted of an object: its generation, or all of it but how it is and what controllers added."""
    added = {"metadata", "status", "secrets"}
    return obj["metadata"].get("generation") or {key: value for key, value in obj.items() if key not in added}


async def known(cluster: Cluster, obj: Object) -> tuple[Kind, Object]:
    """The kind of an object; a budget as an older server has it."""
    kind = KINDS[obj["apiVersion"], obj["kind"]]
    if kind is kinds.PDB and not await cluster.serves(kind):
        return kinds.PDB_BETA, {**obj, "apiVersion": kinds.PDB_BETA.api_version}
    return kind, obj


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("hub/minimal", {"task": "resnet", "nats": {"storage": {"maxBytes": "9GB"}}, "service": {"port": 9511}}),
        ("site/minimal", {"trainer": {"workers": 3}, "nats": {"image": {"tag": "2.15.2-alpine"}}}),
    ],
)
async def test_an_upgrade_changes_no_field_that_cannot_be_changed(
    space: Space, name: str, change: dict[str, object]
) -> None:
    for values_of_one in ({}, change, {}):
        for obj in changed(name, values_of_one, space.namespace):
            kind, obj = await known(space.cluster, obj)
            await space.cluster.apply(kind, obj)
