"""An API server that is down, slow, throttles, fails, forgets or is killed: who follows it loses nothing."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Cluster, Connection, Exists, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP
from windfall.servicekit.testing.kube_api import Faults, KubeApi

SPACE = "default"


def config_map(name: str, value: int = 0) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": SPACE},
        "data": {"v": str(value)},
    }


class Seen:
    """What somebody who follows knows: by name the uid and version, and whether every end was said."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[str, str]] = {}
        self.ended: set[str] = set()
        self.changed = asyncio.Event()

    async def follow(self, cluster: Cluster) -> None:
        async for change in cluster.follow(CONFIG_MAP, SPACE):
            metadata = change.object.get("metadata", {})
            if change.verb == "present":
                held = self.there.get(metadata["name"])
                assert held is None or held[0] == metadata["uid"], "another object of this name was not said to be gone"
                assert metadata["uid"] not in self.ended
                self.there[metadata["name"]] = metadata["uid"], metadata["resourceVersion"]
            elif change.verb == "absent":
                uid, _ = self.there.pop(metadata["name"])
                assert uid == metadata["uid"]
                self.ended.add(uid)
            self.changed.set()

    async def settled(self, cluster: Cluster) -> None:
        """Return when it knows what is there."""
        async with asyncio.timeout(60):
            while True:
                self.changed.clear()
                listing = await cluster.list(CONFIG_MAP, SPACE)
                there = {
                    item["metadata"]["name"]: (item["metadata"]["uid"], item["metadata"]["resourceVersion"])
                    for item in listing.items
                }
                if there == self.there:
                    return
                await self.changed.wait()


@asynccontextmanager
async def following(cluster: Cluster) -> AsyncIterator[Seen]:
    seen = Seen()
    task = asyncio.create_task(seen.follow(cluster))
    try:
        yield seen
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def write(cluster: Cluster, chance: random.Random, value: int) -> None:
    name = f"c{chance.randrange(8)}"
    match chance.randrange(4):
        case 0:
            with contextlib.suppress(Exists):
                await cluster.create(CONFIG_MAP, config_map(name, value))
        case 1:
            await cluster.delete(CONFIG_MAP, name, SPACE)
        case _:
            await cluster.apply(CONFIG_MAP, config_map(name, value), force=True)


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[Cluster]:
    async with Cluster.connect(Connection(kubeconfig), deadline=timedelta(seconds=60)) as cluster:
        yield cluster


def down(faults: Faults, _: KubeApi, on: bool) -> None:
    faults.down = on
    if on:
        faults.cut_watches()


def slow(faults: Faults, _: KubeApi, on: bool) -> None:
    faults.delay = timedelta(milliseconds=20 if on else 0)


def throttling(faults: Faults, _: KubeApi, on: bool) -> None:
    faults.throttled = 0.5 if on else 0.0
    faults.cut_watches()


def failing(faults: Faults, _: KubeApi, on: bool) -> None:
    faults.failing = 0.5 if on else 0.0
    faults.cut_watches()


def deaf(faults: Faults, _: KubeApi, on: bool) -> None:
    faults.deaf = 0.5 if on else 0.0


def forgetting(faults: Faults, api: KubeApi, on: bool) -> None:
    faults.gone = on
    api.store.forget()
    faults.cut_watches()


def cutting(faults: Faults, _: KubeApi, on: bool) -> None:
    faults.cut_watches()


Fault = Callable[[Faults, KubeApi, bool], None]


@pytest.mark.parametrize("fault", [down, slow, throttling, failing, deaf, forgetting, cutting])
async def test_who_follows_loses_nothing(kube_double: KubeApi, client: Cluster, fault: Fault) -> None:
    chance = random.Random(7)
    refused = 0
    async with following(client) as seen:
        for value in range(120):
            if value % 10 == 5:
                fault(kube_double.faults, kube_double, True)
            if value % 10 == 9:
                fault(kube_double.faults, kube_double, False)
            try:
                await write(client, chance, value)
            except Transient:
                refused += 1
        fault(kube_double.faults, kube_double, False)
        await seen.settled(client)
    assert (refused > 0) is (fault in (down, throttling, failing, deaf))


