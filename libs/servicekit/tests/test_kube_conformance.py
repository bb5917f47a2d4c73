"""What an API server promises, asked of the double and of a real one: the double cannot drift from it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Absent, Change, Cluster, Conflict, Connection, Exists, Kind, Object
from windfall.servicekit.kube.kinds import (
    CONFIG_MAP,
    CRD,
    JOB,
    LEASE,
    NAMESPACE,
    NODE,
    PDB,
    PDB_BETA,
    POD,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
)
from windfall.servicekit.kube.refusals import Expired, Unserved
from windfall.servicekit.kube.transport import JSON_PATCH, Transport
from windfall.servicekit.testing.kube_fixtures import Space

GROUP = "conformance.windfall.dev"
WIDGET = Kind(GROUP, "v1", "Widget", "widgets")
PLAIN = Kind(GROUP, "v1", "Plain", "plains")

STRING: Object = {"type": "string"}
WIDGET_SPEC: Object = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "maybe": {"type": "string", "nullable": True},
        "labels": {"type": "object", "additionalProperties": STRING},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": {"type": "object", "required": ["id"], "properties": {"id": STRING, "text": STRING}},
        },
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": STRING},
        "steps": {"type": "array", "items": STRING},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "replicas": {"type": "integer", "default": 1},
    },
}
STATUS: Object = {"type": "object", "properties": {"phase": STRING, "replicas": {"type": "integer"}}}


def definition(kind: Kind, spec: Object, subresources: Object) -> Object:
    schema = {"type": "object", "properties": {"spec": spec, "status": STATUS}}
    version: Object = {"name": kind.version, "served": True, "storage": True, "subresources": subresources}
    names = {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower(), "listKind": f"{kind.kind}List"}
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": names,
            "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
        },
    }


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """A real server's controllers have no event that a client could wait for."""
    async with asyncio.timeout(40):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def unserved(space: Space, kind: Kind) -> bool:
    return not await space.cluster.serves(kind)


async def defined(cluster: Cluster, kind: Kind, spec: Object, subresources: Object) -> None:
    await cluster.apply(CRD, definition(kind, spec, subresources), manager="conformance", force=True)
    await until(lambda: cluster.serves(kind))


@pytest.fixture
async def widgets(space: Space) -> Space:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    await defined(space.cluster, WIDGET, WIDGET_SPEC, {"status": {}, "scale": scale})
    await until(lambda: typed(space))
    return space


async def typed(space: Space) -> bool:
    """Whether apply knows the schema by now: a real server publishes it a moment after the definition."""
    wanted = widget(space, spec={"size": 1, "tags": ["a"]})
    dry = await space.cluster.apply(WIDGET, wanted, manager="one", dry_run=True)
    return bool(fields_of(dry, "one", "Apply")["f:spec"]["f:tags"])


def widget(space: Space, name: str = "w", spec: Object | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": WIDGET.api_version,
        "kind": WIDGET.kind,
        "metadata": {"name": name, "namespace": space.namespace, **metadata},
        "spec": {"size": 1} if spec is None else spec,
    }


def config_map(space: Space, name: str = "c", data: dict[str, str] | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": space.namespace, **metadata},
        "data": data or {},
    }


def pod(space: Space, name: str = "p", node: str = "", **metadata: Any) -> Object:
    spec: Object = {"containers": [{"name": "main", "image": "image:1"}], "automountServiceAccountToken": False}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space.namespace, **metadata},
        "spec": spec | ({"nodeName": node} if node else {}),
    }


