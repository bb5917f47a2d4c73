"""Two sites with copies of one text train it over real gRPC, every row once per epoch; one is killed amid a block."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import numpy as np
from torch import Tensor

from tests import invariants
from windfall.contracts.envelope import unseal
from windfall.contracts.events import ContributionAccepted, ContributionRefused, EpochCompleted
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams, site_streams
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.federation import Policy
from windfall.federation_coordinator.row_leases import RowLeases, opened
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import flatten, layout_of_model
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.rpc import connect, serve
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.site_trainer.app import Trainer
from windfall.site_trainer.coordinator import CoordinatorLink, Membership
from windfall.site_trainer.engine import Engine, StepReport
from windfall.site_trainer.terms import Terms
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.ranges import Ranges, size
from windfall.tasks.registry import load_task
from windfall.tasks.rows import Shuffle, row_loader

T = TypeVar("T")

SITES = ("site-a", "site-b")
SETTINGS = json.dumps({"width": 16, "layers": 1, "heads": 2, "context": 8, "learning_rate": 0.003})
TASK = load_task("gpt-neox", SETTINGS)
ROWS, SEED = 25, 3
TEXT = bytes(range(202))
"""25 windows of eight bytes, and what is left over."""
STEPS, MICRO_BATCH, BLOCK = 4, 2, 5


class Recorded(TorchEngine):
    """Tells the rows of every step."""

    trained: list[Ranges]
    hold: "Hold"

    def step_on(self, rows: Ranges) -> StepReport:
        self.trained.append(rows)
        return super().step_on(rows)


@dataclass
class Hold:
    """Stops a site amid a round, once it has saved work on its disk: there it is killed."""

    armed: bool = False
    saved: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Fleet:
    folder: Path
    trained: dict[str, list[Ranges]] = field(default_factory=lambda: {site: [] for site in SITES})
    engines: dict[str, Recorded] = field(default_factory=dict)
    stands: list[Stand] = field(default_factory=list)
    journals: dict[str, Journal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.domains = {name: MemoryDomain(name) for name in (HUB, *SITES)}
        for site in SITES:
            self.domains[HUB].join(self.domains[site])
            (self.folder / site).mkdir()
            (self.folder / site / "text.txt").write_bytes(TEXT)

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[None]:
        model = TASK.model(SEED)
        layout = layout_of_model(model)
        store = ModelStore(self.folder / "models", layout, Rule.parse("bf16"))
        first: Tensor = flatten(model.state_dict(), layout)
        hub = self._stand("federation-coordinator", HUB)
        coordinator = Coordinator(
            hub,
            "demo",
            Model("gpt-neox", SETTINGS, layout),
            Policy(length=None, steps=STEPS, straggler_grace=timedelta(minutes=5), micro_batch=MICRO_BATCH),
            store,
            store.initialise(first),
            timedelta(seconds=20),
            in_place,
            leases=RowLeases(hub.journal, opened(hub.journal, ROWS, SEED), BLOCK),
        )
        coordinator.attend()
        service = TrainingService(coordinator, SITES)
        server = await serve("127.0.0.1:0", [partial(register, service)])
        self.address = f"127.0.0.1:{server.port}"
        await hub.rise()
        try:
            yield
        finally:
            for stand in self.stands:
                await stand.bus.stop()
                await stand.cut()
            coordinator.rest()
            await server.stop(timedelta(0))

    async def start(self, site: str, hold: Hold) -> tuple[Trainer, Stand, CoordinatorLink]:
        stand = self._stand("site-trainer", site)
        link = CoordinatorLink(connect(self.address), "demo", site)
        checkpoint = self.folder / site / "checkpoint"
        terms = Terms(
            site=site,
            federation="demo",
            window_id=UUID(int=1),
            lease_token=1,
            micro_batch=MICRO_BATCH,
            drain_time=timedelta(seconds=1),
            checkpoint_every=timedelta(0),
            checkpoint=checkpoint,
        )

        async def held(work: Callable[..., T], /, *arguments: object) -> T:
            amid = site in self.engines and 0 < self.engines[site].progress.steps < STEPS
            if getattr(work, "__name__", "") == "step_on" and hold.saved and amid:
                hold.reached.set()
                await asyncio.Event().wait()
            result = work(*arguments)
            if checkpoint in arguments and hold.armed:
                hold.saved = self.engines[site].progress.steps > 0
            return result

        trainer = Trainer(stand, terms, link, partial(self._engine, site), held)
        trainer.attend()
        await stand.rise()
        return trainer, stand, link

    def _engine(self, site: str, membership: Membership) -> Engine:
        shared, folder = membership.corpus, self.folder / site
        assert shared is not None
        loader = row_loader(TASK, folder, shared.rows, shared.seed)
        engine = self.engines[site] = Recorded(TASK, membership.layout, folder, seed=1, rows=loader)
        engine.trained = self.trained[site]
        return engine

    def _stand(self, service: str, whom: str) -> Stand:
        journal = self.journals.setdefault(whom, Journal(None, f"/windfall/{service}/{whom}"))
        streams = hub_streams(SITES) if whom == HUB else site_streams(whom)
        bus = MemoryBus(self.domains[whom], service, streams)
        stand = Stand(service, whom, SystemClock(), journal, bus, Outbox(journal, bus))
        self.stands.append(stand)
        return stand

    def events(self, kind: type[T]) -> list[T]:
        letters = (unseal(letter) for letter in self.domains[HUB].letters(EVENTS_STREAM))
        return [event for event in letters if isinstance(event, kind)]

    async def until(self, kind: type[Message], count: int) -> None:
        """There are so many events of a kind on the hub."""
        while len(self.events(kind)) < count:
            stream = self.domains[HUB].stream(EVENTS_STREAM)
            assert stream is not None
            await stream.arrived.wait()


async def in_place(work: Callable[..., T], /, *arguments: object) -> T:
    return work(*arguments)


async def test_every_row_of_a_text_is_trained_once_per_epoch_though_a_site_is_killed_amid_a_block(
    tmp_path: Path,
) -> None:
    fleet, free, hold = Fleet(tmp_path), Hold(), Hold()
    async with fleet.standing():
        killed, stand, link = await fleet.start("site-a", hold)
        other, _, _ = await fleet.start("site-b", free)
        await fleet.until(EpochCompleted, 1)
        hold.armed = True
        await hold.reached.wait()
        unsent, attempt = fleet.engines["site-a"].progress, killed.session.attempt
        await stand.bus.stop()
        await stand.cut()
        await link.close()

        again, _, _ = await fleet.start("site-a", free)
        await fleet.until(EpochCompleted, 4)
        for trainer in (again, other):
            trainer.stop("enough")
        for trainer in (again, other):
            await trainer.finished.wait()

        events = fleet.events(Message)
        assert invariants.check_rows(events, ROWS, fleet.trained) >= 4
        assert not fleet.events(ContributionRefused)
        accepted = fleet.events(ContributionAccepted)
        assert all(one.tokens == 8 * size(one.rows) for one in accepted), "no row is dropped, in whatever size of step"
        next_of_a = next(one for one in accepted if one.site == "site-a" and one.attempt > (attempt or 0))
        begun = {position for begin, end in unsent.rows for position in range(begin, end)}
        named = {position for begin, end in next_of_a.rows for position in range(begin, end)}
        assert begun & named, "what was on its disk counts"
        assert next_of_a.steps == STEPS

    by_epoch: dict[int, list[int]] = {}
    for one in accepted:
        for begin, end in one.rows:
            for position in range(begin, end):
                order = Shuffle(SEED, position // ROWS, ROWS)
                by_epoch.setdefault(position // ROWS, []).extend(
                    order.at(np.array([position % ROWS], dtype=np.uint64)).tolist()
                )
    for whole in fleet.events(EpochCompleted):
        assert sorted(by_epoch[whole.epoch]) == list(range(ROWS)), "rows, and not only positions"
