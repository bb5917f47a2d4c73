"""The end of a round and of the federation."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import torch
from safetensors.torch import load_file

from tests.training_field import LONG, Place, flat, standing, stepped
from windfall.contracts.commands import FinishRound, StopFederation
from windfall.contracts.envelope import seal
from windfall.contracts.events import FederationFinished, RoundEvaluated, SiteJoined
from windfall.contracts.subjects import ORDERS_STREAM
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.federation import Policy
from windfall.lowcomm.layout import digest
from windfall.servicekit.clock import SystemClock
from windfall.tasks.task import Evaluation


async def test_the_end_of_a_round_reaches_an_open_stream_and_the_bus(kind: str, tmp_path: Path) -> None:
    policy = Policy(timedelta(seconds=0.1), None, timedelta(hours=1), None)
    async with standing(Place(kind, tmp_path, policy)) as place:
        site = await place.join("site-a")
        async with site.listening():
            assert (await site.opened()).round == 0
            word = await site.word()
            assert isinstance(word, pb.Directive)
            assert word.finish_round.round == 0
            assert word.WhichOneof("kind") == "finish_round"
        async with site.listening():
            # A stream that opens now hears both words again.
            assert (await site.opened()).round == 0
            again = await site.word()
            assert isinstance(again, pb.Directive)
            assert again.WhichOneof("kind") == "finish_round"
        await place.said(SiteJoined)
        (order,) = place.events(ORDERS_STREAM)
        assert isinstance(order, FinishRound)
        assert (order.site, order.round) == ("site-a", 0)


async def test_told_to_stop_it_finishes_the_round_and_lays_the_model_down(place: Place) -> None:
    site = await place.join("site-a")
    command = StopFederation(id=uuid4(), at=SystemClock().now(), federation="demo")
    async with site.listening():
        await site.opened()
        await place.stand.bus.publish(seal(command, "/test"))
        kinds = []
        for _ in range(2):
            word = await site.word()
            assert isinstance(word, pb.Directive)
            kinds.append(word.WhichOneof("kind"))
            if kinds == ["finish_round"]:
                await site.push(1)
        assert kinds == ["finish_round", "stop"]
    (finished,) = await place.said(FederationFinished, 1)
    assert (finished.rounds, finished.model_digest) == (1, digest(stepped([(flat(1), 1)])))
    final = load_file(place.store.final)
    assert torch.equal(torch.cat([final[name].flatten() for name in ("embed", "bias")]), place.store.load(1))


async def test_every_new_model_is_evaluated_and_a_pruned_one_is_skipped(kind: str, tmp_path: Path) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Queue[int]()

    def evaluate(number: int) -> Evaluation | None:
        loop.call_soon_threadsafe(asked.put_nowait, number)
        return None if number == 1 else Evaluation(3.0 + number, "accuracy", 0.5, 100)

    async with standing(Place(kind, tmp_path, LONG, evaluate=evaluate)) as place:
        site = await place.join("site-a")
        async with site.listening():
            for number in range(3):
                await site.opened()
                assert await asked.get() == number
                await site.push(number)
        evaluated = await place.said(RoundEvaluated, 3)
        assert [(one.round, one.loss_nats) for one in evaluated] == [(0, 3.0), (2, 5.0), (3, 6.0)]
        assert {(one.metric, one.value) for one in evaluated} == {("accuracy", 0.5)}
        assert (asked.get_nowait(), asked.qsize()) == (3, 0)