def version_of(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


def fields_of(obj: Object, manager: str, operation: str) -> Object:
    for entry in obj["metadata"]["managedFields"]:
        if (entry["manager"], entry["operation"]) == (manager, operation):
            fields: Object = entry["fieldsV1"]
            return fields
    return {}


async def gone(space: Space, kind: Kind, name: str) -> None:
    async def is_gone() -> bool:
        return await space.cluster.get(kind, name, space.namespace) is None

    await until(is_gone)


def transport(space: Space) -> Transport:
    return space.cluster._transport


async def raw_patch(space: Space, kind: Kind, name: str, patch: Any, content_type: str, **query: str) -> Object:
    path = kind.path(space.namespace, name)
    return await transport(space).ask("PATCH", path, query=query, body=patch, content_type=content_type)


class TestWrites:
    async def test_a_new_object_gets_what_the_server_alone_says(self, space: Space) -> None:
        made = await space.cluster.create(CONFIG_MAP, config_map(space, data={"a": "1"}))
        metadata = made["metadata"]
        assert metadata["uid"] and metadata["creationTimestamp"].endswith("Z") and int(metadata["resourceVersion"])
        assert fields_of(made, "windfall", "Update")["f:data"] == {".": {}, "f:a": {}}
        assert await space.cluster.get(CONFIG_MAP, "c", space.namespace) == made

    async def test_nothing_is_created_twice(self, space: Space) -> None:
        await space.cluster.create(CONFIG_MAP, config_map(space))
        with pytest.raises(Exists, match='configmaps "c" already exists'):
            await space.cluster.create(CONFIG_MAP, config_map(space))

    async def test_a_name_is_generated(self, space: Space) -> None:
        nameless = config_map(space)
        del nameless["metadata"]["name"]
        nameless["metadata"]["generateName"] = "made-"
        names = {(await space.cluster.create(CONFIG_MAP, nameless))["metadata"]["name"] for _ in range(3)}
        assert len(names) == 3 and all(name.startswith("made-") and len(name) == 10 for name in names)

    async def test_names_and_labels_are_checked(self, space: Space) -> None:
        with pytest.raises(Mistake, match=r"metadata\.name: Invalid value: \"A_b\""):
            await space.cluster.create(CONFIG_MAP, config_map(space, "A_b"))
        with pytest.raises(Mistake, match=r"metadata\.labels"):
            await space.cluster.create(CONFIG_MAP, config_map(space, labels={"a": "not a value"}))

    async def test_what_is_not_there(self, space: Space) -> None:
        assert await space.cluster.get(CONFIG_MAP, "none", space.namespace) is None
        assert await space.cluster.get(NAMESPACE, "none-such") is None
        assert await space.cluster.delete(CONFIG_MAP, "none", space.namespace) is False
        with pytest.raises(Absent):
            await space.cluster.patch(CONFIG_MAP, "none", space.namespace, {"data": {}})
        with pytest.raises(Unserved, match='namespaces "none-such" not found'):
            await space.cluster.create(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "none-such"}})
        with pytest.raises(Unserved):
            await space.cluster.list(Kind("none.such", "v1", "None", "nones"), space.namespace)

    async def test_a_stale_replace_is_a_conflict(self, space: Space) -> None:
        first = await space.cluster.create(CONFIG_MAP, config_map(space, data={"a": "1"}))
        second = await space.cluster.replace(CONFIG_MAP, first | {"data": {"a": "2"}})
        assert int(version_of(second)) > int(version_of(first)) and second["data"] == {"a": "2"}
        with pytest.raises(Conflict, match="the object has been modified"):
            await space.cluster.replace(CONFIG_MAP, first | {"data": {"a": "3"}})

    async def test_a_write_that_changes_nothing_is_none(self, space: Space) -> None:
        first = await space.cluster.create(CONFIG_MAP, config_map(space, data={"a": "1"}))
        again = await space.cluster.replace(CONFIG_MAP, first)
        patched = await space.cluster.patch(CONFIG_MAP, "c", space.namespace, {"data": {"a": "1"}})
        assert version_of(first) == version_of(again) == version_of(patched)

    async def test_a_merge_patch_removes_by_null_and_heeds_a_version(self, space: Space) -> None:
        first = await space.cluster.create(CONFIG_MAP, config_map(space, data={"a": "1", "b": "2"}))
        second = await space.cluster.patch(CONFIG_MAP, "c", space.namespace, {"data": {"a": None, "c": "3"}})
        assert second["data"] == {"b": "2", "c": "3"}
        stale = {"metadata": {"resourceVersion": version_of(first)}, "data": {"d": "4"}}
        with pytest.raises(Conflict):
            await space.cluster.patch(CONFIG_MAP, "c", space.namespace, stale)

    async def test_a_json_patch_tests_and_changes(self, space: Space) -> None:
        await space.cluster.create(CONFIG_MAP, config_map(space, data={"a": "1"}))
        ops = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "replace", "path": "/data/a", "value": "2"}]
        assert (await raw_patch(space, CONFIG_MAP, "c", ops, JSON_PATCH))["data"] == {"a": "2"}
        with pytest.raises(Mistake):
            await raw_patch(space, CONFIG_MAP, "c", ops, JSON_PATCH)

    async def test_a_strategic_patch_merges_lists_by_key(self, space: Space) -> None:
        await space.cluster.create(STATEFUL_SET, stateful_set(space))
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "image:2"}]}}}}
        patched = await raw_patch(space, STATEFUL_SET, "s", patch, "application/strategic-merge-patch+json")
        (container,) = patched["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "image:2" and container["env"] == [{"name": "A", "value": "1"}]

    async def test_a_dry_run_leaves_nothing(self, space: Space) -> None:
        assert (await space.cluster.create(CONFIG_MAP, config_map(space), dry_run=True))["metadata"]["uid"]
        assert (await space.cluster.apply(CONFIG_MAP, config_map(space), dry_run=True))["metadata"]["uid"]
        assert await space.cluster.get(CONFIG_MAP, "c", space.namespace) is None
        with pytest.raises(Mistake):
            await space.cluster.create(CONFIG_MAP, config_map(space, "A_b"), dry_run=True)

    async def test_a_secret_is_coded_and_a_service_defaulted(self, space: Space) -> None:
        metadata = {"name": "x", "namespace": space.namespace}
        secret = await space.cluster.create(SECRET, {"metadata": metadata, "stringData": {"k": "v"}})
        assert (secret["data"], secret["type"]) == ({"k": "dg=="}, "Opaque")
        spec = {"clusterIP": "None", "selector": {"a": "b"}, "ports": [{"port": 80}]}
        service = await space.cluster.create(SERVICE, {"metadata": metadata, "spec": spec})
        assert service["spec"]["ports"] == [{"protocol": "TCP", "port": 80, "targetPort": 80}]


def stateful_set(space: Space, replicas: int = 0) -> Object:
    container = {"name": "main", "image": "image:1", "env": [{"name": "A", "value": "1"}]}
    return {
        "apiVersion": STATEFUL_SET.api_version,
        "kind": STATEFUL_SET.kind,
        "metadata": {"name": "s", "namespace": space.namespace},
        "spec": {
            "replicas": replicas,
            "serviceName": "s",
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
        },
    }


class TestBuiltIn:
    async def test_a_workload_is_defaulted(self, space: Space) -> None:
        made = await space.cluster.create(STATEFUL_SET, stateful_set(space))
        template = made["spec"]["template"]["spec"]
        assert (template["restartPolicy"], template["terminationGracePeriodSeconds"]) == ("Always", 30)
        assert made["spec"]["podManagementPolicy"] == "OrderedReady" and made["metadata"]["generation"] == 1

    async def test_what_cannot_be_changed(self, space: Space) -> None:
        await space.cluster.create(STATEFUL_SET, stateful_set(space))
        with pytest.raises(Mistake, match="for fields other than"):
            await space.cluster.patch(STATEFUL_SET, "s", space.namespace, {"spec": {"serviceName": "t"}})
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "image:1"}]}}
        job = {"metadata": {"name": "j", "namespace": space.namespace}, "spec": {"template": template}}
        made = await space.cluster.create(JOB, job)
        assert made["spec"]["selector"]["matchLabels"] == {"controller-uid": made["metadata"]["uid"]}
        assert (made["spec"]["parallelism"], made["spec"]["completions"]) == (1, 1)
        with pytest.raises(Mistake, match="field is immutable"):
            await space.cluster.patch(JOB, "j", space.namespace, {"spec": {"completions": 2}})

    async def test_generation_counts_wishes_alone(self, space: Space) -> None:
        await space.cluster.create(STATEFUL_SET, stateful_set(space))
        labelled = await space.cluster.patch(STATEFUL_SET, "s", space.namespace, {"metadata": {"labels": {"x": "y"}}})
        assert labelled["metadata"]["generation"] == 1
        scaled = await space.cluster.patch(STATEFUL_SET, "s", space.namespace, {"spec": {"replicas": 2}})
        assert scaled["metadata"]["generation"] == 2

    async def test_scale(self, space: Space) -> None:
        await space.cluster.create(STATEFUL_SET, stateful_set(space))
        scale = await space.cluster.patch(
            STATEFUL_SET, "s", space.namespace, {"spec": {"replicas": 3}}, subresource="scale"
        )
        assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 3)
        assert scale["status"]["selector"] == "a=b"
        found = await space.cluster.get(STATEFUL_SET, "s", space.namespace)
        assert found is not None and found["spec"]["replicas"] == 3

    async def test_an_applied_workload_stays_as_it_is(self, space: Space) -> None:
        wanted = stateful_set(space)
        first = await space.cluster.apply(STATEFUL_SET, wanted)
        again = await space.cluster.apply(STATEFUL_SET, wanted)
        assert first["metadata"]["generation"] == again["metadata"]["generation"] == 1
        # Its controller may have written a status between the two.
        assert fields_of(first, "windfall-provisioner", "Apply") == fields_of(again, "windfall-provisioner", "Apply")

    async def test_a_node_is_cordoned(self, space: Space) -> None:
        name = f"node-{space.namespace}"
        await space.cluster.create(NODE, {"metadata": {"name": name}})
        try:
            cordoned = await space.cluster.patch(NODE, name, None, {"spec": {"unschedulable": True}})
            assert cordoned["spec"]["unschedulable"] is True
            status = {"status": {"capacity": {"nvidia.com/gpu": "8"}}}
            sized = await space.cluster.patch(NODE, name, None, status, subresource="status")
            assert sized["status"]["capacity"] == {"nvidia.com/gpu": "8"}
        finally:
            await space.cluster.delete(NODE, name)

    async def test_a_lease_is_won_by_one(self, space: Space) -> None:
        spec = {"holderIdentity": "a", "leaseDurationSeconds": 15, "renewTime": "2030-01-01T00:00:00.000000Z"}
        lease = {"metadata": {"name": "l", "namespace": space.namespace}, "spec": spec}
        made = await space.cluster.create(LEASE, lease)
        await space.cluster.replace(LEASE, made | {"spec": spec | {"holderIdentity": "b"}})
        with pytest.raises(Conflict):
            await space.cluster.replace(LEASE, made | {"spec": spec | {"holderIdentity": "c"}})


