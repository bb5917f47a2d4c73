"""Writes, and what is made of built-in kinds, asked of the double and of a real API server alike."""

import pytest

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Absent, Conflict, Exists, Kind
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, LEASE, NAMESPACE, NODE, SECRET, SERVICE, STATEFUL_SET
from windfall.servicekit.kube.refusals import Unserved
from windfall.servicekit.kube.transport import JSON_PATCH
from windfall.servicekit.testing.kube_examples import Space, config_map, fields_of, raw_patch, stateful_set, version_of


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
