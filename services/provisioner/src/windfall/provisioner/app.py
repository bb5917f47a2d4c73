"""Handlers and the reconciler of one site: hear, decide, journal, then act."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from windfall.contracts.commands import AcquireNode, CordonSite, ReleaseNode, UncordonSite
from windfall.contracts.events import SiteDrained, WindowClosed, WindowExpected, WindowOpened, WindowWithdrawn
from windfall.contracts.message import Message
from windfall.provisioner import claims
from windfall.provisioner import lease as life
from windfall.provisioner.backend import Backend, Outage
from windfall.provisioner.deadlines import next_deadline, tick
from windfall.provisioner.holdings import USUAL, Decision, Drain, Holdings, Kill, Lease, LeaseState, Need, Node, Start
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit import metrics
from windfall.servicekit.bus import back_off
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.instruments import LEASES, NODE_START
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

_HOLDINGS: Final = "holdings"
_LAST_KILLS_S: Final = 10.0
"""Wall time for ending what still runs when the service ends by a mistake."""


class Provisioner:
    """One site's leases, and a task for each node that runs under one.

    Args:
        settings: the site's.
        stand: what the service stands on.
        backend: what nodes are made of.
        environment: what every node is born with.
    """

    def __init__(
        self, settings: ProvisionerSettings, stand: Stand, backend: Backend, environment: Mapping[str, str]
    ) -> None:
        self._settings = settings
        self._policy = settings.policy
        self._stand = stand
        self._clock = stand.clock
        self._environment = environment
        self._nodes: dict[UUID, Node] = {}
        self._lives: dict[UUID, asyncio.Task[None]] = {}
        self._refusals: dict[UUID, int] = {}
        self._adopted = asyncio.Event()
        self._change = asyncio.Event()
        self._stopping = False
        self.site = settings.site
        self.backend = backend
        self.holdings = stand.journal.load(_HOLDINGS, Holdings) or Holdings(site=settings.site)
        metrics.observe(LEASES, self._counted)

    def _counted(self) -> Iterator[tuple[float, dict[str, str]]]:
        states = Counter(lease.state for lease in self.holdings.live)
        for state in LeaseState:
            yield states[state], {"windfall.site": self.site, "windfall.lease.state": state.value}

    # --- hear ---------------------------------------------------------------------------------------------------------

    async def prepare(self, expected: WindowExpected) -> None:
        """A window is near: its node should be warm when it opens."""
        if not self._stand.journal.heard(expected.id):
            self._take(expected, partial(claims.expect, opens_at=expected.opens_at), expected.at, expected.window_id)

    async def provision(self, opened: WindowOpened) -> None:
        """A window opened."""
        if not self._stand.journal.heard(opened.id):
            self._take(opened, claims.open_, opened.at, opened.window_id)

    async def obey(self, asked: AcquireNode) -> None:
        """Somebody asks for a node."""
        if not self._stand.journal.heard(asked.id):
            self._take(asked, claims.request, asked.at, asked.window_id)

    async def drain(self, closed: WindowClosed) -> None:
        """A window is over."""
        if not self._stand.journal.heard(closed.id):
            now = self._clock.now()
            self._keep(claims.close(self.holdings, closed.window_id, now, self._policy), closed)

    async def call_off(self, withdrawn: WindowWithdrawn) -> None:
        """A window that was expected does not come."""
        if not self._stand.journal.heard(withdrawn.id):
            now = self._clock.now()
            self._keep(claims.withdraw(self.holdings, withdrawn.window_id, now, self._policy), withdrawn)

    async def release(self, asked: ReleaseNode) -> None:
        """Somebody wants a node, or every node, back."""
        if not self._stand.journal.heard(asked.id):
            log.info("asked to release window %s: %s", asked.window_id or "whatever is held", asked.reason)
            self.give_back(asked.window_id, asked)

    async def let_go(self, drained: SiteDrained) -> None:
        """The trainer delivered what it had."""
        if not self._stand.journal.heard(drained.id):
            now = self._clock.now()
            decision = claims.drained(self.holdings, drained.window_id, drained.lease_token, now, self._policy)
            self._keep(decision, drained)

    async def cordon(self, asked: CordonSite) -> None:
        """Somebody wants no leases to be given."""
        if not self._stand.journal.heard(asked.id):
            self.close_off(asked.reason, asked)

    async def uncordon(self, asked: UncordonSite) -> None:
        """Somebody wants leases to be given again."""
        if not self._stand.journal.heard(asked.id):
            self.open_up(asked)

    def acquire(self, window_id: UUID, need: Need = USUAL) -> Lease | None:
        """Take the lease of a window; none when the window is over, or the site is cordoned.

        Raises:
            Transient: the provisioner is going away.
        """
        self._take(None, partial(claims.request, need=need), self._clock.now(), window_id)
        return self.holdings.of_window(window_id)

    def give_back(self, window_id: UUID | None, cause: ReleaseNode | None = None) -> None:
        """Drain the node of a window, or of every window when none is named."""
        self._keep(claims.release(self.holdings, window_id, self._clock.now(), self._policy), cause)

    def close_off(self, why: str, cause: CordonSite | None = None) -> None:
        """Give no leases until told otherwise."""
        log.info("cordoned: %s", why)
        self._keep(claims.cordon(self.holdings, why, self._clock.now(), self._policy), cause)

    def open_up(self, cause: UncordonSite | None = None) -> None:
        """Give leases again."""
        log.info("uncordoned")
        self._keep(claims.uncordon(self.holdings, self._clock.now(), self._policy), cause)

    async def plan(self, window_id: UUID, need: Need) -> Sequence[str]:
        """What the next lease's node would be, as its backend writes it.

        Raises:
            Transient: the backend cannot say now.
            Mistake: the backend would not take it.
        """
        planned = claims.planned(self.holdings, window_id, self._clock.now(), self._policy, need)
        return await self.backend.plan(planned, {**self._environment, **planned.environment})

    @property
    def change(self) -> asyncio.Event:
        """Set once the holdings are other than now."""
        return self._change

    def _take(self, cause: Message | None, claim: Callable[..., Decision], at: datetime, window_id: UUID) -> None:
        if self._stopping:
            raise Transient("the provisioner is stopping")
        with span("lease", attributes={"windfall.site": self.site, "windfall.window_id": str(window_id)}):
            trace = outgoing_trace().get("traceparent")
            now = self._clock.now()
            claimed = claim(self.holdings, window_id, at, traceparent=trace, now=now, policy=self._policy)
            self._keep(claimed, cause)

    # --- keep, then act -----------------------------------------------------------------------------------------------

    def _keep(self, decision: Decision, cause: Message | None = None) -> None:
        if cause is None and decision == Decision(self.holdings):
            return
        state = {} if decision.holdings == self.holdings else {_HOLDINGS: decision.holdings}
        self._stand.journal.commit(state=state, say=decision.events, heard=cause.id if cause else None)
        self._stand.outbox.wake()
        self.holdings = decision.holdings
        change, self._change = self._change, asyncio.Event()
        change.set()
        for action in decision.actions:
            self._act(action)

    def _act(self, action: Start | Drain | Kill) -> None:
        lease = action.lease
        node = self._nodes.get(lease.lease_id)
        match action:
            case Start():
                self._lead(lease, self._live(lease), f"start of {lease.node}")
            case Drain() if node:
                self._stand.spawn(self._ask(self.backend.drain, node), f"drain of {lease.node}")
            case Kill() if node:
                self._stand.spawn(self._ask(self.backend.kill, node), f"kill of {lease.node}")
            case Kill():
                self._lead(lease, self._sweep(lease), f"end of {lease.node}")
            case Drain():
                # Its start is still in flight: once the node exists, the decision is given again.
                log.info("%s will hear once it exists", lease.node)

    def _lead(self, lease: Lease, life: Coroutine[Any, Any, None], name: str) -> None:
        """From here on this is what is done about a lease's node; what was done until now is left off first."""
        self._nodes.pop(lease.lease_id, None)
        before = self._lives.get(lease.lease_id)
        task = self._lives[lease.lease_id] = self._stand.spawn(_after(before, life), name)
        task.add_done_callback(partial(self._led, lease.lease_id))

    def _led(self, lease_id: UUID, task: asyncio.Task[None]) -> None:
        if self._lives.get(lease_id) is task:
            del self._lives[lease_id]

    async def _ask(self, order: Callable[[Node], Awaitable[None]], node: Node) -> None:
        while self._nodes.get(node.lease_id) == node:
            if await self._asked(order, node):
                return

    async def _sweep(self, lease: Lease) -> None:
        """End whatever an attempt left that came to no node."""
        await self._adopted.wait()
        await self._until_killed(Node.of(lease))
        self._learn(lease, life.died, None)

    async def _until_killed(self, node: Node) -> None:
        while not await self._asked(self.backend.kill, node):
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
            parent=_trace(lease),
            attributes={"windfall.node": lease.node, "windfall.attempt": lease.attempts},
        ):
            trace = {key.upper(): value for key, value in outgoing_trace().items()}
            try:
                return await self.backend.start(lease, {**self._environment, **lease.environment, **trace})
            except Outage as error:
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
            exit_code = await self.backend.wait(node)
        finally:
            for task in listening:
                task.cancel()
        reach("node.gone")
        self._nodes.pop(lease.lease_id, None)
        self._learn(lease, life.died, exit_code)

    async def _await_ready(self, lease: Lease, node: Node) -> None:
        if await self.backend.ready(node):
            known = self.holdings.of_id(lease.lease_id)
            if known and not known.was_ready:
                took = self._clock.wall(self._clock.now() - lease.requested_at)
                metrics.record(NODE_START, took.total_seconds(), {"windfall.site": self.site})
                log.info("%s is ready %.1f s after its lease was taken", node.name, took.total_seconds())
            self._learn(lease, life.ready, self.backend.name)

    async def _hear_troubles(self, lease: Lease, node: Node) -> None:
        async for trouble in self.backend.troubles(node):
            if trouble:
                log.warning("%s is not ready: %s", node.name, trouble)
            self._learn(lease, life.hindered, trouble)

    def _learn(self, lease: Lease, decide: Callable[..., Decision], *known: object) -> None:
        """A node did something: decide and speak in the trace of its window."""
        with span(f"node.{decide.__name__}", parent=_trace(lease), attributes={"windfall.node": lease.node}):
            self._keep(decide(self.holdings, lease.lease_id, *known, self._clock.now(), self._policy))

    # --- begin and end ------------------------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Take over what runs, end what belongs to no lease, order again what never came to be. Sentences are heard and
        deadlines kept meanwhile; nothing is started before.

        Raises:
            Mistake: the backend's records cannot be read.
        """
        running = {node.lease_id: node for node in await self._adopt()}
        self._adopted.set()
        for lease in self.holdings.live:
            if lease.lease_id in self._lives:
                # Decided anew while the backend was being asked: what runs is found by whoever starts or ends it.
                running.pop(lease.lease_id, None)
            elif node := running.pop(lease.lease_id, None):
                self._lead(lease, self._watch(lease, node), f"watch of {node.name}")
            else:
                self._learn(lease, life.absent)
        for node in running.values():
            if 1 < self.holdings.next_token <= node.token:
                log.error("%s is left alone: a provisioner with a younger journal has started it", node.name)
                continue
            log.warning("%s runs under no lease: killed", node.name)
            self._stand.spawn(self._until_killed(node), f"end of {node.name}")

    async def _adopt(self) -> Sequence[Node]:
        refusals = 0
        while True:
            try:
                return await self.backend.adopt()
            except Transient as error:
                refusals += 1
                pause = error.retry_after or back_off(refusals)
                log.warning("what runs cannot be told, asked again in %.1f s: %s", pause.total_seconds(), error)
                await asyncio.sleep(pause.total_seconds())

    async def keep_time(self) -> None:
        """Decide whatever falls due, when it does."""
        while True:
            change = asyncio.ensure_future(self.change.wait())
            due = next_deadline(self.holdings)
            alarm = [] if due is None else [asyncio.ensure_future(self._clock.sleep_until(due))]
            try:
                await asyncio.wait([change, *alarm], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in (change, *alarm):
                    waiting.cancel()
            self._keep(tick(self.holdings, self._clock.now(), self._policy))

    async def end(self) -> None:
        """Start no more; leave the nodes to the next provisioner or end them, as the settings say."""
        self._stopping = True
        try:
            if self._settings.on_stop == "release" and self._stand.mistake is None:
                self.give_back(None)
                while self.holdings.live:
                    await self.change.wait()
        finally:
            if self._settings.on_stop == "release":
                await self._end_all()
            await self.backend.close()

    async def _end_all(self) -> None:
        try:
            async with asyncio.timeout(_LAST_KILLS_S):
                for node in list(self._nodes.values()):
                    await self._until_killed(node)
                    await self.backend.wait(node)
        except TimeoutError:
            log.error(
                "%s may still run: the next provisioner ends them", ", ".join(n.name for n in self._nodes.values())
            )


@asynccontextmanager
async def attend(
    settings: ProvisionerSettings, stand: Stand, backend: Backend, environment: Mapping[str, str]
) -> AsyncIterator[Provisioner]:
    """Put a provisioner on its stand."""
    provisioner = Provisioner(settings, stand, backend, environment)
    stand.bus.hears(WindowExpected, settings.site, provisioner.prepare)
    stand.bus.hears(WindowWithdrawn, settings.site, provisioner.call_off)
    stand.bus.hears(WindowOpened, settings.site, provisioner.provision)
    stand.bus.hears(AcquireNode, settings.site, provisioner.obey)
    stand.bus.hears(WindowClosed, settings.site, provisioner.drain)
    stand.bus.hears(ReleaseNode, settings.site, provisioner.release)
    stand.bus.hears(SiteDrained, settings.site, provisioner.let_go)
    stand.bus.hears(CordonSite, settings.site, provisioner.cordon)
    stand.bus.hears(UncordonSite, settings.site, provisioner.uncordon)
    stand.spawn(provisioner.resume(), "adoption")
    stand.spawn(provisioner.keep_time(), "lease deadlines")
    try:
        yield provisioner
    finally:
        await provisioner.end()


async def _after(before: asyncio.Task[None] | None, life: Coroutine[Any, Any, None]) -> None:
    try:
        if before is not None and not before.done():
            before.cancel()
            await asyncio.wait([before])
    except asyncio.CancelledError:
        life.close()
        raise
    await life


def _trace(lease: Lease) -> dict[str, str]:
    return {"traceparent": lease.traceparent} if lease.traceparent else {}
