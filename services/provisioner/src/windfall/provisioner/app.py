"""Handlers and the reconciler of one site: hear, decide, journal, then act."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from windfall.contracts.commands import AcquireNode, ReleaseNode
from windfall.contracts.events import SiteDrained, WindowClosed, WindowExpected, WindowOpened, WindowWithdrawn
from windfall.contracts.message import Message
from windfall.provisioner import claims
from windfall.provisioner import lease as life
from windfall.provisioner.backend import Backend
from windfall.provisioner.holdings import Decision, Drain, Holdings, Kill, Lease, Node, Start
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.bus import back_off
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

_HOLDINGS: Final = "holdings"


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
        self._change = asyncio.Event()
        self._stopping = False
        self.site = settings.site
        self.backend = backend
        self.holdings = stand.journal.load(_HOLDINGS, Holdings) or Holdings(site=settings.site)

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

    def acquire(self, window_id: UUID) -> Lease | None:
        """Take the lease of a window; none when the window is over.

        Raises:
            Transient: the provisioner is going away.
        """
        self._take(None, claims.request, self._clock.now(), window_id)
        return self.holdings.of_window(window_id)

    def give_back(self, window_id: UUID | None, cause: ReleaseNode | None = None) -> None:
        """Drain the node of a window, or of every window when none is named."""
        self._keep(claims.release(self.holdings, window_id, self._clock.now(), self._policy), cause)

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
                self._stand.spawn(self._live(lease), f"start of {lease.node}")
            case Drain() if node:
                self._stand.spawn(self._ask(self.backend.drain, node), f"drain of {lease.node}")
            case Kill() if node:
                self._stand.spawn(self._ask(self.backend.kill, node), f"kill of {lease.node}")
            case _:
                # Its start is still in flight: once the node exists, the decision is given again.
                log.info("%s will hear once it exists", lease.node)

    async def _ask(self, order: Callable[[Node], Awaitable[None]], node: Node) -> None:
        refusals = 0
        while self._nodes.get(node.lease_id) == node:
            try:
                return await order(node)
            except Transient as error:
                refusals += 1
                pause = error.retry_after or back_off(refusals)
                log.warning("%s: asked again in %.1f s: %s", node.name, pause.total_seconds(), error)
                await asyncio.sleep(pause.total_seconds())

    # --- one node -----------------------------------------------------------------------------------------------------

    async def _live(self, lease: Lease) -> None:
        node = await self._start(lease)
        if node is not None:
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
        readiness = self._stand.spawn(self._await_ready(lease, node), f"readiness of {node.name}")
        try:
            exit_code = await self.backend.wait(node)
        finally:
            readiness.cancel()
        del self._nodes[lease.lease_id]
        self._learn(lease, life.died, exit_code)

    async def _await_ready(self, lease: Lease, node: Node) -> None:
        try:
            async with asyncio.timeout(self._settings.ready_timeout.total_seconds()):
                if await self.backend.ready(node):
                    known = self.holdings.of_id(lease.lease_id)
                    if known and not known.was_ready:
                        took = self._clock.wall(self._clock.now() - lease.requested_at)
                        log.info("%s is ready %.1f s after its lease was taken", node.name, took.total_seconds())
                    self._learn(lease, life.ready, self.backend.name)
        except TimeoutError:
            self._learn(lease, life.late)

    def _learn(self, lease: Lease, decide: Callable[..., Decision], *known: object) -> None:
        """A node did something: decide and speak in the trace of its window."""
        with span(f"node.{decide.__name__}", parent=_trace(lease), attributes={"windfall.node": lease.node}):
            self._keep(decide(self.holdings, lease.lease_id, *known, self._clock.now(), self._policy))

    # --- begin and end ------------------------------------------------------------------------------------------------

    async def resume(self) -> None:
        """Take over what runs, end what belongs to no lease, order again what never came to be.

        Raises:
            Mistake: the backend's records cannot be read.
            Transient: the backend cannot say now what runs.
        """
        running = {node.lease_id: node for node in await self.backend.adopt()}
        for lease in self.holdings.live:
            node = running.pop(lease.lease_id, None)
            if node is None:
                self._learn(lease, life.absent)
            else:
                self._stand.spawn(self._watch(lease, node), f"watch of {node.name}")
        for node in running.values():
            log.warning("%s runs under no lease: killed", node.name)
            await self.backend.kill(node)

    async def keep_time(self) -> None:
        """Decide whatever falls due, when it does."""
        while True:
            change = asyncio.ensure_future(self.change.wait())
            due = life.next_deadline(self.holdings)
            alarm = [] if due is None else [asyncio.ensure_future(self._clock.sleep_until(due))]
            try:
                await asyncio.wait([change, *alarm], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in (change, *alarm):
                    waiting.cancel()
            self._keep(life.tick(self.holdings, self._clock.now(), self._policy))

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
                for node in list(self._nodes.values()):
                    await self.backend.kill(node)
                    await self.backend.wait(node)
            await self.backend.close()


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
    await provisioner.resume()
    stand.spawn(provisioner.keep_time(), "lease deadlines")
    try:
        yield provisioner
    finally:
        await provisioner.end()


def _trace(lease: Lease) -> dict[str, str]:
    return {"traceparent": lease.traceparent} if lease.traceparent else {}
