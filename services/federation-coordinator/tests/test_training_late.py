"""What comes late, a site that is alone, and models that are judged and gone back from."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import grpc
import torch

from tests.training_field import LAYOUT, LONG, Place, flat, message, refused, standing, stepped
from windfall.contracts.commands import PauseFederation, ResumeFederation, RollBack
from windfall.contracts.envelope import seal
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationPaused,
    FederationResumed,
    RoundCompleted,
    RoundDiscarded,
    RoundEvaluated,
    RoundStarted,
)
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.offered import offered
from windfall.federation_coordinator.wire import Frames
from windfall.lowcomm.layout import digest
from windfall.lowcomm.outerlog import read, replay
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.frames import unframed
from windfall.tasks.task import Evaluation


async def test_what_comes_after_its_round_was_merged_counts_in_the_next_for_less(kind: str, tmp_path: Path) -> None:
    # Long enough that on a busy machine, too, both sites get to speak in the second one.
    policy = replace(LONG, steps=1, straggler_grace=timedelta(0), length=timedelta(seconds=5))
    async with standing(Place(kind, tmp_path, policy, rule=Rule.parse("topk-ef"))) as place:
        one, other = await place.join("site-a"), await place.join("site-b")
        await place.said(RoundStarted, 1)
        base, late = place.coordinator.state.base_digest, message(2, 0, 100, place.rule)
        await one.push(1)
        await place.said(RoundCompleted, 1)
        # The round went on without it; its base is not the newest one any more.
        await other.send(other.manifest(late, base_digest=base, key=other.key(0)), late)
        assert (await other.progress(0)).accepted
        again = await other.send(other.manifest(late, base_digest=base, key=other.key(0)), late)
        assert again.duplicate
        await one.push(3)
        await other.push(4)
        first, second = await place.said(RoundCompleted, 2)
        accepted = await place.said(ContributionAccepted, 4)
        assert [(each.site, each.round, each.rounds_late) for each in accepted] == [
            ("site-a", 0, 0),
            ("site-b", 1, 1),
            ("site-a", 1, 0),
            ("site-b", 1, 0),
        ]
        assert (first.contributors, second.contributors) == (("site-a",), ("site-a", "site-b", "site-b"))
        # A replica that follows the log takes the same step: with what was late at e^(-1/2) of its tokens.
        held = flat(0)
        for number, before, after in (
            (0, first.base_digest, first.model_digest),
            (1, first.model_digest, second.model_digest),
        ):
            stretches = place.store.log(before, after, "")
            assert stretches is not None
            log = b"".join(unframed(1, frame) or b"" for frame, _ in Frames().of(stretches, 0))
            _, held = replay(place.rule, LAYOUT.split, place.rule.init(LAYOUT.split), held, read(log, LAYOUT.split))
            assert digest(held) == after, number


async def test_later_than_it_may_be_it_is_refused_with_its_reason(kind: str, tmp_path: Path) -> None:
    policy = replace(LONG, length=timedelta(seconds=1), straggler_grace=timedelta(0), rounds_late=0)
    async with standing(Place(kind, tmp_path, policy)) as place:
        one, other = await place.join("site-a"), await place.join("site-b")
        base, late = place.coordinator.state.base_digest, message(2)
        await one.push(1)
        await place.said(RoundCompleted, 1)
        code, detail = await refused(other.send(other.manifest(late, base_digest=base, key=other.key(0)), late))
        assert (code, detail[:6]) == (grpc.StatusCode.FAILED_PRECONDITION, "round:")
        (event,) = await place.said(ContributionRefused, 1)
        assert (event.site, event.reason) == ("site-b", "round")


async def test_a_site_that_is_alone_says_all_and_follows_itself_without_a_download(kind: str, tmp_path: Path) -> None:
    policy = replace(LONG, alone=timedelta(hours=2), alone_codec="int8-block", steps=7)
    rule = Rule.parse("topk-ef")
    async with standing(Place(kind, tmp_path, policy, rule=rule)) as place:
        site = await place.join("site-a")
        async with site.listening():
            opened = await site.opened()
            assert (opened.codec, opened.local_steps, opened.sites) == ("int8-block", 0, 1)
            state, split = rule.codec.init(LAYOUT.split.trained), LAYOUT.split
            _, data = rule.encode(state, flat(1), split, base=0, tokens=100, steps=1, codec="int8-block")
            await site.send(site.manifest(data, codec="int8-block"), data)
            await site.opened()
        (completed,) = await place.said(RoundCompleted, 1)
        after = place.store.load(1)
        # All of it arrived, to a part in 127 of the largest value of a block; topk-ef would have said one in 64.
        assert torch.allclose(after, flat(0) - flat(1), atol=flat(1).abs().max().item() / 127)
        own = hashlib.sha256(data).hexdigest()
        head, log = await site.download(
            completed.model_digest, held_digest=completed.base_digest, held_contribution=own, follow=True
        )
        assert head is not None and head.log
        assert len(log) < 200
        _, held = replay(rule, split, rule.init(split), flat(0), read(log, split), {own: data})
        assert digest(held) == completed.model_digest


async def test_a_model_that_does_worse_is_discarded_and_the_round_starts_from_the_base_before(
    kind: str, tmp_path: Path
) -> None:
    losses = {0: 3.0, 1: 2.0, 2: 9.0, 3: 1.9}

    def evaluate(number: int) -> Evaluation | None:
        return Evaluation(losses[min(number, 3)], "accuracy", 0.5, 100)

    policy = replace(LONG, steps=1, canary=0.1)
    async with standing(Place(kind, tmp_path, policy, evaluate=evaluate)) as place:
        site = await place.join("site-a")
        await place.said(RoundEvaluated, 1)
        async with site.listening():
            await site.opened()
            await site.push(1)
            good = await site.opened()
            await place.said(RoundEvaluated, 2)
            await site.push(2)
            again = await site.opened()
            assert (again.round, again.base_digest) == (2, good.base_digest)
            assert await site.pull(again.base_digest)
            losses[3] = 1.9
            await site.push(3)
            await site.opened()
        (gone,) = await place.said(RoundDiscarded, 1)
        (refusal,) = await place.said(ContributionRefused, 1)
        assert (gone.round, gone.base_digest, gone.contributors) == (1, good.base_digest, ("site-a",))
        assert "9.0000 after 2.0000" in gone.because
        assert (refusal.round, refusal.reason) == (1, "canary")
        completed = await place.said(RoundCompleted, 2)
        assert [(each.round, each.base_digest) for each in completed] == [(0, digest(flat(0))), (2, good.base_digest)]
        assert completed[-1].tokens_total == 200
    # What the journal and the disk hold is one story, also for who starts again.
    await place.rise()
    assert place.coordinator.state.round == 3
    assert place.store.digest(3) == completed[-1].model_digest
    await place.fall()


async def test_asked_to_it_goes_back_to_the_best_model_under_a_new_number(kind: str, tmp_path: Path) -> None:
    def evaluate(number: int) -> Evaluation | None:
        return Evaluation(1.0 if number == 1 else 2.0 + number, "accuracy", 0.5, 100)

    async with standing(Place(kind, tmp_path, replace(LONG, steps=1), evaluate=evaluate)) as place:
        site = await place.join("site-a")
        async with site.listening():
            await place.said(RoundEvaluated, 1)
            await site.opened()
            await site.push(1)
            best = await site.opened()
            await place.said(RoundEvaluated, 2)
            for number in (2, 3):
                await site.push(number)
                await site.opened()
                await place.said(RoundEvaluated, number + 1)
            order = RollBack(id=uuid4(), at=SystemClock().now(), federation="demo", reason="it got worse")
            await place.stand.bus.publish(seal(order, "/test"))
            back = await site.opened()
            assert (back.round, back.base_digest) == (4, best.base_digest)
            assert hashlib.sha256(await site.pull(back.base_digest)).hexdigest() == best.base_digest
            await site.push(4)
            await site.opened()
        evaluated = await place.said(RoundEvaluated, 5)
        assert [each.round for each in evaluated if each.best] == [0, 1]
        kept = offered(place.coordinator.state, place.coordinator.kept)
        assert [(one.starts, one.newest, one.best, one.tokens_total) for one in kept] == [
            (5, True, False, 400),
            (4, False, True, 100),
        ]
        assert all(one.made_at is not None for one in kept) and kept[1].loss_nats is not None
        (gone,) = await place.said(RoundDiscarded, 1)
        assert (gone.round, gone.base_digest) == (3, best.base_digest)


async def test_paused_it_keeps_what_was_trained_and_goes_on_from_there_also_after_a_restart(
    kind: str, tmp_path: Path
) -> None:
    place = Place(kind, tmp_path, LONG)
    async with standing(place):
        site = await place.join("site-a")
        async with site.listening():
            await site.opened()
            order = PauseFederation(id=uuid4(), at=SystemClock().now(), federation="demo", reason="new disks")
            await place.stand.bus.publish(seal(order, "/test"))
            word = await site.word()
            assert isinstance(word, pb.Directive) and word.HasField("finish_round")
            await site.push(1)
            (paused,) = await place.said(FederationPaused, 1)
            assert (paused.round, paused.base_digest) == (1, digest(stepped([(flat(1), 100)])))
            assert paused.because == "new disks"
    await place.rise()
    try:
        other = await place.join("site-b")
        assert len(await place.said(RoundStarted)) == 1
        # The same word twice is one word.
        for _ in range(2):
            order_ = ResumeFederation(id=UUID(int=9), at=SystemClock().now(), federation="demo")
            await place.stand.bus.publish(seal(order_, "/test"))
        async with other.listening():
            opened = await other.opened()
        assert (opened.round, opened.base_digest) == (1, paused.base_digest)
        assert hashlib.sha256(await other.pull(opened.base_digest)).hexdigest() == paused.base_digest
        assert [one.round for one in await place.said(FederationResumed, 1)] == [1]
    finally:
        await place.fall()