class TestCustomResources:
    async def test_defaults_and_pruning(self, widgets: Space) -> None:
        spec = {"size": 1, "unknown": 1, "free": {"any": {"thing": [1]}}, "parts": [{"id": "a", "unknown": 1}]}
        made = await widgets.cluster.create(WIDGET, widget(widgets, spec=spec) | {"unknown": 1})
        assert made["spec"] == {
            "size": 1,
            "color": "red",
            "replicas": 1,
            "free": {"any": {"thing": [1]}},
            "parts": [{"id": "a"}],
        }
        assert "unknown" not in made

    @pytest.mark.parametrize(
        ("spec", "said"),
        [
            ({}, "spec.size: Required value"),
            ({"size": "1"}, 'spec.size in body must be of type integer: "string"'),
            ({"size": 0}, "spec.size in body should be greater than or equal to 1"),
            ({"size": 10}, "spec.size in body should be less than or equal to 9"),
            ({"size": 1, "color": "green"}, 'Unsupported value: "green"'),
            ({"size": 1, "name": "toolong"}, "should be at most 5 chars long"),
            ({"size": 1, "name": "A"}, "spec.name in body should match"),
            ({"size": 1, "labels": {"a": 1}}, "spec.labels.a in body must be of type string"),
            ({"size": 1, "steps": "a"}, 'spec.steps in body must be of type array: "string"'),
            ({"size": 1, "parts": [{"text": "a"}]}, "Required value"),
            ({"size": 1, "tags": ["a", "a"]}, "spec.tags[1]: Duplicate value"),
            ({"size": 1, "parts": [{"id": "a"}, {"id": "a"}]}, "spec.parts[1]: Duplicate value"),
        ],
        ids=lambda value: None if isinstance(value, dict) else value.replace(" ", "_")[:30],
    )
    async def test_the_schema_is_kept(self, widgets: Space, spec: Object, said: str) -> None:
        with pytest.raises(Mistake) as caught:
            await widgets.cluster.create(WIDGET, widget(widgets, spec=spec))
        assert said in str(caught.value)

    async def test_null_where_it_may_be(self, widgets: Space) -> None:
        made = await widgets.cluster.create(WIDGET, widget(widgets, spec={"size": 1, "maybe": None}))
        assert made["spec"]["maybe"] is None

    async def test_either_type_where_it_may_be(self, space: Space) -> None:
        kind = Kind(GROUP, "v1", "Either", "eithers")
        spec = {"type": "object", "properties": {"port": {"x-kubernetes-int-or-string": True}}}
        await defined(space.cluster, kind, spec, {})
        obj = {"apiVersion": kind.api_version, "kind": kind.kind}
        for name, port in {"number": 80, "text": "http"}.items():
            metadata = {"name": name, "namespace": space.namespace}
            made = await space.cluster.create(kind, obj | {"metadata": metadata, "spec": {"port": port}})
            assert made["spec"] == {"port": port}
        with pytest.raises(Mistake, match=r"spec\.port in body must be of type"):
            metadata = {"name": "list", "namespace": space.namespace}
            await space.cluster.create(kind, obj | {"metadata": metadata, "spec": {"port": []}})

    async def test_status_and_spec_are_kept_apart(self, widgets: Space) -> None:
        made = await widgets.cluster.create(WIDGET, widget(widgets) | {"status": {"phase": "x"}})
        assert "status" not in made
        changed = {"spec": {"size": 2}, "status": {"phase": "y"}}
        main = await widgets.cluster.patch(WIDGET, "w", widgets.namespace, changed)
        assert main["spec"]["size"] == 2 and "status" not in main
        changed = {"spec": {"size": 3}, "status": {"phase": "z"}}
        status = await widgets.cluster.patch(WIDGET, "w", widgets.namespace, changed, subresource="status")
        assert (status["spec"]["size"], status["status"]) == (2, {"phase": "z"})
        assert status["metadata"]["generation"] == main["metadata"]["generation"] == 2

    async def test_a_replace_names_a_version(self, widgets: Space) -> None:
        made = await widgets.cluster.create(WIDGET, widget(widgets))
        del made["metadata"]["resourceVersion"]
        with pytest.raises(Mistake, match="must be specified for an update"):
            await widgets.cluster.replace(WIDGET, made)

    async def test_no_strategic_patch(self, widgets: Space) -> None:
        await widgets.cluster.create(WIDGET, widget(widgets))
        with pytest.raises(Mistake, match="unknown format"):
            await raw_patch(widgets, WIDGET, "w", {"spec": {}}, "application/strategic-merge-patch+json")

    async def test_scale(self, widgets: Space) -> None:
        await widgets.cluster.create(WIDGET, widget(widgets))
        await widgets.cluster.patch(WIDGET, "w", widgets.namespace, {"status": {"replicas": 2}}, subresource="status")
        scale = await widgets.cluster.patch(
            WIDGET, "w", widgets.namespace, {"spec": {"replicas": 5}}, subresource="scale"
        )
        assert (scale["spec"], scale["status"]["replicas"]) == ({"replicas": 5}, 2)

    async def test_without_a_status_subresource_it_is_a_field(self, space: Space) -> None:
        spec = {"type": "object", "properties": {"a": STRING}}
        await defined(space.cluster, PLAIN, spec, {})
        obj = {"apiVersion": PLAIN.api_version, "kind": PLAIN.kind, "spec": {"a": "1"}, "status": {"phase": "x"}}
        made = await space.cluster.create(PLAIN, obj | {"metadata": {"name": "p", "namespace": space.namespace}})
        assert made["status"] == {"phase": "x"}
        with pytest.raises(Absent):
            await space.cluster.patch(PLAIN, "p", space.namespace, {"status": {}}, subresource="status")

    @pytest.mark.parametrize(
        ("schema", "said"),
        [
            ({"type": "object", "properties": {"a": {}}}, "must not be empty for specified object fields"),
            ({"properties": {}}, "type"),
            ({"type": "object", "properties": {"a": {"type": "array"}}}, "items"),
            (
                {"type": "object", "properties": {"a": {"type": "array", "items": STRING, "uniqueItems": True}}},
                "uniqueItems",
            ),
        ],
        ids=["untyped", "rootless", "itemless", "unique"],
    )
    async def test_a_definition_is_structural(self, space: Space, schema: Object, said: str) -> None:
        kind = Kind(GROUP, "v1", "Odd", "odds")
        crd = definition(kind, STRING, {})
        crd["spec"]["versions"][0]["schema"] = {"openAPIV3Schema": schema}
        with pytest.raises(Mistake) as caught:
            await space.cluster.create(CRD, crd)
        assert said in str(caught.value)

    async def test_a_definition_is_established(self, widgets: Space) -> None:
        found = await widgets.cluster.get(CRD, f"widgets.{GROUP}")
        assert found is not None
        conditions = {item["type"]: item["status"] for item in found["status"]["conditions"]}
        assert conditions["Established"] == "True" and found["status"]["storedVersions"] == ["v1"]

    async def test_a_definition_takes_its_objects_with_it(self, space: Space) -> None:
        kind = Kind(GROUP, "v1", f"T{space.namespace[5:]}", f"t{space.namespace[5:]}s")
        await defined(space.cluster, kind, {"type": "object"}, {})
        obj = {"apiVersion": kind.api_version, "kind": kind.kind}
        await space.cluster.create(kind, obj | {"metadata": {"name": "x", "namespace": space.namespace}})
        await space.cluster.delete(CRD, f"{kind.plural}.{GROUP}")
        await gone(space, CRD, f"{kind.plural}.{GROUP}")
        await until(lambda: unserved(space, kind))


