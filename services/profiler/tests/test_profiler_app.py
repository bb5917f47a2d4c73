"""The service on the in-memory bus: one word in, one word out, whatever happens between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid5

import pytest

from windfall.contracts.envelope import MESSAGE_ID, Letter, seal
from windfall.contracts.events import (
    NodeProfiled,
    NodeReady,
    TaskLearnt,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.hardware import Accelerator, Hardware
from windfall.contracts.message import Message, derived_id
from windfall.contracts.profile import Identity, Local, Profile
from windfall.contracts.subjects import site_streams
from windfall.profiler import app
from windfall.profiler.discovery.hardware import Discovered
from windfall.profiler.fixed import FixedProbe
from windfall.profiler.probe import Probes
from windfall.profiler.profile import COMPUTE_PARTS, LINK_PARTS, Compute, Host, Link, Workload, absent
from windfall.profiler.publication.files import Publish, nowhere
from windfall.profiler.recommendation import Goals
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

SITE = "site-a"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
STREAMS = site_streams(SITE)


def ready(token: int) -> NodeReady:
    window = uuid5(UUID(int=0), str(token))
    return NodeReady(
        id=derived_id(window, NodeReady.topic, SITE),
        at=NOON,
        site=SITE,
        window_id=window,
        lease_id=window,
        lease_token=token,
        node="node-1",
        backend="process",
    )


class Fleet:
    """The provisioner that speaks, and somebody who listens."""

    def __init__(self) -> None:
        self.domain = MemoryDomain(SITE)
        self.domain.declare(STREAMS)
        self._heard: asyncio.Queue[NodeProfiled] = asyncio.Queue()
        self._listener = MemoryBus(self.domain, "listener", STREAMS)

    async def __aenter__(self) -> "Fleet":
        self._listener.hears(NodeProfiled, SITE, self._heard.put)
        await self._listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._listener.stop()

    def say(self, message: Message) -> None:
        self.domain.store(seal(message, "/windfall/provisioner/site-a"))

    def say_again(self, message: NodeReady) -> None:
        """A second copy that the stream does not recognise, as after its duplicate window."""
        letter = seal(message, "/windfall/provisioner/site-a")
        self.domain.store(Letter(letter.subject, {**letter.headers, MESSAGE_ID: ""}, letter.body))

    async def said(self) -> NodeProfiled:
        return await self._heard.get()

    @asynccontextmanager
    async def profiler(self, state_dir: Path, probe: FixedProbe, publish: Publish = nowhere) -> AsyncIterator[Stand]:
        journal = Journal(state_dir / "profiler.sqlite", "/windfall/profiler/site-a")
        bus = MemoryBus(self.domain, "profiler", STREAMS)
        stand = Stand("profiler", SITE, LoopClock(NOON), journal, bus, Outbox(journal, bus))
        app.attend(stand, Probes(probe, probe, probe, probe), Goals(timedelta(seconds=30)), publish)
        await stand.rise()
        try:
            yield stand
        finally:
            await stand.lie_down()


async def test_a_node_that_is_ready_is_profiled(tmp_path: Path) -> None:
    async with Fleet() as fleet, fleet.profiler(tmp_path, FixedProbe()):
        fleet.say(ready(1))
        profiled = await fleet.said()
    cause = ready(1)
    assert profiled.id == derived_id(cause.id, "node.profiled", SITE)
    assert (profiled.window_id, profiled.lease_token, profiled.node) == (cause.window_id, 1, "node-1")
    assert profiled.at >= NOON
    assert not profiled.measured.missing
    assert profiled.recommendation.micro_batch == 32
    assert profiled.recommendation.local_steps == 333


async def test_the_same_hardware_is_benchmarked_once(tmp_path: Path) -> None:
    probe = FixedProbe()
    async with Fleet() as fleet:
        async with fleet.profiler(tmp_path, probe):
            fleet.say(ready(1))
            first = await fleet.said()
            fleet.say(ready(2))
            second = await fleet.said()
        restarted = FixedProbe()
        async with fleet.profiler(tmp_path, restarted):
            fleet.say(ready(3))
            third = await fleet.said()
    assert first.measured == second.measured == third.measured
    assert (probe.benchmarks, restarted.benchmarks) == (1, 0)
    assert [profiled.lease_token for profiled in (first, second, third)] == [1, 2, 3]


A100 = Accelerator(vendor="nvidia", model="NVIDIA A100-SXM4-40GB", driver="535.154.05", throttled=())
LOCAL = Local(accelerators=(Identity(uuid="GPU-1", pci_address="0000:07:00.0"),))


def with_gpu(**changed: object) -> Discovered:
    return Discovered(Hardware(accelerators=(A100.model_copy(update=changed),)), LOCAL)


async def test_what_the_node_is_made_of_is_told_and_which_one_it_is_stays(tmp_path: Path) -> None:
    published: list[Profile] = []
    async with Fleet() as fleet, fleet.profiler(tmp_path, FixedProbe(discovered=with_gpu()), published.append):
        fleet.say(ready(1))
        profiled = await fleet.said()
    assert profiled.hardware == with_gpu().hardware
    assert "GPU-1" not in profiled.model_dump_json()
    (profile,) = published
    assert profile.local == LOCAL
    assert (profile.hardware, profile.measured, profile.at) == (profiled.hardware, profiled.measured, profiled.at)


@pytest.mark.parametrize(
    ("changed", "benchmarks"),
    [
        pytest.param({"driver": "550.54.15"}, 2, id="driver"),
        pytest.param({"memory_bytes": 1}, 2, id="memory"),
        pytest.param({"throttled": ("sw-power-cap",), "ecc_uncorrected": 1}, 1, id="its-mood"),
    ],
)
async def test_a_benchmark_is_for_one_hardware_and_driver(
    tmp_path: Path, changed: dict[str, object], benchmarks: int
) -> None:
    probe = FixedProbe(discovered=with_gpu())
    async with Fleet() as fleet, fleet.profiler(tmp_path, probe):
        fleet.say(ready(1))
        await fleet.said()
        probe.discovered = with_gpu(**changed)
        fleet.say(ready(2))
        await fleet.said()
    assert probe.benchmarks == benchmarks


class Asked(FixedProbe):
    """Tells when a node is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()

    async def host(self) -> Host:
        self.asked.set()
        return await super().host()


