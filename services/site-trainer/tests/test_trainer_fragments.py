"""A fragment a round: what the others have learnt goes on from base to base."""

from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import torch
from torch import Tensor

from tests.trainer_field import (
    BY_STEPS,
    INT4,
    MINUTE,
    NOON,
    PLAIN,
    SITES,
    THREE,
    TOKENS,
    TOPK,
    Field,
    Link,
    Node,
    Waits,
    Watched,
    check_the_whole,
    play,
)
from windfall.contracts.events import RoundCompleted, SiteLeft
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.rule import Rule
from windfall.site_trainer.toy import ToyEngine

AVERAGE = Rule.parse("fp32", "average")


@pytest.mark.parametrize("overlap", [False, True], ids=["waits", "overlaps"])
def test_what_other_fragments_have_learnt_goes_on_from_base_to_base_and_is_told_in_its_turn(
    overlap: bool, tmp_path: Path
) -> None:
    """Alone, by plain averaging: each fragment of the base is the local one as it was told last."""
    told: list[Tensor] = []

    class Telling(Watched):
        def tell(self, part: slice | None = None) -> None:
            told.append(self._local.clone())
            super().tell(part)

    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Telling))
        node.link.lag = MINUTE
        await field.until(RoundCompleted, 7)
        assert node.trainer.session.waits is not overlap
        turns, store = field.coordinator.store.fragments, field.coordinator.store
        before, after, part = store.load(6), store.load(7), turns.part(6)
        rest = torch.ones(len(before), dtype=torch.bool)
        rest[part] = False
        assert torch.equal(before[rest], after[rest])
        for number in (4, 5, 6):
            assert torch.allclose(after[turns.part(number)], told[number][turns.part(number)], atol=1e-6)
        # Nothing that was learnt is undone by a base that does not know it yet.
        away = [float((one - node_target(node)).square().mean()) for one in told]
        assert all(later < earlier for earlier, later in pairwise(away))
        await field.drain(node)
        check_the_whole(field)
        field.check_replicas()
        assert field.counted == node.steps * TOKENS or overlap
        assert field.steps * field.step > 0.9 * (field.clock.now() - NOON) or not overlap

    play(story, Field(tmp_path, BY_STEPS, THREE, AVERAGE, overlap=overlap, fragments=3))


def node_target(node: Node) -> Tensor:
    engine = node.trainer._engine
    assert isinstance(engine, ToyEngine)
    return engine._target


@pytest.mark.parametrize("rule", [PLAIN, TOPK, INT4], ids=lambda rule: rule.codec.name)
def test_a_round_moves_as_many_bytes_less_as_there_are_fragments(rule: Rule, tmp_path: Path) -> None:
    layout = Layout((TensorSpec("point", (60 * 4096,)),))

    def moved(count: int) -> tuple[float, float]:
        found: list[RoundCompleted] = []

        async def story(field: Field) -> None:
            nodes = [await field.start(site, checkpoint=None) for site in SITES]
            await field.until(RoundCompleted, 9)
            await field.drain(*nodes)
            field.check_replicas()
            # The first bases are models.
            found.extend(field.events(RoundCompleted)[1:9])

        play(story, Field(tmp_path / str(count), BY_STEPS, layout, rule, fragments=count))
        return sum(one.bytes_up for one in found) / 8, sum(one.bytes_down for one in found) / 8

    (up, down), (up_of_four, down_of_four) = moved(1), moved(4)
    assert 3.5 < up / up_of_four < 4.1
    # What is dense and whole is a model per site, and of a fragment what the other said of it.
    assert 3.2 < down / down_of_four < (8.1 if rule is PLAIN else 4.1)


def test_an_engine_that_cannot_train_on_is_refused_in_one_line(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start("site-a", make=field.watched("site-a", Waits))
        await node.ended()
        mistake = node.stand.mistake
        assert mistake is not None
        assert "cannot synchronise the 3 fragments of a model in turn" in str(mistake)
        assert "WINDFALL_PROCESSES=1" in mistake.cure
        assert {left.reason for left in field.events(SiteLeft)} == {"drained"}

    play(story, Field(tmp_path, BY_STEPS, THREE, TOPK, fragments=3))


def test_a_trainer_that_knows_of_no_fragments_is_not_admitted(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        stub = cast(Any, TrainingStub)(Link(field.server))
        asked = pb.JoinRequest(federation="demo", site="site-a", window_id=str(uuid4()), lease_token=1, protocol=1)
        with pytest.raises(grpc.aio.AioRpcError, match="synchronises 3 fragments in turn, which this trainer cannot"):
            await stub.Join(asked)
        asked.fragments = True
        assert (await stub.Join(asked)).fragments == 3

    play(story, Field(tmp_path, BY_STEPS, THREE, TOPK, fragments=3))