class TestApply:
    async def test_two_managers_share_an_object(self, widgets: Space) -> None:
        apply = widgets.cluster.apply
        one = {"size": 1, "labels": {"a": "1"}, "parts": [{"id": "a", "text": "1"}], "tags": ["a"], "steps": ["x"]}
        await apply(WIDGET, widget(widgets, spec=one), manager="one")
        two = {"labels": {"b": "2"}, "parts": [{"id": "b"}, {"id": "a"}], "tags": ["b"]}
        both = await apply(WIDGET, widget(widgets, spec=two), manager="two")
        spec = both["spec"]
        assert spec["labels"] == {"a": "1", "b": "2"} and sorted(spec["tags"]) == ["a", "b"]
        assert sorted(spec["parts"], key=lambda part: str(part["id"])) == [{"id": "a", "text": "1"}, {"id": "b"}]
        # One wants less: what nobody else wants goes, what the other has stays.
        less = await apply(WIDGET, widget(widgets, spec={"size": 1}), manager="one")
        assert less["spec"] == {
            "size": 1,
            "color": "red",
            "replicas": 1,
            "labels": {"b": "2"},
            "parts": [{"id": "a"}, {"id": "b"}],
            "tags": ["b"],
        }

    async def test_fields_are_owned(self, widgets: Space) -> None:
        spec = {"size": 1, "labels": {"a": "1"}, "parts": [{"id": "a", "text": "1"}], "tags": ["t"], "steps": ["x"]}
        made = await widgets.cluster.apply(WIDGET, widget(widgets, spec=spec, labels={"l": "1"}), manager="one")
        assert fields_of(made, "one", "Apply") == {
            "f:metadata": {"f:labels": {"f:l": {}}},
            "f:spec": {
                "f:size": {},
                "f:labels": {"f:a": {}},
                "f:parts": {'k:{"id":"a"}': {".": {}, "f:id": {}, "f:text": {}}},
                "f:tags": {'v:"t"': {}},
                "f:steps": {},
            },
        }

    async def test_what_another_wants_otherwise_is_a_conflict(self, widgets: Space) -> None:
        apply = widgets.cluster.apply
        await apply(WIDGET, widget(widgets, spec={"size": 1, "steps": ["a"]}), manager="one")
        await apply(WIDGET, widget(widgets, spec={"size": 1}), manager="two")
        with pytest.raises(Conflict, match=r'conflict with "one".*\.spec\.steps'):
            await apply(WIDGET, widget(widgets, spec={"size": 1, "steps": ["b"]}), manager="two")
        forced = await apply(WIDGET, widget(widgets, spec={"size": 1, "steps": ["b"]}), manager="two", force=True)
        assert forced["spec"]["steps"] == ["b"]
        assert "f:steps" not in fields_of(forced, "one", "Apply")["f:spec"]
        # One has lost it, and may apply again without a word of it.
        again = await apply(WIDGET, widget(widgets, spec={"size": 1}), manager="one")
        assert again["spec"]["steps"] == ["b"]

    async def test_an_update_takes_a_field(self, widgets: Space) -> None:
        await widgets.cluster.apply(WIDGET, widget(widgets, spec={"size": 1}), manager="one")
        patched = await widgets.cluster.patch(WIDGET, "w", widgets.namespace, {"spec": {"size": 2}})
        assert fields_of(patched, "windfall", "Update")["f:spec"] == {"f:size": {}}
        with pytest.raises(Conflict, match='conflict with "windfall"'):
            await widgets.cluster.apply(WIDGET, widget(widgets, spec={"size": 1}), manager="one")

    async def test_the_same_again_changes_nothing(self, widgets: Space) -> None:
        spec = {"size": 1, "parts": [{"id": "a"}], "labels": {"x": "y"}}
        first = await widgets.cluster.apply(WIDGET, widget(widgets, spec=spec), manager="one")
        # The time of an entry is in whole seconds; the next one must not show.
        await asyncio.sleep(1.1)
        again = await widgets.cluster.apply(WIDGET, widget(widgets, spec=spec), manager="one")
        assert first == again

    async def test_containers_merge_by_name_and_port(self, space: Space) -> None:
        wanted = stateful_set(space)
        container = wanted["spec"]["template"]["spec"]["containers"][0]
        container["ports"] = [{"containerPort": 80}]
        await space.cluster.apply(STATEFUL_SET, wanted, manager="one")
        sidecar = {"name": "side", "image": "side:1"}
        more = {
            "name": "main",
            "env": [{"name": "B", "value": "2"}],
            "ports": [{"containerPort": 81, "protocol": "TCP"}],
        }
        wanted["spec"]["template"]["spec"]["containers"] = [more, sidecar]
        del wanted["spec"]["serviceName"], wanted["spec"]["replicas"]
        made = await space.cluster.apply(STATEFUL_SET, wanted, manager="two")
        containers = {item["name"]: item for item in made["spec"]["template"]["spec"]["containers"]}
        assert containers.keys() == {"main", "side"}
        assert {item["name"] for item in containers["main"]["env"]} == {"A", "B"}
        assert {item["containerPort"] for item in containers["main"]["ports"]} == {80, 81}

    async def test_status_is_applied_apart(self, widgets: Space) -> None:
        await widgets.cluster.apply(WIDGET, widget(widgets), manager="one")
        status = widget(widgets, spec={}) | {"status": {"phase": "x"}}
        del status["spec"]
        made = await widgets.cluster.apply_status(WIDGET, status, manager="one")
        assert made["status"] == {"phase": "x"} and made["metadata"]["generation"] == 1
        # The same manager applies the rest without a word of status: it stays.
        again = await widgets.cluster.apply(WIDGET, widget(widgets, spec={"size": 2}), manager="two", force=True)
        assert again["status"] == {"phase": "x"}
        with pytest.raises(Absent):
            await widgets.cluster.apply_status(
                WIDGET, status | {"metadata": {"name": "none", "namespace": widgets.namespace}}
            )

    async def test_owners_and_finalizers_merge(self, space: Space) -> None:
        owner = await space.cluster.create(CONFIG_MAP, config_map(space, "owner"))
        ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        await space.cluster.apply(CONFIG_MAP, config_map(space, finalizers=["a.dev/one"]), manager="one")
        both = config_map(space, finalizers=["a.dev/two"], ownerReferences=[ref])
        made = await space.cluster.apply(CONFIG_MAP, both, manager="two")
        assert sorted(made["metadata"]["finalizers"]) == ["a.dev/one", "a.dev/two"]
        assert made["metadata"]["ownerReferences"] == [ref]
        await space.cluster.patch(CONFIG_MAP, "c", space.namespace, {"metadata": {"finalizers": None}})


