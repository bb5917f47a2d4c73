"""A whole fleet in one process: a hub, its sites, and all five services.

The composition roots differ from the real ones in the adapters alone; decisions, handlers, journals and the gRPC
servicers are the product's own. On :class:`tests.wiring.MemoryWiring` and a virtual loop a day passes in seconds and
the same seed gives the same events, bit for bit; on :class:`tests.wiring.RealWiring` the same fleet speaks over real
NATS servers and real gRPC.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import torch
from torch import Tensor

from tests.wiring import Wiring
from windfall.contracts.envelope import TRACEPARENT, Unreadable, unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB, StreamSpec, hub_streams, site_streams
from windfall.energy_watcher import app as watcher
from windfall.energy_watcher.accounted import accounted
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.sources import provider_of
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.federation import Policy
from windfall.federation_coordinator.firewall import Limits
from windfall.federation_coordinator.jurisdiction import Law
from windfall.federation_coordinator.recovery import recover
from windfall.federation_coordinator.row_leases import RowLeases, opened
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import Layout, TensorSpec, digest
from windfall.lowcomm.rule import Rule
from windfall.profiler import app as profiler
from windfall.profiler.fixed import FixedProbe
from windfall.profiler.links import Cadence
from windfall.profiler.probe import Probes
from windfall.profiler.recommendation import Goals
from windfall.provisioner import app as provisioner
from windfall.provisioner.memory import Life, MemoryBackend
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.clock import Clock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span
from windfall.site_trainer.app import Trainer
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine, StepReport
from windfall.site_trainer.guarded import GuardedLink
from windfall.site_trainer.policy import Offer, SitePolicy
from windfall.site_trainer.terms import Terms
from windfall.site_trainer.toy import ToyEngine
from windfall.tasks.ranges import Ranges
from windfall.tasks.task import Evaluation

T = TypeVar("T")

LAYOUT = Layout((TensorSpec("point", (1000,)), TensorSpec("seen", (24,), exact=True)))
OF_THREE = Layout((TensorSpec("point", (2 * 4096 + 1000,)), TensorSpec("seen", (24,), exact=True)))
"""Of a fleet whose rounds synchronise fragments: large enough for three."""
FEDERATION = "story"


class Watched(ToyEngine):
    """Tells the digest of every base that it is given to train from, and the rows of every step."""

    def __init__(
        self,
        seed: int,
        loaded: Callable[[str], None],
        trained: Callable[[Ranges], object] = lambda rows: None,
        elements: int = LAYOUT.elements,
    ) -> None:
        super().__init__(elements, seed)
        self._say_loaded = loaded
        self._say_trained = trained

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        super().load(base, tokens, sites)
        self._say_loaded(digest(base))

    def rebase(self, base: Tensor, counted: bool, tokens: int = 0, sites: int = 1) -> None:
        super().rebase(base, counted, tokens, sites)
        self._say_loaded(digest(base))

    def step_on(self, rows: Ranges) -> StepReport:
        self._say_trained(rows)
        return super().step_on(rows)


@dataclass
class Running:
    """A service that stands in the fleet."""

    stand: Stand
    life: AsyncExitStack

    async def stop(self) -> None:
        await self.life.aclose()
        await self.kill()

    async def kill(self) -> None:
        """End it as ``kill -9`` does: nothing is finished, only the journal is left."""
        await self.stand.bus.stop()
        await self.stand.cut()


@dataclass
class Fleet:
    """See the module. ``trace_file`` has one column per site."""

    folder: Path
    trace_file: Path
    sites: tuple[str, ...]
    clock: Clock
    wiring: Wiring
    seed: int = 0
    round_length: timedelta = timedelta(minutes=20)
    straggler_grace: timedelta = timedelta(minutes=5)
    alone: timedelta | None = None
    overlap: bool = False
    """Sites train on while they synchronise."""
    fragments: int = 1
    """Of the model, that rounds synchronise in turn."""
    step: timedelta = timedelta(seconds=60)
    heartbeat: timedelta = timedelta(seconds=30)
    links: Cadence = field(default_factory=Cadence)
    """How often profilers look at their links."""
    horizon: timedelta = timedelta(hours=24)
    """How far ahead watchers ask for forecasts."""
    payback: float = 20.0
    """Of its start-up's energy, what a window must give to training to be worth opening."""
    rule: Rule = field(default_factory=lambda: Rule.parse("topk-ef"))
    canary: float | None = None
    limits: Limits = field(default_factory=Limits)
    """By which share the held-out loss may get worse with a merge."""
    law: Law = field(default_factory=Law)
    policies: dict[str, SitePolicy] = field(default_factory=dict)
    services: dict[tuple[str, str], Running] = field(default_factory=dict)
    trainers: dict[str, Trainer] = field(default_factory=dict)
    backends: dict[str, MemoryBackend] = field(default_factory=dict)
    coordinator: Coordinator | None = None
    bases: dict[str, list[str]] = field(default_factory=dict)
    """Digests of what each site's engines were given to train from, oldest first."""
    corpus_rows: int | None = None
    """Of a corpus that all sites share; none lets each train its own data."""
    corpus_block: int = 64
    trained: dict[str, list[Ranges]] = field(default_factory=dict)
    """Rows of every step that each site's engines made, oldest first."""
    journals: dict[tuple[str, str], Journal] = field(default_factory=dict)
    make_journal: Callable[[str, str], Journal] = lambda service, whom: Journal(None, f"/windfall/{service}/{whom}")
    """Of a service and whom it serves: what outlives it."""
    clocks: dict[str, Clock] = field(default_factory=dict)
    """Of the hub's machine and the sites', by their domains; where there is none it is the fleet's."""
    provided: Callable[[str, Provider], Provider] = lambda site, provider: provider
    """What a site gets to hear of whoever publishes its signal."""

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        for site in self.sites:
            self.backends[site] = MemoryBackend(partial(self._train, site))

    # --- begin and end ------------------------------------------------------------------------------------------------

    async def rise(self) -> None:
        await self.wiring.rise(self.sites)
        await self.start_coordinator()
        for site in self.sites:
            await self.start_watcher(site)
            await self.start_provisioner(site)
            await self.start_profiler(site)

    async def lie_down(self) -> None:
        for running in reversed(list(self.services.values())):
            await running.stop()
        for backend in self.backends.values():
            for node in await backend.adopt():
                await backend.kill(node)
                await backend.wait(node)
        await self.wiring.lie_down()

    async def events(self, domain: str = HUB) -> list[Message]:
        """What a domain's stream holds, oldest first."""
        found = []
        for letter in await self.wiring.letters(domain):
            with suppress(Unreadable):
                # Nonsense that a test said is in the stream for good; no service heard it.
                found.append(unseal(letter))
        return found

    # --- services -----------------------------------------------------------------------------------------------------

    async def start_coordinator(self) -> None:
        stand = self._stand("federation-coordinator", FEDERATION, HUB, hub_streams(self.sites))
        store = ModelStore(self.folder / "models", self.layout, self.rule, fragments=self.fragments)
        codec = "int8-block" if self.alone else ""
        policy = Policy(
            self.round_length,
            None,
            self.straggler_grace,
            None,
            alone=self.alone,
            alone_codec=codec,
            canary=self.canary,
            once=self.rule.merging.robust,
        )
        recovered = recover(store, stand.journal, self._first, stand.clock.now(), policy)
        coordinator = Coordinator(
            stand,
            FEDERATION,
            Model("toy", "{}", self.layout),
            policy,
            store,
            recovered.digest,
            5 * self.heartbeat,
            self._in_place,
            self._evaluation(store),
            limits=self.limits,
            leases=self._leases(stand.journal),
            again=recovered.again,
        )
        self.coordinator = coordinator
        service = TrainingService(coordinator, self.sites, self.heartbeat, law=self.law, overlap=self.overlap)
        await self.wiring.serve(partial(register, service))
        coordinator.attend()
        life = AsyncExitStack()
        life.push_async_callback(self.wiring.cut_service)
        life.callback(coordinator.rest)
        await self._begin("federation-coordinator", FEDERATION, stand, life)

    def _first(self) -> Tensor:
        """The model of round 0, flat."""
        return torch.zeros(self.layout.elements)

    def _evaluation(self, store: ModelStore) -> Callable[[int], Evaluation | None] | None:
        """How good the model of a round is on held-out data; none where nobody looks."""
        return None

    def _leases(self, journal: Journal) -> RowLeases:
        if self.corpus_rows is None:
            return RowLeases()
        return RowLeases(journal, opened(journal, self.corpus_rows, self.seed), self.corpus_block)

    async def kill_coordinator(self) -> None:
        assert self.coordinator is not None
        self.coordinator.rest()
        await self.wiring.cut_service()
        await self.services.pop(("federation-coordinator", FEDERATION)).kill()

    async def start_watcher(self, site: str) -> None:
        stand = self._stand("energy-watcher", site, site, site_streams(site))
        settings = WatcherSettings(
            site=site,
            state_dir=self.folder / f"watcher@{site}",
            signal="replay",
            trace_file=self.trace_file,
            grace=timedelta(minutes=10),
            ride_through=timedelta(minutes=10),
            closing_lead=timedelta(minutes=20),
            forecast_horizon=self.horizon,
            payback=self.payback,
        )
        means = {name: Means(site, name, {}) for name in settings.sections}
        providers = {name: self.provided(site, provider_of(t, means[name])) for name, t in settings.sections.items()}
        life = AsyncExitStack()
        ledger = await life.enter_async_context(accounted(settings, stand, providers, {}))
        await life.enter_async_context(watcher.watched(settings, stand, providers, ledger))
        await self._begin("energy-watcher", site, stand, life)

    async def start_provisioner(self, site: str) -> None:
        stand = self._stand("provisioner", site, site, site_streams(site))
        settings = ProvisionerSettings(site=site, state_dir=self.folder, grace=timedelta(minutes=15))
        life = AsyncExitStack()
        await life.enter_async_context(provisioner.attend(settings, stand, self.backends[site], {}))
        await self._begin("provisioner", site, stand, life)

    async def start_profiler(self, site: str) -> None:
        stand = self._stand("profiler", site, site, site_streams(site))
        probe = FixedProbe()
        profiler.attend(stand, Probes(probe, probe, probe, probe), Goals(timedelta(minutes=10)), cadence=self.links)
        await self._begin("profiler", site, stand, AsyncExitStack())

    async def _train(self, site: str, life: Life) -> int:
        """A node of the memory backend: one trainer."""
        stand = self._stand("site-trainer", site, site, site_streams(site))
        folder = self.folder / site
        folder.mkdir(exist_ok=True)
        opens_at = life.environment["WINDFALL_WINDOW_OPENS_AT"]
        terms = Terms(
            site=site,
            federation=FEDERATION,
            window_id=UUID(life.environment["WINDFALL_WINDOW_ID"]),
            lease_token=int(life.environment["WINDFALL_LEASE_TOKEN"]),
            micro_batch=8,
            drain_time=self.clock.wall(timedelta(minutes=2)),
            checkpoint_every=self.clock.wall(timedelta(minutes=10)),
            checkpoint=folder / "checkpoint",
            opens_at=datetime.fromisoformat(opens_at) if opens_at else None,
        )
        link = self._link(site, stand)
        trainer = self.trainers[site] = Trainer(stand, terms, link, partial(self._engine, site), self._in_place)
        link.drain = trainer.stop
        with span("train", parent={TRACEPARENT: life.environment.get("TRACEPARENT", "")}):
            trainer.attend()
            drain = asyncio.create_task(_when(life.drain, lambda: trainer.stop("asked to drain")))
        try:
            await stand.rise()
            life.ready.set()
            await trainer.finished.wait()
            await stand.outbox.emptied()
            return 0
        finally:
            drain.cancel()
            await stand.bus.stop()
            await stand.cut()
            await link.close()
            # The next window's trainer may have come before this one went.
            if self.trainers.get(site) is trainer:
                del self.trainers[site]

    def _link(self, site: str, stand: Stand) -> GuardedLink:
        policy = self.policies.get(site, SitePolicy())
        offer = Offer(FEDERATION, "127.0.0.1", loopback=True, tls=False)
        return GuardedLink(self.wiring.channel(site), offer, site, stand, policy, timedelta(minutes=5))

    def _engine(self, site: str, membership: Membership) -> Engine:
        assert membership.layout == self.layout
        bases = self.bases.setdefault(site, [])
        trained = self.trained.setdefault(site, [])
        seed = self.seed * 1000 + self.sites.index(site)
        return Watched(seed, bases.append, trained.append, self.layout.elements)

    @property
    def layout(self) -> Layout:
        return LAYOUT if self.fragments == 1 else OF_THREE

    # --- parts --------------------------------------------------------------------------------------------------------

    def _stand(self, service: str, whom: str, domain: str, streams: tuple[StreamSpec, ...]) -> Stand:
        if (service, whom) not in self.journals:
            self.journals[service, whom] = self.make_journal(service, whom)
        journal = self.journals[service, whom]
        stand: Stand

        def fail(mistake: Mistake) -> None:
            stand.fail(mistake)

        def lost() -> None:
            stand.outbox.recheck()

        bus = self.wiring.bus(domain, service, streams, fail, lost)
        clock = self.clocks.get(domain, self.clock)
        stand = Stand(service, whom, clock, journal, bus, Outbox(journal, bus))
        return stand

    async def _begin(self, service: str, whom: str, stand: Stand, life: AsyncExitStack) -> None:
        await stand.rise()
        self.services[service, whom] = Running(stand, life)

    async def _in_place(self, work: Callable[..., T], /, *arguments: object) -> T:
        """Blocking work on virtual time: an inner step takes as long as a step takes, give or take a tenth."""
        if getattr(work, "__name__", "") in ("step", "step_on"):
            await self.clock.sleep(self.step * self.dice.uniform(0.9, 1.1))
        return work(*arguments)


async def _when(event: asyncio.Event, then: Callable[[], None]) -> None:
    await event.wait()
    then()


@asynccontextmanager
async def standing(fleet: Fleet) -> AsyncIterator[Fleet]:
    """A fleet that has risen."""
    await fleet.rise()
    try:
        yield fleet
    finally:
        await fleet.lie_down()
