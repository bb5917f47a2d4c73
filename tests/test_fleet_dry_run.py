"""What applying a fleet would change, asked of an API server: the double, and a real one where it is there.

The resources are those of k0rdent where their schemas are beside the checkout; else they take anything.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from windfall.cli.__main__ import windfall
from windfall.cli.gitops.charts import values_of
from windfall.cli.gitops.difference import Change, different, in_words
from windfall.cli.gitops.live import KINDS, MANAGER, changes
from windfall.cli.gitops.render import fleet, preview
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Cluster, Connection, Exists, Kind, Object
from windfall.servicekit.kube.kinds import CRD, NAMESPACE

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "deploy/k0rdent/examples/study/fleet.yaml"
SCHEMAS = Path(os.environ.get("WINDFALL_SCHEMAS", ROOT.parent / "shared" / "schemas"))
ANYTHING: Object = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def definition(kind: Kind) -> Object:
    path = SCHEMAS / f"{kind.group}_{kind.version}_{kind.kind.lower()}.json"
    schema = json.loads(path.read_text())["schema"] if path.exists() else ANYTHING
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {"plural": kind.plural, "singular": kind.kind.lower(), "kind": kind.kind},
            "versions": [
                {"name": kind.version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }


async def established(cluster: Cluster, kind: Kind) -> None:
    with suppress(Exists):
        # Not applied: an old server knows no rules within a schema, and drops them only here.
        await cluster.create(CRD, definition(kind))
    name = f"{kind.plural}.{kind.group}"
    async for change in cluster.follow(CRD, fields=f"metadata.name={name}"):
        conditions = ((change.object or {}).get("status") or {}).get("conditions") or ()
        if any(each["type"] == "Established" and each["status"] == "True" for each in conditions):
            break


@pytest.fixture
async def management(any_kubeconfig: Path, tmp_path: Path) -> AsyncIterator[tuple[Cluster, Path, Path]]:
    """A management cluster with k0rdent's resources, and the study's fleet under a name of its own."""
    values = values_of(STUDY)
    name = f"f{abs(hash(str(tmp_path))) % 10**8}"
    values |= {"fleet": name, "namespace": name}
    file = tmp_path / "fleet.yaml"
    file.write_text(yaml.safe_dump(values))
    async with Cluster.connect(Connection(any_kubeconfig)) as cluster:
        for kind in KINDS.values():
            await established(cluster, kind)
        await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield cluster, any_kubeconfig, file
        for obj in fleet(file)[1]:
            await cluster.delete(KINDS[obj["kind"]], obj["metadata"]["name"], obj["metadata"].get("namespace"))
        await cluster.delete(NAMESPACE, name)


async def test_a_fleet_is_created_and_then_unchanged(management: tuple[Cluster, Path, Path]) -> None:
    cluster, kubeconfig, file = management
    name, objects = fleet(file)
    first = await changes(objects, name, kubeconfig, None)
    assert [each.state for each in first] == ["created"] * len(objects), [each.why for each in first]
    for obj in objects:
        found = await cluster.get(KINDS[obj["kind"]], obj["metadata"]["name"], obj["metadata"].get("namespace"))
        assert found is None, "a dry run writes nothing"
    for obj in objects:
        await cluster.apply(KINDS[obj["kind"]], obj, manager=MANAGER)
    again = await changes(objects, name, kubeconfig, None)
    assert [each.state for each in again] == ["unchanged"] * len(objects), in_words(again)
    assert not different(again)


async def test_what_would_change_is_shown_line_by_line(management: tuple[Cluster, Path, Path]) -> None:
    cluster, kubeconfig, file = management
    name, objects = fleet(file)
    for obj in objects:
        await cluster.apply(KINDS[obj["kind"]], obj, manager=MANAGER)
    values = values_of(file)
    values["sites"][1]["machines"].pop()
    values["sites"][2]["workloads"] = ["torch-elastic"]
    file.write_text(yaml.safe_dump(values))
    name, objects = fleet(file)
    found = {(each.kind, each.name): each for each in await changes(objects, name, kubeconfig, None)}
    grown = found["ClusterDeployment", f"{name}-nvidia"]
    assert grown.state == "changed"
    assert "-    - address: 198.51.100.21" in grown.diff.splitlines()
    assert not any("managedFields" in line or "resourceVersion" in line for line in grown.diff.splitlines())
    assert found["MultiClusterService", f"{name}-ray"].state == "surplus"
    assert found["MultiClusterService", f"{name}-network"].state == "unchanged"


async def test_what_another_manager_wants_otherwise_is_told(management: tuple[Cluster, Path, Path]) -> None:
    cluster, kubeconfig, file = management
    name, objects = fleet(file)
    theirs = next(obj for obj in objects if obj["kind"] == "ClusterDeployment")
    other = {**theirs, "spec": {**theirs["spec"], "credential": "other"}}
    await cluster.apply(KINDS["ClusterDeployment"], other, manager="somebody")
    found = {(each.kind, each.name): each for each in await changes(objects, name, kubeconfig, None)}
    refused = found["ClusterDeployment", theirs["metadata"]["name"]]
    assert refused.state == "refused" and "somebody" in refused.why


async def test_a_server_without_k0rdent_is_told_so(kubeconfig: Path) -> None:
    name, objects = fleet(STUDY)
    found = await changes(objects, name, kubeconfig, None)
    assert {each.state for each in found} == {"refused"}
    assert all("is not served: install k0rdent first" in each.why for each in found)


async def test_the_command_ends_with_a_code_of_its_own(kubeconfig: Path) -> None:
    typed = ["fleet", "render", "-f", str(STUDY), "--dry-run", "--kubeconfig", str(kubeconfig)]
    ended = await asyncio.to_thread(CliRunner().invoke, windfall, typed)
    assert ended.exit_code == ExitCode.DIFFERENT
    assert ended.stdout.rstrip().endswith("refused. Nothing was written.")
    as_json = await asyncio.to_thread(CliRunner().invoke, windfall, [*typed, "-o", "json"])
    assert len(json.loads(as_json.stdout)) == len(fleet(STUDY)[1]) and as_json.exit_code == ExitCode.DIFFERENT


def test_a_server_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(away()))
    with pytest.raises(Mistake) as refused:
        preview(STUDY, "yaml", None, path, None, print)
    assert refused.value.exit_code is ExitCode.SERVER and "\n" not in str(refused.value)


def away() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    }


def test_the_table_says_what_and_why() -> None:
    told = in_words([Change("Credential", "kcm-system", "ssh", "unchanged"), Change("X", "", "y", "refused", why="no")])
    assert told.splitlines() == [
        "STATE      KIND        NAMESPACE   NAME",
        "unchanged  Credential  kcm-system  ssh",
        "refused    X           -           y     no",
        "",
        "0 created, 0 changed, 1 unchanged, 1 refused. Nothing was written.",
    ]
