"""Hears that a node is ready, has it measured, says what it is worth."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from windfall.contracts.events import NodeReady, TaskLearnt, WindowClosed, WindowExpected, WindowOpened, WindowWithdrawn
from windfall.contracts.message import Message
from windfall.contracts.profile import told
from windfall.contracts.subjects import HUB
from windfall.profiler import ahead as waits
from windfall.profiler import learning
from windfall.profiler.ahead import Ahead
from windfall.profiler.learning import Learnt
from windfall.profiler.links import Cadence, Links
from windfall.profiler.probe import ComputeProbe, Probes
from windfall.profiler.profile import Benchmarked, fingerprint, profiled, reusable, summarise
from windfall.profiler.publication.files import Publish, nowhere
from windfall.profiler.recommendation import Goals
from windfall.servicekit.errors import Transient
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span

BENCHMARKED: Final = "benchmarked"
"""Journal key of the last compute reading: the same hardware is not measured again for every window."""
AHEAD: Final = "ahead"
"""Journal key of the expected window and the node that waits for it."""

LEARNT: Final = "learnt"
"""Journal key of what the site's trainers train."""

T = TypeVar("T")


def attend(
    stand: Stand, probes: Probes, goals: Goals, publish: Publish = nowhere, cadence: Cadence = Cadence()
) -> None:
    """Register the handlers on the stand, and look at the site's links from now on."""
    profiler = Profiler(stand, probes, goals, publish)
    links = Links(stand, {HUB: probes.link, **probes.peers}, cadence)

    async def opened(event: WindowOpened) -> None:
        links.opened(event)
        await profiler.catch_up(event)

    async def closed(event: WindowClosed) -> None:
        links.closed(event)
        await profiler.forget(event)

    stand.bus.hears(WindowExpected, stand.whom, profiler.expect)
    stand.bus.hears(WindowOpened, stand.whom, opened)
    stand.bus.hears(WindowWithdrawn, stand.whom, profiler.forget)
    stand.bus.hears(WindowClosed, stand.whom, closed)
    stand.bus.hears(TaskLearnt, stand.whom, profiler.learn)
    stand.bus.hears(NodeReady, stand.whom, profiler.profile)
    links.attend()


class Profiler:
    """One site's, as far as it is journaled."""

    def __init__(self, stand: Stand, probes: Probes, goals: Goals, publish: Publish) -> None:
        self._publish = publish
        self._stand = stand
        self._probes = probes
        self._goals = goals
        self._ahead = stand.journal.load(AHEAD, Ahead) or Ahead()
        self._learnt = stand.journal.load(LEARNT, Learnt) or Learnt()

    async def expect(self, expected: WindowExpected) -> None:
        """A window is near: what becomes ready for it now is ready ahead of it."""
        if not self._stand.journal.heard(expected.id):
            self._keep(waits.expected(self._ahead, expected.window_id), expected)

    async def learn(self, event: TaskLearnt) -> None:
        """The trainer says what it trains: measure steps of that from now on, and at once where the node was measured
        without."""
        if self._stand.journal.heard(event.id):
            return
        version, known = self._compute.version, self._learnt
        if self._probes.learns:
            self._learnt = learning.learnt(known, event)
        ready = learning.again(known, event)
        if ready is None or self._compute.version == version:
            self._stand.journal.commit(state={LEARNT: self._learnt}, heard=event.id)
        else:
            await self._measured(ready, event, self._ahead, may_benchmark=True)

    async def profile(self, ready: NodeReady) -> None:
        """A node is ready: measure it, unless that has to wait."""
        if self._stand.journal.heard(ready.id):
            return
        if not await self._measured(ready, ready, self._ahead, may_benchmark=not waits.must_wait(self._ahead, ready)):
            self._keep(waits.put_off(self._ahead, ready), ready)

    async def catch_up(self, opened: WindowOpened) -> None:
        """A window opened: measure the node that waited for it."""
        if self._stand.journal.heard(opened.id):
            return
        waiting, after = self._ahead.waiting, waits.over(self._ahead, opened.window_id)
        if waiting is None or waiting.window_id != opened.window_id:
            self._keep(after, opened)
        else:
            await self._measured(waiting, opened, after, may_benchmark=True)

    async def forget(self, over: WindowWithdrawn | WindowClosed) -> None:
        """A window does not come, or is over: its node goes unmeasured."""
        if not self._stand.journal.heard(over.id):
            self._learnt = learning.closed(self._learnt, over.window_id)
            self._keep(waits.over(self._ahead, over.window_id), over)

    @property
    def _compute(self) -> ComputeProbe:
        probe, workload = self._probes.compute, self._learnt.workload
        return probe if workload is None else probe.of(workload)

    async def _measured(
        self, ready: NodeReady, cause: NodeReady | WindowOpened | TaskLearnt, ahead: Ahead, may_benchmark: bool
    ) -> bool:
        """Measure, say, and keep what is ahead from now on; false when unknown hardware must not be benchmarked yet."""
        host = await self._probes.host.host()
        found = await _unless_stopping(self._stand, self._probes.hardware.discover())
        probe = self._compute
        mark = fingerprint(host, found.hardware, probe.version)
        compute = reusable(self._stand.journal.load(BENCHMARKED, Benchmarked), mark)
        if compute is None and not may_benchmark:
            return False
        with span("measure node", attributes={"windfall.node": ready.node, "windfall.cached": compute is not None}):
            if compute is None:
                compute = await _unless_stopping(self._stand, probe.compute(host))
            link = await _unless_stopping(self._stand, self._probes.link.link())
        measured = summarise(mark, host, compute, link)
        once_more = cause.id if isinstance(cause, TaskLearnt) else None
        said = profiled(ready, measured, found.hardware, self._goals, self._stand.clock.now(), once_more)
        self._publish(told(said, found.local))
        kept = Benchmarked(fingerprint=mark, compute=compute)
        self._learnt = learning.profiled(self._learnt, ready)
        state = {BENCHMARKED: kept, AHEAD: ahead, LEARNT: self._learnt}
        self._stand.journal.commit(state=state, say=[said], heard=cause.id)
        self._ahead = ahead
        self._stand.outbox.wake()
        return True

    def _keep(self, ahead: Ahead, cause: Message) -> None:
        self._stand.journal.commit(state={AHEAD: ahead, LEARNT: self._learnt}, heard=cause.id)
        self._ahead = ahead


async def _unless_stopping(stand: Stand, work: Coroutine[Any, Any, T]) -> T:
    """Let a measurement finish, or give it up when the service is told to stop: the word for it comes back later."""
    measuring = asyncio.create_task(work)
    stopped = asyncio.create_task(stand.stopping.wait())
    try:
        await asyncio.wait([measuring, stopped], return_when=asyncio.FIRST_COMPLETED)
        if measuring.done():
            return measuring.result()
        raise Transient("the profiler stops before the node is measured")
    finally:
        measuring.cancel()
        stopped.cancel()
        await asyncio.gather(measuring, stopped, return_exceptions=True)