def of_window(kind: type[WindowExpected | WindowOpened | WindowWithdrawn], token: int) -> Message:
    window = ready(token).window_id
    values = {"opens_at": NOON, "expected_close_at": None, "confidence": 0.9, "intensity_g_per_kwh": 20}
    return kind.model_validate(
        {"id": derived_id(window, kind.topic, SITE), "at": NOON, "site": SITE, "window_id": window, **values}
    )


@pytest.mark.parametrize("restarted", [False, True], ids=["standing", "restarted-meanwhile"])
async def test_a_node_ahead_of_its_window_is_benchmarked_when_it_opens(tmp_path: Path, restarted: bool) -> None:
    probe = Asked()
    async with Fleet() as fleet, AsyncExitStack() as life:
        await life.enter_async_context(fleet.profiler(tmp_path, probe))
        fleet.say(of_window(WindowExpected, 1))
        fleet.say(ready(1))
        await probe.asked.wait()
        assert probe.benchmarks == 0, "power is not surplus yet"
        if restarted:
            await life.aclose()
            await life.enter_async_context(fleet.profiler(tmp_path, probe))
        fleet.say(of_window(WindowOpened, 1))
        first = await fleet.said()
        assert (first.id, probe.benchmarks) == (derived_id(ready(1).id, "node.profiled", SITE), 1)
        fleet.say(of_window(WindowExpected, 2))
        fleet.say(ready(2))
        assert (await fleet.said()).lease_token == 2, "known hardware is profiled before its window opens"
        fleet.say(of_window(WindowOpened, 2))
        fleet.say(ready(3))
        assert (await fleet.said()).lease_token == 3, "and once"
    assert probe.benchmarks == 1


async def test_a_node_whose_window_opens_first_is_benchmarked_at_once(tmp_path: Path) -> None:
    async with Fleet() as fleet, fleet.profiler(tmp_path, FixedProbe()):
        for message in (of_window(WindowExpected, 1), of_window(WindowOpened, 1), ready(1)):
            fleet.say(message)
        assert (await fleet.said()).lease_token == 1


async def test_a_window_that_does_not_come_leaves_its_node_unmeasured(tmp_path: Path) -> None:
    probe = FixedProbe()
    async with Fleet() as fleet, fleet.profiler(tmp_path, probe):
        for message in (of_window(WindowExpected, 1), ready(1), of_window(WindowWithdrawn, 1), ready(2)):
            fleet.say(message)
        assert (await fleet.said()).lease_token == 2


