"""Server-side apply, asked of the double and of a real API server alike."""

import asyncio

import pytest

from windfall.servicekit.kube import Absent, Conflict
from windfall.servicekit.kube.kinds import CONFIG_MAP, STATEFUL_SET
from windfall.servicekit.testing.kube_examples import WIDGET, Space, config_map, fields_of, stateful_set, widget


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