class TestEnds:
    async def test_a_finalizer_holds_an_object(self, space: Space) -> None:
        await space.cluster.create(CONFIG_MAP, config_map(space, finalizers=["a.dev/hold"]))
        assert await space.cluster.delete(CONFIG_MAP, "c", space.namespace) is True
        held = await space.cluster.get(CONFIG_MAP, "c", space.namespace)
        assert held is not None and held["metadata"]["deletionTimestamp"]
        with pytest.raises(Mistake, match="no new finalizers can be added"):
            await space.cluster.patch(
                CONFIG_MAP, "c", space.namespace, {"metadata": {"finalizers": ["a.dev/hold", "a.dev/more"]}}
            )
        changed = await space.cluster.patch(CONFIG_MAP, "c", space.namespace, {"data": {"still": "changes"}})
        assert changed["data"] == {"still": "changes"}
        await space.cluster.patch(CONFIG_MAP, "c", space.namespace, {"metadata": {"finalizers": None}})
        assert await space.cluster.get(CONFIG_MAP, "c", space.namespace) is None

    async def test_only_the_very_object_is_deleted(self, space: Space) -> None:
        made = await space.cluster.create(CONFIG_MAP, config_map(space))
        with pytest.raises(Conflict):
            await space.cluster.delete(CONFIG_MAP, "c", space.namespace, uid="another")
        assert await space.cluster.delete(CONFIG_MAP, "c", space.namespace, uid=made["metadata"]["uid"]) is True

    async def test_what_it_owned_goes_too(self, space: Space) -> None:
        ref = await owned_pair(space)
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace)
        await gone(space, CONFIG_MAP, "child")
        # What is born to an owner that is gone does not live either.
        await space.cluster.create(CONFIG_MAP, config_map(space, "late", ownerReferences=[ref]))
        await gone(space, CONFIG_MAP, "late")

    async def test_what_it_owned_goes_first(self, space: Space) -> None:
        await owned_pair(space, finalizers=["a.dev/hold"])
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace, propagation="Foreground")
        async with asyncio.timeout(20):
            while True:
                child = await space.cluster.get(CONFIG_MAP, "child", space.namespace)
                if child is not None and "deletionTimestamp" in child["metadata"]:
                    break
                await asyncio.sleep(0.02)
        owner = await space.cluster.get(CONFIG_MAP, "owner", space.namespace)
        assert owner is not None and owner["metadata"]["finalizers"] == ["foregroundDeletion"]
        await space.cluster.patch(CONFIG_MAP, "child", space.namespace, {"metadata": {"finalizers": None}})
        await gone(space, CONFIG_MAP, "owner")

    async def test_what_it_owned_is_orphaned(self, space: Space) -> None:
        await owned_pair(space)
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace, propagation="Orphan")
        await gone(space, CONFIG_MAP, "owner")
        child = await space.cluster.get(CONFIG_MAP, "child", space.namespace)
        assert child is not None and "ownerReferences" not in child["metadata"]

    async def test_one_owner_of_two_is_enough(self, space: Space) -> None:
        ref = await owned_pair(space)
        other = await space.cluster.create(CONFIG_MAP, config_map(space, "other"))
        second = ref | {"name": "other", "uid": other["metadata"]["uid"]}
        await space.cluster.patch(
            CONFIG_MAP, "child", space.namespace, {"metadata": {"ownerReferences": [ref, second]}}
        )
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace)
        async with asyncio.timeout(20):
            while True:
                child = await space.cluster.get(CONFIG_MAP, "child", space.namespace)
                assert child is not None
                if len(child["metadata"]["ownerReferences"]) == 1:
                    break
                await asyncio.sleep(0.02)
        await space.cluster.delete(CONFIG_MAP, "other", space.namespace)
        await gone(space, CONFIG_MAP, "child")

    async def test_a_namespace_ends_with_all_that_is_in_it(self, space: Space) -> None:
        name = f"{space.namespace}-b"
        await space.cluster.create(NAMESPACE, {"metadata": {"name": name}})
        held = {"metadata": {"name": "c", "namespace": name, "finalizers": ["a.dev/hold"]}}
        await space.cluster.create(CONFIG_MAP, held)
        await space.cluster.delete(NAMESPACE, name)
        with pytest.raises(Transient, match="being terminated"):
            await space.cluster.create(CONFIG_MAP, {"metadata": {"name": "late", "namespace": name}})
        async with asyncio.timeout(20):
            while True:
                found = await space.cluster.get(CONFIG_MAP, "c", name)
                if found is not None and "deletionTimestamp" in found["metadata"]:
                    break
                await asyncio.sleep(0.02)
        await space.cluster.patch(CONFIG_MAP, "c", name, {"metadata": {"finalizers": None}})
        await gone(space, NAMESPACE, name)

    async def test_a_pod_on_a_node_ends_gracefully(self, space: Space) -> None:
        await created_pod(space, pod(space, node="n1"))
        await space.cluster.delete(POD, "p", space.namespace, grace=timedelta(seconds=40))
        ending = await space.cluster.get(POD, "p", space.namespace)
        assert ending is not None and ending["metadata"]["deletionGracePeriodSeconds"] == 40
        await space.cluster.delete(POD, "p", space.namespace, grace=timedelta(0))
        assert await space.cluster.get(POD, "p", space.namespace) is None
        await created_pod(space, pod(space))
        await space.cluster.delete(POD, "p", space.namespace)
        assert await space.cluster.get(POD, "p", space.namespace) is None

    async def test_eviction_heeds_a_budget(self, space: Space) -> None:
        kind = PDB if await space.cluster.serves(PDB) else PDB_BETA
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
        metadata = {"name": "b", "namespace": space.namespace}
        await space.cluster.create(
            kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
        )
        for name in ("p1", "p2"):
            await created_pod(space, pod(space, name, "n1", labels={"app": "x"}))
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await space.cluster.patch(POD, name, space.namespace, {"status": ready}, subresource="status")
        await until(lambda: evicted(space, "p1"))
        with pytest.raises(Transient, match="disruption budget"):
            await space.cluster.evict("p2", space.namespace)
        assert await space.cluster.evict("none", space.namespace) is False