async def test_another_benchmark_measures_again(tmp_path: Path) -> None:
    probe = FixedProbe()
    async with Fleet() as fleet, fleet.profiler(tmp_path, probe):
        fleet.say(ready(1))
        first = await fleet.said()
        probe.version = "newer"
        fleet.say(ready(2))
        second = await fleet.said()
    assert probe.benchmarks == 2
    assert first.measured.fingerprint != second.measured.fingerprint


async def test_what_cannot_be_measured_is_said_and_tried_again(tmp_path: Path) -> None:
    probe = FixedProbe(
        compute_reading=Compute(missing=absent(COMPUTE_PARTS, "torch cannot be loaded")),
        link_reading=Link(missing=absent(LINK_PARTS, "the coordinator is away")),
    )
    async with Fleet() as fleet, fleet.profiler(tmp_path, probe):
        fleet.say(ready(1))
        dark = await fleet.said()
        probe.compute_reading, probe.link_reading = FixedProbe().compute_reading, FixedProbe().link_reading
        fleet.say(ready(2))
        bright = await fleet.said()
    assert set(dark.measured.missing) == {*COMPUTE_PARTS, *LINK_PARTS}
    assert dark.recommendation.because == (
        "No training step could be measured (torch cannot be loaded), so the defaults stand."
    )
    assert not bright.measured.missing
    assert dark.measured.fingerprint == bright.measured.fingerprint


async def test_twice_heard_is_once_said(tmp_path: Path) -> None:
    async with Fleet() as fleet, fleet.profiler(tmp_path, FixedProbe()):
        fleet.say(ready(1))
        fleet.say_again(ready(1))
        fleet.say(ready(2))
        assert [(await fleet.said()).lease_token for _ in range(2)] == [1, 2]


class Learning(FixedProbe):
    """A benchmark of which task's step is known."""

    def __init__(self, of: str = "") -> None:
        super().__init__()
        self.version = f"fixed{of}"
        self.made: list[Learning] = []

    def of(self, workload: Workload) -> FixedProbe:
        self.made.append(Learning(f" of {workload.task} {workload.settings}"))
        self.made[-1].compute_reading = self.compute_reading.model_copy(update={"task": workload.task})
        return self.made[-1]


def learnt(token: int, task: str = "gpt-neox") -> TaskLearnt:
    window = uuid5(UUID(int=0), str(token))
    return TaskLearnt(
        id=derived_id(f"{window}/{task}", TaskLearnt.topic, SITE),
        at=NOON,
        site=SITE,
        federation="demo",
        window_id=window,
        lease_token=token,
        task=task,
    )


async def test_what_the_trainer_learns_is_measured_and_remembered(tmp_path: Path) -> None:
    async with Fleet() as fleet:
        async with fleet.profiler(tmp_path, Learning()):
            fleet.say(learnt(1))
            fleet.say(ready(1))
            assert (await fleet.said()).measured.task == "gpt-neox"
        async with fleet.profiler(tmp_path, Learning()):
            # Another window: the trainer has said nothing yet.
            fleet.say(ready(2))
            assert (await fleet.said()).measured.task == "gpt-neox"


async def test_a_node_that_was_measured_before_its_task_was_known_is_measured_again(tmp_path: Path) -> None:
    async with Fleet() as fleet, fleet.profiler(tmp_path, Learning()):
        fleet.say(ready(1))
        first = await fleet.said()
        fleet.say(learnt(1))
        second = await fleet.said()
        # Said again, or under another lease, it is no news.
        fleet.say(learnt(7))
        fleet.say(learnt(1, "resnet"))
        third = await fleet.said()
    assert [one.measured.task for one in (first, second, third)] == [None, "gpt-neox", "resnet"]
    assert len({first.id, second.id, third.id}) == 3
    assert (second.window_id, second.node) == (first.window_id, first.node)


class Unending(FixedProbe):
    """A benchmark that never comes to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def compute(self, host: Host) -> Compute:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        return self.compute_reading


async def test_a_stop_ends_the_measurement_and_the_next_start_takes_it_up(tmp_path: Path) -> None:
    async with Fleet() as fleet:
        unending = Unending()
        async with fleet.profiler(tmp_path, unending) as stand:
            fleet.say(ready(1))
            await unending.begun.wait()
            stand.stopping.set()
            await unending.ended.wait()
        async with fleet.profiler(tmp_path, FixedProbe()):
            assert (await fleet.said()).lease_token == 1
