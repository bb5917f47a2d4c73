"""Custom resources, asked of the double and of a real API server alike."""

import pytest

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Absent, Kind, Object
from windfall.servicekit.kube.kinds import CRD
from windfall.servicekit.testing.kube_examples import (
    GROUP,
    PLAIN,
    STRING,
    WIDGET,
    Space,
    defined,
    definition,
    gone,
    raw_patch,
    unserved,
    until,
    widget,
)


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
