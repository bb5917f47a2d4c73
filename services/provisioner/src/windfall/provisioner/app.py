"""Handlers and the clock of one site: hear, decide, journal, then act."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from windfall.contracts.commands import AcquireNode, CordonSite, ReleaseNode, UncordonSite
from windfall.contracts.events import SiteDrained, WindowClosed, WindowExpected, WindowOpened, WindowWithdrawn
from windfall.contracts.message import Message
from windfall.provisioner import claims
from windfall.provisioner.backend import Backend
from windfall.provisioner.deadlines import next_deadline, tick
from windfall.provisioner.hindrances import hindrances
from windfall.provisioner.holdings import USUAL, Decision, Holdings, Lease, LeaseState, Need
from windfall.provisioner.nodes import Nodes, trace_of
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit import metrics
from windfall.servicekit.errors import Transient
from windfall.servicekit.instruments import LEASES, NODES_FAILED
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
        self._change = asyncio.Event()
        self._stopping = False
        self.site = settings.site
        self.backend = backend
        self.holdings = stand.journal.load(_HOLDINGS, Holdings) or Holdings(site=settings.site)
        self._nodes = Nodes(backend, stand, environment, self._learn, lambda: self.holdings)
        metrics.observe(LEASES, self._counted)
        # A counter that is first seen at 1 has not grown, for whoever looks at its rate.
        metrics.record(NODES_FAILED, 0, {"windfall.site": self.site})

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
        decision = hindrances(self.holdings, decision, self._clock.now())
        state = {} if decision.holdings == self.holdings else {_HOLDINGS: decision.holdings}
        self._stand.journal.commit(state=state, say=decision.events, heard=cause.id if cause else None)
        self._stand.outbox.wake()
        self.holdings = decision.holdings
        change, self._change = self._change, asyncio.Event()
        change.set()
        for action in decision.actions:
            self._nodes.act(action)

    def _learn(self, lease: Lease, decide: Callable[..., Decision], *known: object) -> None:
        """A node did something: decide and speak in the trace of its window."""
        with span(f"node.{decide.__name__}", parent=trace_of(lease), attributes={"windfall.node": lease.node}):
            self._keep(decide(self.holdings, lease.lease_id, *known, self._clock.now(), self._policy))

    # --- begin and end ------------------------------------------------------------------------------------------------

    async def resume(self) -> None:
        """See :meth:`Nodes.resume`; and a window that the last provisioner left without its node gets one again."""
        await self._nodes.resume()
        self._keep(claims.come(self.holdings, self._clock.now(), self._policy))

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
                self._keep(claims.leave(self.holdings, self._clock.now(), self._policy))
                while self.holdings.live:
                    await self.change.wait()
        finally:
            if self._settings.on_stop == "release":
                await self._nodes.end_all()
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
    stand.bus.hears(CordonSite, settings.site, provisioner.cordon)
    stand.bus.hears(UncordonSite, settings.site, provisioner.uncordon)
    stand.spawn(provisioner.resume(), "adoption")
    stand.spawn(provisioner.keep_time(), "lease deadlines")
    try:
        yield provisioner
    finally:
        await provisioner.end()
