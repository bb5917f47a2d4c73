"""Eight sites on virtual time, some of them dishonest: the services' own code from the engine to the merge.

The model is small and the data made up (``points``); engines, trainers, codecs, gRPC servicers, firewall, merge and
canary gate are the product's own, and so is the site's policy with its noise.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor

from tests.bench.attacks import Attack
from tests.bench.points import CLASSES, TARGET, Points, lay_down, points, triggered
from tests.fleet import Fleet, standing
from tests.wiring import MemoryWiring
from windfall.contracts.events import ContributionRefused, RoundCompleted, RoundDiscarded
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.evaluation import held_out_loss
from windfall.federation_coordinator.firewall import Limits
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout, flatten, layout_of_model, restore
from windfall.lowcomm.rule import Rule
from windfall.lowcomm.wire import HEADER_BYTES
from windfall.profiler.links import Cadence
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.virtual import run_virtual
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine, Progress
from windfall.site_trainer.guarded import GuardedLink
from windfall.site_trainer.policy import SitePolicy
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.task import Evaluation

SITES: Final = tuple(f"site-{letter}" for letter in "abcdefgh")
CANARY: Final = 0.1
LASTS: Final = timedelta(hours=4)
_MIDNIGHT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_TASK: Final = Points()


@dataclass(frozen=True)
class Ending:
    """What a federation came to.

    Attributes:
        loss: of the last model on clean held-out data, in nats.
        accuracy: on the same.
        backdoor: share of the other classes' points that the trigger turns into the target.
        rounds: that were completed.
        refused: contributions, by reason, without those of discarded rounds.
        discarded: rounds, by the canary gate.
    """

    loss: float
    accuracy: float
    backdoor: float
    rounds: int
    refused: dict[str, int]
    discarded: int


class Honest(TorchEngine):
    """Others hear in the outer log what it says."""

    said: dict[str, Tensor]
    site: str

    def pseudo_gradient(self) -> Tensor:
        gradient = super().pseudo_gradient()
        self.said[self.site] = gradient
        return gradient


class Dishonest(TorchEngine):
    """Trains, and says something else."""

    said: dict[str, Tensor]
    first: dict[str, Tensor]
    site: str
    attack: Attack

    @property
    def progress(self) -> Progress:
        true = super().progress
        return replace(true, tokens=true.tokens * self.attack.claims)

    def pseudo_gradient(self) -> Tensor:
        gradient = super().pseudo_gradient()
        if self.attack.again:
            return self.first.setdefault(self.site, gradient).clone()
        return gradient if self.attack.lie is None else self.attack.lie(gradient, self.said)


class Lying(GuardedLink):
    """Tells of what it sends what is not so, or sends what are no numbers."""

    attack: Attack

    async def push(self, manifest: pb.Manifest, data: memoryview) -> bool:
        if self.attack.loss is not None:
            manifest.loss = self.attack.loss
        if not self.attack.nan:
            return await super().push(manifest, data)
        spoilt = bytearray(data)
        spoilt[HEADER_BYTES : HEADER_BYTES + 4] = b"\xff" * 4
        manifest.sha256 = hashlib.sha256(spoilt).hexdigest()
        return await super().push(manifest, memoryview(bytes(spoilt)))


@dataclass
class Attacked(Fleet):
    """See the module."""

    attack: Attack = field(default_factory=lambda: Attack(""))
    said: dict[str, Tensor] = field(default_factory=dict)
    first: dict[str, Tensor] = field(default_factory=dict)

    @property
    def liars(self) -> tuple[str, ...]:
        return SITES[-self.attack.liars :]

    @property
    def layout(self) -> Layout:
        return layout_of_model(_TASK.model(0))

    def _first(self) -> Tensor:
        return flatten(_TASK.model(self.seed).state_dict(), self.layout)

    def _evaluation(self, store: ModelStore) -> Callable[[int], Evaluation | None]:
        return held_out_loss(lambda: _TASK, self.layout, store, self.folder / "held-out")

    def _engine(self, site: str, membership: Membership) -> Engine:
        kind = Dishonest if site in self.liars else Honest
        made = kind(_TASK, membership.layout, self.folder / f"data-{site}", seed=self.seed)
        engine = cast(Any, made)
        engine.said, engine.first, engine.site, engine.attack = self.said, self.first, site, self.attack
        return made

    def _link(self, site: str, stand: Stand) -> GuardedLink:
        link = super()._link(site, stand)
        if site in self.liars:
            link.__class__ = Lying
            cast(Any, link).attack = self.attack
        return link


def after_hours(
    folder: Path,
    attack: Attack,
    rule: Rule,
    seed: int,
    *,
    canary: float | None = CANARY,
    policy: SitePolicy | None = None,
    limits: Limits = Limits(),
    lasts: timedelta = LASTS,
) -> Ending:
    """Let a federation train under an attack; what it came to.

    Args:
        canary: of the gate; none leaves it open.
        policy: of every site.
        limits: of the coordinator's suspicion.
    """
    trace = folder / "trace.csv"
    rows = [f"{_MIDNIGHT + timedelta(minutes=5 * each)},{','.join('1' * len(SITES))}" for each in range(144)]
    trace.write_text("\n".join([f"point_time,{','.join(SITES)}", *rows]) + "\n")
    for place, site in enumerate(SITES):
        poison = attack.poison if site in SITES[-attack.liars :] else ""
        lay_down(folder / f"data-{site}", 100 * seed + place, place % CLASSES, poison, attack.share)
    lay_down(folder / "held-out", 7, poison="labels" if attack.evaluation else "", share=attack.evaluation)
    clean = lay_down(folder / "clean", 7)

    async def live() -> Ending:
        fleet = Attacked(
            folder,
            trace,
            SITES,
            LoopClock(_MIDNIGHT),
            MemoryWiring(),
            seed=seed,
            step=timedelta(minutes=2),
            heartbeat=timedelta(minutes=2),
            links=Cadence(echo=timedelta(minutes=15)),
            horizon=timedelta(hours=1),
            rule=rule,
            canary=canary,
            policies={} if policy is None else dict.fromkeys(SITES, policy),
            attack=attack,
            limits=limits,
        )
        async with standing(fleet):
            await fleet.clock.sleep(lasts)
            events = await fleet.events()
            assert fleet.coordinator is not None
            base = fleet.coordinator.store.load(fleet.coordinator.state.round)
        refused: dict[str, int] = {}
        for one in events:
            if isinstance(one, ContributionRefused) and one.reason != "canary":
                refused[one.reason] = refused.get(one.reason, 0) + 1
        return Ending(
            *_judged(base, fleet.layout, clean),
            sum(isinstance(one, RoundCompleted) for one in events),
            refused,
            sum(isinstance(one, RoundDiscarded) for one in events),
        )

    return run_virtual(live())


def _judged(base: Tensor, layout: Layout, clean: Path) -> tuple[float, float, float]:
    model = _TASK.model(0)
    model.load_state_dict(restore(base, layout))
    found = _TASK.evaluate(model, clean)
    inputs, targets = points({"seed": 8, "lean": None, "poison": "", "share": 0.0}, 1024)
    with torch.no_grad():
        turned = model(triggered(inputs[targets != TARGET])).argmax(1) == TARGET
    return found.loss, found.value, float(turned.float().mean())
