"""Hears that a node is ready, has it measured, says what it is worth."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from windfall.contracts.events import NodeReady
from windfall.profiler.probe import Probes
from windfall.profiler.profile import Benchmarked, Goals, fingerprint, profiled, reusable, summarise
from windfall.servicekit.errors import Transient
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span

BENCHMARKED: Final = "benchmarked"
"""Journal key of the last compute reading: the same hardware is not measured again for every window."""

T = TypeVar("T")


def attend(stand: Stand, probes: Probes, goals: Goals) -> None:
    """Register the one handler on the stand."""

    async def profile(ready: NodeReady) -> None:
        if stand.journal.heard(ready.id):
            return
        host = await probes.host.host()
        mark = fingerprint(host, probes.compute.version)
        compute = reusable(stand.journal.load(BENCHMARKED, Benchmarked), mark)
        with span("measure node", attributes={"windfall.node": ready.node, "windfall.cached": compute is not None}):
            if compute is None:
                compute = await _unless_stopping(stand, probes.compute.compute(host))
            link = await _unless_stopping(stand, probes.link.link())
        said = profiled(ready, summarise(mark, host, compute, link), goals, stand.clock.now())
        kept = Benchmarked(fingerprint=mark, compute=compute)
        stand.journal.commit(state={BENCHMARKED: kept}, say=[said], heard=ready.id)
        stand.outbox.wake()

    stand.bus.hears(NodeReady, stand.whom, profile)


async def _unless_stopping(stand: Stand, work: Coroutine[Any, Any, T]) -> T:
    """Let a measurement finish, or give it up when the service is told to stop: the node.ready comes back later."""
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
