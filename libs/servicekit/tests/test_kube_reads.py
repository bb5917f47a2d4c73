"""Selectors, pages, watches, and who may read, asked of the double and of a real API server alike."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Change, Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, POD, ROLE, ROLE_BINDING, SERVICE_ACCOUNT
from windfall.servicekit.kube.refusals import Expired
from windfall.servicekit.testing.kube_examples import (
    GROUP,
    WIDGET,
    WIDGET_SPEC,
    Space,
    config_map,
    created_pod,
    defined,
    pod,
    transport,
    version_of,
)


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
    async with asyncio.timeout(60):
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
        async with aclosing(space.cluster.follow(CONFIG_MAP, space.namespace)) as changes:
            assert await heard(changes, lambda said: ("synced", "") in said) == [("present", "a"), ("synced", "")]
            await space.cluster.create(CONFIG_MAP, config_map(space, "b"))
            await space.cluster.patch(CONFIG_MAP, "a", space.namespace, {"data": {"x": "1"}})
            await space.cluster.delete(CONFIG_MAP, "b", space.namespace)
            said = await heard(changes, lambda said: ("absent", "b") in said)
            assert said == [("present", "b"), ("present", "a"), ("absent", "b")]

    async def test_selected_objects_come_and_go(self, space: Space) -> None:
        follow = space.cluster.follow(CONFIG_MAP, space.namespace, labels="x=1")
        async with aclosing(follow) as changes:
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
            # A real server hears of roles a little after they are made.
            allowed = None
            async with asyncio.timeout(60):
                while allowed is not expected:
                    allowed = (await transport(space).ask("POST", path, body=body))["status"]["allowed"]

    async def test_who_may_not_is_told_so(self, space: Space, tmp_path: Path) -> None:
        config = json.loads(space.server.kubeconfig.read_text())
        path = tmp_path / "viewer"
        for token, said in {"viewtoken": "viewer", "nonsense": "401|Unauthorized"}.items():
            config["users"][0]["user"] = {"token": token}
            path.write_text(json.dumps(config))
            async with Cluster.connect(Connection(path)) as cluster:
                with pytest.raises(Mistake, match=said):
                    await cluster.create(CONFIG_MAP, config_map(space))