async def evicted(space: Space, name: str) -> bool:
    """A real server refuses as well while its controller has not seen the budget."""
    try:
        return await space.cluster.evict(name, space.namespace)
    except Transient:
        return False


async def created_pod(space: Space, wanted: Object) -> None:
    """A real server first needs the namespace's default account, which a controller makes."""
    async with asyncio.timeout(20):
        while True:
            try:
                await space.cluster.create(POD, wanted)
            except Mistake as mistake:
                if "serviceaccount" not in str(mistake) and "service account" not in str(mistake):
                    raise
                await asyncio.sleep(0.05)
            else:
                return


async def owned_pair(space: Space, **metadata: Any) -> Object:
    owner = await space.cluster.create(CONFIG_MAP, config_map(space, "owner"))
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    ref["blockOwnerDeletion"] = True
    await space.cluster.create(CONFIG_MAP, config_map(space, "child", ownerReferences=[ref], **metadata))
    return ref


class TestReads:
    async def test_labels_select(self, space: Space) -> None:
        for name, labels in {"a": {"x": "1"}, "b": {"x": "2", "y": "1"}, "d": {}}.items():
            await space.cluster.create(CONFIG_MAP, config_map(space, name, labels=labels | {"mine": "yes"}))
        for selector, names in {
            "x=1": "a",
            "x==1": "a",
            "x!=1": "bd",
            "x in (1,2)": "ab",
            "x notin (2)": "ad",
            "y": "b",
            "!x": "d",
            "x,y=1": "b",
        }.items():
            listing = await space.cluster.list(CONFIG_MAP, space.namespace, labels=f"mine=yes,{selector}")
            assert "".join(item["metadata"]["name"] for item in listing.items) == names, selector
        with pytest.raises(Mistake, match="requirement"):
            await space.cluster.list(CONFIG_MAP, space.namespace, labels="!!")

    async def test_fields_select(self, widgets: Space) -> None:
        space = widgets
        await created_pod(space, pod(space, "p1", "n1"))
        await created_pod(space, pod(space, "p2"))
        for selector, names in {"metadata.name=p2": "p2", "spec.nodeName=n1": "p1", "spec.nodeName!=n1": "p2"}.items():
            listing = await space.cluster.list(POD, space.namespace, fields=selector)
            assert [item["metadata"]["name"] for item in listing.items] == [names], selector
        with pytest.raises(Mistake, match="field label not supported"):
            await space.cluster.list(WIDGET, space.namespace, fields="spec.size=1")

    async def test_pages_show_one_version(self, space: Space) -> None:
        for number in range(5):
            await space.cluster.create(CONFIG_MAP, config_map(space, f"c{number}", labels={"mine": "yes"}))
        path, query = CONFIG_MAP.path(space.namespace), {"limit": "2", "labelSelector": "mine=yes"}
        page = await transport(space).ask("GET", path, query=query)
        await space.cluster.delete(CONFIG_MAP, "c3", space.namespace)
        await space.cluster.create(CONFIG_MAP, config_map(space, "c9", labels={"mine": "yes"}))
        names = [item["metadata"]["name"] for item in page["items"]]
        first = page["metadata"]["resourceVersion"]
        while token := page["metadata"].get("continue"):
            page = await transport(space).ask("GET", path, query=query | {"continue": token})
            names += [item["metadata"]["name"] for item in page["items"]]
            assert page["metadata"]["resourceVersion"] == first
        assert names == ["c0", "c1", "c2", "c3", "c4"]

    async def test_what_is_served_can_be_asked(self, widgets: Space) -> None:
        assert (await widgets.cluster.version()).startswith("v1.")
        assert await widgets.cluster.serves(WIDGET) and await widgets.cluster.serves(POD)
        assert not await widgets.cluster.serves(Kind(GROUP, "v9", "Widget", "widgets"))
        assert not await widgets.cluster.serves(Kind(GROUP, "v1", "None", "nones"))
        groups = await transport(widgets).ask("GET", "/apis")
        assert GROUP in {group["name"] for group in groups["groups"]}


