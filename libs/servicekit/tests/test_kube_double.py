"""What the double does beside what a real API server is asked as well: its log, its history, the rarer patches."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, NAMESPACE
from windfall.servicekit.testing.kube_api import KubeApi
from windfall.servicekit.testing.kube_api.evicting import disruptions_allowed
from windfall.servicekit.testing.kube_api.patching import merge_patched, strategically_patched
from windfall.servicekit.testing.kube_api.refused import Refused
from windfall.servicekit.testing.kube_api.shapes import BuiltIn
from windfall.servicekit.testing.kube_api.store import Key, Store


def config_map(name: str) -> Object:
    return {"metadata": {"name": name, "namespace": "default"}}


def stored(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "uid": name}}


def key(name: str) -> Key:
    return Key("", "configmaps", "default", name)


def test_a_log_goes_on_after_a_line_that_was_cut(tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = Store(log)
    store.put(key("a"), stored("a"))
    store.put(key("b"), stored("b"))
    store.remove(key("a"))
    store.close()
    with log.open("a") as output:
        output.write('{"v": 4, "k": ["", "configmaps", "default", "c"], "o": {"met')
    again = Store(log)
    assert again.version == 3 and again.get(key("a")) is None and again.get(key("b")) is not None
    assert [change.key.name for change in again.since(1)] == ["b", "a"]
    again.put(key("c"), stored("c"))
    again.close()
    last = Store(log)
    assert last.version == 4 and [found["metadata"]["name"] for found in last.all("", "configmaps")] == ["b", "c"]
    last.close()


def test_a_long_log_is_written_anew_and_the_history_begins_there(tmp_path: Path) -> None:
    log = tmp_path / "log"
    store = Store(log, kept=4)
    for number in range(20):
        store.put(key(f"c{number % 3}"), stored(f"c{number % 3}"))
    store.close()
    again = Store(log, kept=4)
    assert again.version == 20 and len(log.read_text().splitlines()) == 4
    with pytest.raises(Refused):
        again.since(19)
    assert again.since(20) == []
    again.close()
    last = Store(log, kept=4)
    assert last.version == 20 and last.forgotten == 20 and len(last.all("", "configmaps")) == 3
    last.close()


def test_history_is_bounded() -> None:
    store = Store(kept=5)
    for number in range(30):
        store.put(key(f"c{number}"), stored(f"c{number}"))
    assert len(store.since(store.forgotten)) <= 10
    with pytest.raises(Refused):
        store.since(1)
    with pytest.raises(Refused):
        store.since(31)


async def test_a_server_goes_on_with_its_objects_its_certificate_and_its_watches(tmp_path: Path) -> None:
    async with KubeApi(state=tmp_path) as first:
        path = tmp_path / "kubeconfig"
        path.write_text(first.kubeconfig())
        port = int(first.url.rpartition(":")[2])
        async with Cluster.connect(Connection(path)) as cluster:
            made = await cluster.create(CONFIG_MAP, config_map("a"))
    async with KubeApi(port, tmp_path), Cluster.connect(Connection(path)) as cluster:
        assert await cluster.get(CONFIG_MAP, "a", "default") == made
        second = await cluster.create(CONFIG_MAP, config_map("b"))
        assert int(second["metadata"]["resourceVersion"]) == int(made["metadata"]["resourceVersion"]) + 1
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[Cluster]:
    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        yield cluster


async def test_bookmarks_come_by_the_clock(kube_double: KubeApi, client: Cluster) -> None:
    kube_double.bookmark_every = timedelta(milliseconds=20)
    query = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": str(kube_double.store.version)}
    async with client._transport.lines(CONFIG_MAP.path("default"), query, timedelta(seconds=60)) as lines:
        made = await client.create(NAMESPACE, {"metadata": {"name": "elsewhere"}})
        async for line in lines:
            event = json.loads(line)
            assert event["type"] == "BOOKMARK"
            # It says how far the server has come, though nothing of this kind has changed.
            if event["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]:
                break
        await lines.aclose()


async def test_who_follows_goes_on_from_a_bookmark(kube_double: KubeApi, client: Cluster) -> None:
    kube_double.bookmark_every = timedelta(milliseconds=20)
    heard = asyncio.Queue[str]()

    async def follow() -> None:
        async for change in client.follow(CONFIG_MAP, "default"):
            heard.put_nowait(change.verb)

    following = asyncio.create_task(follow())
    async with asyncio.timeout(60):
        assert await heard.get() == "synced"
        await client.create(NAMESPACE, {"metadata": {"name": "elsewhere"}})
        # As many turns as it takes until a bookmark has come, however long a busy machine makes each of them.
        for _ in range(20):
            await asyncio.sleep(0.02)
        # Everything before the bookmark is forgotten; the watch is cut, and needs no new list.
        kube_double.store.forget()
        kube_double.faults.cut_watches()
        await asyncio.sleep(0.1)
        await client.create(CONFIG_MAP, config_map("a"))
        assert await heard.get() == "present"
    following.cancel()


@pytest.mark.parametrize("body", [[], "text", {"metadata": []}, 3], ids=["list", "text", "odd", "number"])
async def test_a_body_that_is_no_object(client: Cluster, body: object) -> None:
    with pytest.raises(Mistake, match="is no object"):
        await client._transport.ask("POST", CONFIG_MAP.path("default"), body=body)


async def test_a_place_that_takes_no_such_request(client: Cluster) -> None:
    with pytest.raises(Mistake, match="does not allow this method"):
        await client._transport.ask("PUT", CONFIG_MAP.path("default"), body=config_map("a"))


def test_merge_patch_by_its_examples() -> None:
    """RFC 7396, appendix A."""
    cases = [
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('["a","b"]', '["c","d"]', '["c","d"]'),
        ('{"a":"b"}', '["c"]', '["c"]'),
        ('{"a":"foo"}', "null", "null"),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ]
    for live, patch, result in cases:
        assert merge_patched(json.loads(live), json.loads(patch)) == json.loads(result), patch


def test_the_directives_of_a_strategic_patch() -> None:
    live = {"containers": [{"name": "a", "image": "1"}, {"name": "b"}], "finalizers": ["x"], "o": {"p": 1, "q": 2}}

    def patched(patch: Object) -> Object:
        result: Object = strategically_patched(live, patch, BuiltIn())
        return result

    assert patched({"containers": [{"name": "a", "$patch": "delete"}]})["containers"] == [{"name": "b"}]
    replaced = patched({"containers": [{"name": "c"}, {"$patch": "replace"}]})["containers"]
    assert replaced == [{"name": "c"}]
    assert patched({"finalizers": ["y"]})["finalizers"] == ["x", "y"]
    assert patched({"$deleteFromPrimitiveList/finalizers": ["x"]})["finalizers"] == []
    assert patched({"o": {"$retainKeys": ["q"], "q": 3}})["o"] == {"q": 3}
    assert patched({"o": {"$patch": "replace", "r": 1}})["o"] == {"r": 1}
    assert patched({"o": None, "containers": [{"name": "b", "image": "2"}]})["containers"][1]["image"] == "2"


@pytest.mark.parametrize(
    ("spec", "expected", "allowed"),
    [
        ({"minAvailable": 1}, 3, 1),
        ({"minAvailable": "50%"}, 3, 0),
        ({"maxUnavailable": 1}, 2, 1),
        ({"maxUnavailable": "50%"}, 3, 1),
        ({"maxUnavailable": 0}, 2, 0),
    ],
)
def test_how_many_pods_a_budget_can_do_without(spec: Object, expected: int, allowed: int) -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}, "metadata": {}}
    ending = {**ready, "metadata": {"deletionTimestamp": "now"}}
    assert disruptions_allowed({"spec": spec}, [ready, ready, ending], expected) == allowed
