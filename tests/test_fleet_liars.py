"""One site of four lies: what the merges and the update firewall make of it, in a whole fleet on virtual time."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import torch
from torch import Tensor

from tests import invariants
from tests.fleet import FEDERATION, LAYOUT, Fleet, Watched, standing
from tests.wiring import MemoryWiring
from windfall.contracts.commands import ReadmitSite
from windfall.contracts.envelope import seal
from windfall.contracts.events import ContributionAccepted, ContributionRefused, RoundCompleted, SiteLeft
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.testing.virtual import run_virtual
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.toy import CENTRE

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c", "site-d")
LIAR = "site-d"
STEP = timedelta(seconds=120)
Lie = Callable[[Tensor], Tensor]


def always_clean(folder: Path) -> Path:
    trace = folder / "trace.csv"
    rows = [f"{MIDNIGHT + timedelta(minutes=5 * number)},{','.join('1' * len(SITES))}" for number in range(289)]
    trace.write_text("\n".join([f"point_time,{','.join(SITES)}", *rows]) + "\n")
    return trace


class Lying(Watched):
    """Trains, and says something else."""

    lie: Lie

    def pseudo_gradient(self) -> Tensor:
        return self.lie(super().pseudo_gradient())


@dataclass
class Infiltrated(Fleet):
    """A fleet with a liar."""

    lie: Lie = torch.neg

    def _engine(self, site: str, membership: Membership) -> Engine:
        if site != LIAR:
            return super()._engine(site, membership)
        engine = Lying(self.seed * 1000 + self.sites.index(site), self.bases.setdefault(site, []).append)
        engine.lie = self.lie
        return engine


def model(fleet: Fleet) -> Tensor:
    assert fleet.coordinator is not None
    return fleet.coordinator.store.load(fleet.coordinator.state.round)


def after_hours(folder: Path, codec: str, merge: str, lie: Lie, clip: bool = False) -> float:
    """How far from the centre, in root mean square, the model is after two hours; 1 is where it began."""

    async def live() -> float:
        rule = Rule.parse(codec, "average", clip=clip, merge=merge)
        fleet = Infiltrated(
            folder,
            always_clean(folder),
            SITES,
            LoopClock(MIDNIGHT),
            MemoryWiring(),
            seed=5,
            step=STEP,
            rule=rule,
            lie=lie,
        )
        async with standing(fleet):
            await fleet.clock.sleep(timedelta(hours=2))
            events = await fleet.events()
            invariants.check_rounds(events)
            # The liar takes its share: replicas that follow the log are the same, its own too.
            invariants.check_replicas(events, fleet.bases)
            liars = [one for one in events if isinstance(one, ContributionAccepted) and one.site == LIAR]
            assert len(liars) >= 4
            return float((model(fleet)[: LAYOUT.split.trained] - CENTRE).square().mean().sqrt())

    return run_virtual(live())


LIES: dict[str, Lie] = {"flipped": torch.neg, "flipped and scaled": lambda honest: honest * -5}


@pytest.mark.parametrize(
    ("merge", "lie"),
    [
        ("median", "flipped and scaled"),
        ("trimmed-mean:share=0.25", "flipped"),
        ("krum:byzantine=1", "flipped"),
        ("multi-krum:byzantine=1", "flipped and scaled"),
    ],
)
def test_a_robust_merge_keeps_the_model_near_the_honest_one(merge: str, lie: str, tmp_path: Path) -> None:
    # Three honest targets lie 0.25 around the centre: their mean 0.14, one alone 0.25 away from it.
    assert after_hours(tmp_path, "int8-block", merge, LIES[lie]) < 0.27


def test_a_mean_follows_the_liar(tmp_path: Path) -> None:
    assert after_hours(tmp_path, "int8-block", "mean", LIES["flipped and scaled"]) > 3


def test_whoever_sends_what_is_too_long_is_refused_and_shut_out_until_it_is_readmitted(tmp_path: Path) -> None:
    lying_from = MIDNIGHT + timedelta(hours=1, minutes=10)
    clock = LoopClock(MIDNIGHT)

    def lie(honest: Tensor) -> Tensor:
        return honest * 1e4 if clock.now() > lying_from else honest

    async def join(fleet: Fleet) -> pb.JoinReply:
        request = pb.JoinRequest(federation=FEDERATION, site=LIAR, window_id=str(uuid4()), lease_token=1000, protocol=1)
        reply: pb.JoinReply = await TrainingStub(fleet.wiring.channel(LIAR)).Join(request)
        return reply

    async def live() -> None:
        rule = Rule.parse("int8-block", "average")
        fleet = Infiltrated(
            tmp_path, always_clean(tmp_path), SITES, clock, MemoryWiring(), seed=5, step=STEP, rule=rule, lie=lie
        )
        async with standing(fleet):
            await clock.sleep(timedelta(hours=3, minutes=10))
            events = await fleet.events()
            refused = [one for one in events if isinstance(one, ContributionRefused)]
            assert {(one.site, one.reason) for one in refused} == {(LIAR, "norm")}
            assert len(refused) == 5
            (left,) = (one for one in events if isinstance(one, SiteLeft) and one.reason == "shut-out")
            assert left.site == LIAR
            invariants.check_rounds(events)
            # The others went on, and nothing of it is in the model.
            last = [one for one in events if isinstance(one, RoundCompleted)][-1]
            assert set(last.contributors) == set(SITES) - {LIAR}
            assert float((model(fleet)[: LAYOUT.split.trained] - CENTRE).square().mean().sqrt()) < 0.3

            # A restart forgets nothing; an operator may.
            await fleet.kill_coordinator()
            await fleet.start_coordinator()
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await join(fleet)
            assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "its contributions were refused for norm" in (denied.value.details() or "")
            assert fleet.coordinator is not None
            command = ReadmitSite(id=uuid4(), at=clock.now(), federation=FEDERATION, member=LIAR)
            await fleet.coordinator.stand.bus.publish(seal(command, "/test"))
            await clock.sleep(timedelta(minutes=1))
            assert (await join(fleet)).attempt > left.attempt

    run_virtual(live())
