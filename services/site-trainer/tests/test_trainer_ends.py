"""What cannot go on leaves, and says why."""

from collections.abc import AsyncIterator
from datetime import timedelta
from math import nan
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.trainer_field import MINUTE, Field, Make, play
from windfall.contracts.events import SiteDrained, SiteLeft
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.app import Coordinator
from windfall.federation_coordinator.federation import Phase
from windfall.federation_coordinator.training import TrainingService
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine, Skip, StepReport
from windfall.site_trainer.toy import ToyEngine


class Broken(ToyEngine):
    """Cannot do what it is named after."""

    def step(self, micro_batch: int) -> StepReport:
        raise MemoryError


class Diverging(ToyEngine):
    def step(self, micro_batch: int) -> StepReport:
        return StepReport(0, nan, Skip.NOT_FINITE)


def no_engine(membership: Membership) -> Engine:
    raise Mistake("there is no *.txt file in the data folder", "Put text to train on there")


@pytest.mark.parametrize(
    ("make", "cause", "code"),
    [
        (lambda membership: Broken(membership.layout.elements, seed=1), "memory", ExitCode.RESOURCE),
        (lambda membership: Diverging(membership.layout.elements, seed=1), "diverges", ExitCode.FAILED),
        (no_engine, "no [*].txt", ExitCode.USAGE),
    ],
    ids=["no memory", "a model that diverges", "no data"],
)
def test_a_trainer_that_cannot_go_on_leaves_and_does_not_say_drained(
    make: Make, cause: str, code: ExitCode, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=make)
        await node.ended()
        assert node.stand.mistake is not None
        assert node.stand.mistake.exit_code is code
        with pytest.raises(Mistake, match=cause):
            raise node.stand.mistake
        assert node.stand.stopping.is_set()
        await field.sleep(timedelta(seconds=1))
        # Nobody has to find out by its silence, and the provisioner sees a process that died.
        assert [left.reason for left in field.events(SiteLeft)] == ["drained"]
        assert field.coordinator.state.phase is Phase.DARK
        assert not field.events(SiteDrained)

    play(story, Field(tmp_path))


def test_a_site_that_is_not_of_the_federation_is_a_mistake(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start("site-b")
        await node.ended()
        assert node.stand.mistake is not None
        assert node.stand.mistake.exit_code is ExitCode.SERVER
        assert "site-b" in node.stand.mistake.cause

    class OnlyA(TrainingService):
        def __init__(
            self, coordinator: Coordinator, sites: tuple[str, ...], heartbeat: timedelta, overlap: bool
        ) -> None:
            super().__init__(coordinator, ("site-a",), heartbeat)

    play(story, Field(tmp_path, service=OnlyA))


def test_a_membership_that_never_holds_is_not_asked_for_in_a_hot_loop(tmp_path: Path) -> None:
    class Deaf(TrainingService):
        async def Heartbeat(self, beats: AsyncIterator[pb.Beat], context: Any) -> AsyncIterator[pb.Directive]:  # noqa: N802
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no heartbeat here")
            yield pb.Directive()

    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(10 * MINUTE)
        assert 10 < node.link.calls["Join"] < 130
        assert node.link.calls["Heartbeat"] == node.link.calls["Join"]
        await field.drain(node)
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, service=Deaf))


def test_without_room_for_a_checkpoint_it_trains_on_and_delivers(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(checkpoint=tmp_path / "no such folder" / "checkpoint")
        await field.sleep(5 * MINUTE)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path))