async def test_all_at_once(kube_double: KubeApi, client: Cluster) -> None:
    chance = random.Random(11)
    faults = kube_double.faults
    async with following(client) as seen:
        for value in range(300):
            for fault in (slow, throttling, failing, deaf, forgetting, cutting, down):
                if chance.random() < 0.05:
                    fault(faults, kube_double, True)
                elif chance.random() < 0.3:
                    fault(faults, kube_double, False)
            with contextlib.suppress(Transient):
                await write(client, chance, value)
        for fault in (slow, throttling, failing, deaf, forgetting, down):
            fault(faults, kube_double, False)
        await seen.settled(client)


async def test_how_long_a_server_asks_to_be_left_alone(kube_double: KubeApi, client: Cluster) -> None:
    kube_double.faults.throttled, kube_double.faults.retry_after_s = 1.0, 7
    with pytest.raises(Transient, match="too many requests") as caught:
        await client.get(CONFIG_MAP, "c", SPACE)
    assert caught.value.retry_after == timedelta(seconds=7)


async def test_a_server_that_does_not_answer_in_time(kube_double: KubeApi, kubeconfig: Path) -> None:
    kube_double.faults.delay = timedelta(seconds=5)
    async with Cluster.connect(Connection(kubeconfig), deadline=timedelta(milliseconds=100)) as cluster:
        with pytest.raises(Transient, match="TimeoutError"):
            await cluster.get(CONFIG_MAP, "c", SPACE)
    kube_double.faults.delay = timedelta(0)


async def test_a_lost_answer_is_asked_again_and_done_once(kube_double: KubeApi, client: Cluster) -> None:
    kube_double.faults.deaf = 1.0
    with pytest.raises(Transient):
        await client.create(CONFIG_MAP, config_map("c"))
    kube_double.faults.deaf = 0.0
    with pytest.raises(Exists):
        await client.create(CONFIG_MAP, config_map("c"))


async def test_a_page_that_was_forgotten_begins_anew(
    kube_double: KubeApi, client: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windfall.servicekit.kube.cluster._PAGE", 2)
    for number in range(5):
        await client.create(CONFIG_MAP, config_map(f"c{number}"))
    ask, pages = client._transport.ask, 0

    async def forgetful(method: str, path: str, **how: object) -> Object:
        nonlocal pages
        pages += 1
        answer = await ask(method, path, **how)  # type: ignore[arg-type]
        if pages == 2:
            await client.create(CONFIG_MAP, config_map("late"))
            kube_double.store.forget()
        return answer

    monkeypatch.setattr(client._transport, "ask", forgetful)
    names = [item["metadata"]["name"] for item in (await client.list(CONFIG_MAP, SPACE)).items]
    assert names == ["c0", "c1", "c2", "c3", "c4", "late"]


class Process:
    """The double as a process, which can be killed."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.port = "0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (sys.executable, "-m", "windfall.servicekit.testing.kube_api")
        self._process = await asyncio.create_subprocess_exec(
            *command, "--port", self.port, "--state", self.state, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert b"KUBECONFIG" in line
        if self.port == "0":
            config = (self.state / "kubeconfig").read_text()
            self.port = config.partition("https://127.0.0.1:")[2].partition('"')[0]

    async def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()


async def test_a_killed_server_has_what_it_acknowledged(tmp_path: Path) -> None:
    process = Process(tmp_path / "state")
    await process.start()
    chance = random.Random(3)
    acknowledged: dict[str, str] = {}
    async with Cluster.connect(Connection(process.state / "kubeconfig")) as cluster, following(cluster) as seen:
        for round_ in range(3):
            writing = asyncio.create_task(_write_until_it_breaks(cluster, chance, acknowledged))
            await asyncio.sleep(0.2)
            await process.kill()
            await writing
            await process.start()
            for name, value in acknowledged.items():
                found = await cluster.get(CONFIG_MAP, name, SPACE)
                assert found is not None and int(found["data"]["v"]) >= int(value), round_
        await seen.settled(cluster)
    await process.kill()


async def _write_until_it_breaks(cluster: Cluster, chance: random.Random, acknowledged: dict[str, str]) -> None:
    for _ in range(1_000_000):
        name = f"c{chance.randrange(20)}"
        value = str(int(acknowledged.get(name, "0")) + 1)
        try:
            await cluster.apply(CONFIG_MAP, config_map(name, int(value)), force=True)
        except Transient:
            return
        acknowledged[name] = value


async def test_a_port_in_use_is_a_mistake(kube_double: KubeApi) -> None:
    port = int(kube_double.url.rpartition(":")[2])
    with pytest.raises(Mistake, match="Choose a free port"):
        await KubeApi(port).__aenter__()