Heard = list[tuple[str, str]]


async def heard(changes: AsyncIterator[Change], enough: Callable[[Heard], bool]) -> Heard:
    """What is said until it is enough. The namespace's own objects do not count."""
    said: Heard = []
    async with asyncio.timeout(20):
        async for change in changes:
            name = change.object.get("metadata", {}).get("name", "")
            if not name.startswith("kube-root"):
                said.append((change.verb, name))
            if enough(said):
                return said
    raise AssertionError("it ended")


class TestWatches:
    async def test_what_is_there_and_what_comes(self, space: Space) -> None:
        await space.cluster.create(CONFIG_MAP, config_map(space, "a"))
        async with aclosing(space.cluster.follow(CONFIG_MAP, space.namespace)) as changes:  # type: ignore[type-var]
            assert await heard(changes, lambda said: ("synced", "") in said) == [("present", "a"), ("synced", "")]
            await space.cluster.create(CONFIG_MAP, config_map(space, "b"))
            await space.cluster.patch(CONFIG_MAP, "a", space.namespace, {"data": {"x": "1"}})
            await space.cluster.delete(CONFIG_MAP, "b", space.namespace)
            said = await heard(changes, lambda said: ("absent", "b") in said)
            assert said == [("present", "b"), ("present", "a"), ("absent", "b")]

    async def test_selected_objects_come_and_go(self, space: Space) -> None:
        follow = space.cluster.follow(CONFIG_MAP, space.namespace, labels="x=1")
        async with aclosing(follow) as changes:  # type: ignore[type-var]
            assert await heard(changes, lambda said: bool(said)) == [("synced", "")]
            await space.cluster.create(CONFIG_MAP, config_map(space, "a"))
            await space.cluster.patch(CONFIG_MAP, "a", space.namespace, {"metadata": {"labels": {"x": "1"}}})
            assert await heard(changes, lambda said: bool(said)) == [("present", "a")]
            await space.cluster.patch(CONFIG_MAP, "a", space.namespace, {"metadata": {"labels": {"x": "2"}}})
            assert await heard(changes, lambda said: bool(said)) == [("absent", "a")]

    async def test_a_watch_goes_on_from_a_version(self, space: Space) -> None:
        first = await space.cluster.create(CONFIG_MAP, config_map(space, "a"))
        await space.cluster.create(CONFIG_MAP, config_map(space, "b"))
        await space.cluster.delete(CONFIG_MAP, "b", space.namespace)
        query = {"watch": "1", "resourceVersion": version_of(first), "timeoutSeconds": "5", "labelSelector": "!none"}
        events = []
        async with transport(space).lines(CONFIG_MAP.path(space.namespace), query, timedelta(seconds=10)) as lines:
            async for line in lines:
                event = json.loads(line)
                if event["object"]["metadata"]["name"] == "b":
                    events.append((event["type"], int(version_of(event["object"]))))
                if len(events) == 2:
                    break
            await lines.aclose()
        assert [kind for kind, _ in events] == ["ADDED", "DELETED"] and events[0][1] < events[1][1]

    async def test_a_watch_without_a_version_says_what_is_there(self, space: Space) -> None:
        await space.cluster.create(CONFIG_MAP, config_map(space, "a", labels={"mine": "yes"}))
        query = {"watch": "1", "labelSelector": "mine=yes", "timeoutSeconds": "1", "allowWatchBookmarks": "true"}
        events = []
        async with transport(space).lines(CONFIG_MAP.path(space.namespace), query, timedelta(seconds=10)) as lines:
            async for line in lines:
                events.append(json.loads(line))
        assert events[0]["type"] == "ADDED" and events[0]["object"]["metadata"]["name"] == "a"
        assert {event["type"] for event in events[1:]} <= {"BOOKMARK"}

    async def test_an_old_place_is_forgotten(self, space: Space) -> None:
        if space.server.double is not None:
            space.server.double.store.forget()
        path = WIDGET.path(space.namespace) if space.server.double is None else CONFIG_MAP.path(space.namespace)
        if space.server.double is None:
            # A real server's watch cache of a kind begins when the kind is defined.
            await defined(space.cluster, WIDGET, WIDGET_SPEC, {"status": {}})
        query = {"watch": "1", "resourceVersion": "1", "timeoutSeconds": "5"}
        with pytest.raises(Expired):
            async with transport(space).lines(path, query, timedelta(seconds=10)) as lines:
                async for line in lines:
                    event = json.loads(line)
                    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
                    raise Expired("said")


