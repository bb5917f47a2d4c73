"""What runs under a site's leases: a task for each, so that none waits for another, and what is heard from them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

from windfall.provisioner import lease as life
from windfall.provisioner.backend import Backend, NoRoom, Untried
from windfall.provisioner.holdings import Decision, Drain, Holdings, Kill, Lease, Node, Start
from windfall.servicekit import metrics
from windfall.servicekit.bus import back_off
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.instruments import NODE_START
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

_LAST_KILLS_S: Final = 10.0
"""Wall time for ending what still runs when the service ends by a mistake."""


class Learn(Protocol):
    """Decides and journals what is known now of a lease's node."""

    def __call__(self, lease: Lease, decide: Callable[..., Decision], *known: object) -> None: ...


class Nodes:
    """See the module.

    Args:
        backend: what nodes are made of.
        stand: what the service stands on.
        environment: what every node is born with.
        learn: is told whatever happens to a node.
        holdings: what the site holds now.
    """

    def __init__(
        self,
        backend: Backend,
        stand: Stand,
        environment: Mapping[str, str],
        learn: Learn,
        holdings: Callable[[], Holdings],
    ) -> None:
        self._backend = backend
        self._stand = stand
        self._environment = environment
        self._learn = learn
        self._holdings = holdings
        self._nodes: dict[UUID, Node] = {}
        self._lives: dict[UUID, asyncio.Task[None]] = {}
        self._refusals: dict[UUID, int] = {}
        self._adopted = asyncio.Event()

    # --- orders -------------------------------------------------------------------------------------------------------

    def act(self, action: Start | Drain | Kill) -> None:
        """Do what was decided, without waiting for it."""
        lease = action.lease
        node = self._nodes.get(lease.lease_id)
        match action:
            case Start():
                self._lead(lease, partial(self._live, lease), f"start of {lease.node}")
            case Drain() if node:
                self._stand.spawn(self._ask(self._backend.drain, node), f"drain of {lease.node}")
            case Kill() if node:
                self._stand.spawn(self._ask(self._backend.kill, node), f"kill of {lease.node}")
            case Kill():
                self._lead(lease, partial(self._sweep, lease), f"end of {lease.node}")
            case Drain():
                # Its start is still in flight: once the node exists, the decision is given again.
                log.info("%s will hear once it exists", lease.node)

    def _lead(self, lease: Lease, life: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """From here on this is what is done about a lease's node; what was done until now is left off first."""
        self._nodes.pop(lease.lease_id, None)
        before = self._lives.get(lease.lease_id)
        task = self._lives[lease.lease_id] = self._stand.spawn(_after(before, life), name)
        task.add_done_callback(partial(self._led, lease.lease_id))

    def _led(self, lease_id: UUID, task: asyncio.Task[None]) -> None:
        if self._lives.get(lease_id) is task:
            del self._lives[lease_id]

    async def _ask(self, order: Callable[[Node], Awaitable[None]], node: Node) -> None:
        # The very one: a later attempt may look the same, and is not what was meant.
        while self._nodes.get(node.lease_id) is node:
            if await self._asked(order, node):
                return

    async def _sweep(self, lease: Lease) -> None:
        """End whatever an attempt left that came to no node."""
        await self._adopted.wait()
        await self._until_killed(Node.of(lease))
        self._learn(lease, life.died, None)

    async def _until_killed(self, node: Node) -> None:
        while not await self._asked(self._backend.kill, node):
            log.info("%s is still to be ended", node.name)

    async def _asked(self, order: Callable[[Node], Awaitable[None]], node: Node) -> bool:
        """Whether a node could be asked; a rest where it could not."""
        try:
            await order(node)
        except Transient as error:
            refusals = self._refusals[node.lease_id] = self._refusals.get(node.lease_id, 0) + 1
            pause = error.retry_after or back_off(refusals)
            log.warning("%s: asked again in %.1f s: %s", node.name, pause.total_seconds(), error)
            await asyncio.sleep(pause.total_seconds())
            return False
        self._refusals.pop(node.lease_id, None)
        reach("order.given")
        return True

    # --- one node -----------------------------------------------------------------------------------------------------

    async def _live(self, lease: Lease) -> None:
        await self._adopted.wait()
        reach("start.ordered")
        node = await self._start(lease)
        if node is not None:
            reach("node.started")
            await self._watch(lease, node)

    async def _start(self, lease: Lease) -> Node | None:
        with span(
            "node.start",
            parent=trace_of(lease),
            attributes={"windfall.node": lease.node, "windfall.attempt": lease.attempts},
        ):
            trace = {key.upper(): value for key, value in outgoing_trace().items()}
            try:
                return await self._backend.start(lease, {**self._environment, **lease.environment, **trace})
            except NoRoom as error:
                for line in error.machines:
                    log.warning("no room for %s on %s", lease.node, line)
                self._learn(lease, life.unheard, error.why)
            except Untried as error:
                log.warning("%s", error)
                self._learn(lease, life.unheard, str(error))
            except Transient as error:
                log.warning("%s", error)
                self._learn(lease, life.refused, str(error), True)
            except Mistake as error:
                log.error("%s", error)
                self._learn(lease, life.refused, str(error), False)
        return None

    async def _watch(self, lease: Lease, node: Node) -> None:
        self._nodes[lease.lease_id] = node
        self._learn(lease, life.started)
        listening = [
            self._stand.spawn(self._await_ready(lease, node), f"readiness of {node.name}"),
            self._stand.spawn(self._hear_troubles(lease, node), f"troubles of {node.name}"),
        ]
        try:
            exit_code = await self._backend.wait(node)
        finally:
            for task in listening:
                task.cancel()
        reach("node.gone")
        self._nodes.pop(lease.lease_id, None)
        self._learn(lease, life.died, exit_code)

    async def _await_ready(self, lease: Lease, node: Node) -> None:
        if await self._backend.ready(node):
            known = self._holdings().of_id(lease.lease_id)
            if known and not known.was_ready:
                took = self._stand.clock.wall(self._stand.clock.now() - lease.requested_at)
                metrics.record(NODE_START, took.total_seconds(), {"windfall.site": lease.site})
                log.info("%s is ready %.1f s after its lease was taken", node.name, took.total_seconds())
            self._learn(lease, life.ready, self._backend.name)

    async def _hear_troubles(self, lease: Lease, node: Node) -> None:
        async for trouble in self._backend.troubles(node):
            if trouble:
                log.warning("%s is not ready: %s", node.name, trouble)
            self._learn(lease, life.hindered, trouble)

    # --- begin and end ------------------------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Take over what runs, end what belongs to no lease, order again what never came to be. Sentences are heard and
        deadlines kept meanwhile; nothing is started before.

        Raises:
            Mistake: the backend's records cannot be read.
        """
        running = {node.lease_id: node for node in await self._adopt()}
        self._adopted.set()
        for lease in self._holdings().live:
            if lease.lease_id in self._lives:
                # Decided anew while the backend was being asked: what runs is found by whoever starts or ends it.
                running.pop(lease.lease_id, None)
            elif node := running.pop(lease.lease_id, None):
                self._lead(lease, partial(self._watch, lease, node), f"watch of {node.name}")
            else:
                self._learn(lease, life.absent)
        for node in running.values():
            if 1 < self._holdings().next_token <= node.token:
                log.error("%s is left alone: a provisioner with a younger journal has started it", node.name)
                continue
            log.warning("%s runs under no lease: killed", node.name)
            self._stand.spawn(self._until_killed(node), f"end of {node.name}")

    async def _adopt(self) -> Sequence[Node]:
        refusals = 0
        while True:
            try:
                return await self._backend.adopt()
            except Transient as error:
                refusals += 1
                pause = error.retry_after or back_off(refusals)
                log.warning("what runs cannot be told, asked again in %.1f s: %s", pause.total_seconds(), error)
                await asyncio.sleep(pause.total_seconds())

    async def end_all(self) -> None:
        """End whatever runs, and wait for it a while."""
        try:
            async with asyncio.timeout(_LAST_KILLS_S):
                for node in list(self._nodes.values()):
                    await self._until_killed(node)
                    await self._backend.wait(node)
        except TimeoutError:
            log.error(
                "%s may still run: the next provisioner ends them", ", ".join(n.name for n in self._nodes.values())
            )


async def _after(before: asyncio.Task[None] | None, life: Callable[[], Coroutine[Any, Any, None]]) -> None:
    if before is not None and not before.done():
        before.cancel()
        await asyncio.wait([before])
    await life()


def trace_of(lease: Lease) -> dict[str, str]:
    """The trace of the sentence that asked for a lease."""
    return {"traceparent": lease.traceparent} if lease.traceparent else {}