class TestAccess:
    async def test_a_service_account_may_what_its_role_says(self, space: Space) -> None:
        cluster, namespace = space.cluster, space.namespace
        await cluster.create(SERVICE_ACCOUNT, {"metadata": {"name": "sa", "namespace": namespace}})
        rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create"]}]
        await cluster.create(ROLE, {"metadata": {"name": "r", "namespace": namespace}, "rules": rules})
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
        subjects = [{"kind": "ServiceAccount", "name": "sa", "namespace": namespace}]
        binding = {"metadata": {"name": "b", "namespace": namespace}, "roleRef": ref, "subjects": subjects}
        await cluster.create(ROLE_BINDING, binding)
        review = {"spec": {"user": f"system:serviceaccount:{namespace}:sa"}}
        for verb, expected in {"create": True, "delete": False}.items():
            attributes = {"verb": verb, "resource": "configmaps", "namespace": namespace}
            body: Object = {"spec": review["spec"] | {"resourceAttributes": attributes}}
            body |= {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
            path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
            answer = await transport(space).ask("POST", path, body=body)
            assert answer["status"]["allowed"] is expected

    async def test_who_may_not_is_told_so(self, space: Space, tmp_path: Path) -> None:
        config = json.loads(space.server.kubeconfig.read_text())
        path = tmp_path / "viewer"
        for token, said in {"viewtoken": "viewer", "nonsense": "401|Unauthorized"}.items():
            config["users"][0]["user"] = {"token": token}
            path.write_text(json.dumps(config))
            async with Cluster.connect(Connection(path)) as cluster:
                with pytest.raises(Mistake, match=said):
                    await cluster.create(CONFIG_MAP, config_map(space))
