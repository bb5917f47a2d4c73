"""The way down: who holds the base gets what the others said, who holds nothing gets the model."""

import asyncio
import hashlib
import threading
from pathlib import Path

import grpc
import pytest

from tests.training_field import LAYOUT, LONG, SECONDS, Place, Site, flat, message, raw, refused, standing
from windfall.contracts.events import RoundCompleted
from windfall.contracts.v1 import training_pb2 as pb
from windfall.lowcomm.layout import digest
from windfall.lowcomm.outerlog import read, replay
from windfall.lowcomm.rule import Rule

FOLLOWED = ["topk-ef", "int4-block", "q2-ef", "dct-momentum"]


async def play(place: Place, *sites: Site, rounds: int) -> list[str]:
    """Let so many rounds pass in which every site says something; the digests of their bases and of the last model."""
    digests = [place.coordinator.state.base_digest]
    for _ in range(rounds):
        number = place.coordinator.state.round
        for index, site in enumerate(sites):
            await site.push(10 * number + index)
        completed = await place.said(RoundCompleted, number + 1)
        digests.append(completed[-1].model_digest)
    return digests


@pytest.mark.parametrize("codec", FOLLOWED)
async def test_who_holds_the_base_gets_what_the_others_said(codec: str, kind: str, tmp_path: Path) -> None:
    rule = Rule.parse(codec)
    async with standing(Place(kind, tmp_path, LONG, rule=rule)) as place:
        one, other = await place.join("site-a"), await place.join("site-b")
        before, after = await play(place, one, other, rounds=1)
        own, theirs = message(0, rule=rule), message(1, rule=rule)
        sha = hashlib.sha256(own).hexdigest()
        head, log = await one.download(after, held_digest=before, held_contribution=sha, follow=True)
        assert head is not None
        assert head.log
        assert (own in log, theirs in log) == (False, True)
        elements = LAYOUT.split
        _, base = replay(rule, elements, rule.init(elements), flat(0), read(log, elements), {sha: own})
        assert digest(base) == after == digest(place.store.load(1))
        # Who has lost its own message, or has been away, gets that as well.
        head, log = await one.download(after, held_digest=before, follow=True)
        assert head is not None
        assert head.log
        _, base = replay(rule, elements, rule.init(elements), flat(0), read(log, elements))
        assert digest(base) == after


@pytest.mark.parametrize("codec", ["topk-ef", "int4-block"])
async def test_who_holds_nothing_gets_the_model_and_what_it_needs_to_follow(
    codec: str, kind: str, tmp_path: Path
) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse(codec))) as place:
        site = await place.join("site-a")
        _, after = await play(place, site, rounds=1)
        model = raw(place.store.load(1))
        states = b"".join(path.read_bytes() for path in place.store.states(1))
        assert len(states) == {"topk-ef": 0, "int4-block": LAYOUT.nbytes}[codec]
        for follow in (False, True):
            head, data = await site.download(after, follow=follow)
            assert head == pb.PullHead(total_bytes=len(data), log=False)
            assert data == (model + states if follow else model)


@pytest.mark.parametrize("codec", ["topk-ef:keep=512", "int4-block"])
async def test_who_is_some_rounds_behind_gets_them_as_long_as_they_are_shorter(
    codec: str, kind: str, tmp_path: Path
) -> None:
    rule, elements, rounds = Rule.parse(codec), LAYOUT.split, 20
    async with standing(Place(kind, tmp_path, LONG, rule=rule)) as place:
        site, other = await place.join("site-a"), await place.join("site-b")
        digests = await play(place, site, other, rounds=rounds)
        _, full = await site.download(digests[-1], follow=True)
        counts = []
        for held in reversed(digests[:-1]):
            head, data = await site.download(digests[-1], held_digest=held, follow=True)
            assert head is not None
            assert len(data) <= len(full)
            counts.append(len(list(read(data, elements))) if head.log else 0)
        reach = counts.index(0)
        assert counts == list(range(1, reach + 1)) + [0] * (rounds - reach)
        assert 4 <= reach < rounds


@pytest.mark.parametrize("held", ["f" * 64, "no digest at all", "x" * 100_000], ids=["unknown", "none", "endless"])
async def test_who_holds_what_nobody_knows_gets_the_model(held: str, kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("topk-ef"))) as place:
        site = await place.join("site-a")
        _, after = await play(place, site, rounds=1)
        head, data = await site.download(after, held_digest=held)
        assert head == pb.PullHead(total_bytes=LAYOUT.nbytes, log=False)
        assert data == raw(place.store.load(1))


@pytest.mark.parametrize("offset", [1, LAYOUT.nbytes - 3, LAYOUT.nbytes, LAYOUT.nbytes + 5, 2 * LAYOUT.nbytes])
async def test_a_full_download_that_was_cut_goes_on_anywhere_without_a_head(
    offset: int, kind: str, tmp_path: Path
) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("int4-block"))) as place:
        site = await place.join("site-a")
        before, after = await play(place, site, rounds=1)
        _, whole = await site.download(after, follow=True)
        # What it held when it began does not matter any more: it is in the middle of a model.
        assert await site.download(after, follow=True, offset=offset, held_digest=before) == (None, whole[offset:])


async def test_what_went_down_is_counted_as_it_went(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("topk-ef"))) as place:
        site = await place.join("site-a")
        before, after = await play(place, site, rounds=1)
        _, log = await site.download(after, held_digest=before)
        await site.download(after)
        await play(place, site, rounds=1)
        assert [one.bytes_down for one in await place.said(RoundCompleted)] == [0, len(log) + LAYOUT.nbytes]
        up = sum(one.bytes_up for one in await place.said(RoundCompleted))
        assert {
            (of["windfall.direction"], of["windfall.codec"]): sum_ for sum_, of in place.coordinator.transferred.read()
        } == {
            ("up", "topk-ef"): up,
            ("down", "topk-ef"): len(log),
            ("down", "fp32"): LAYOUT.nbytes,
        }


async def test_a_round_that_is_merged_while_a_log_is_put_together_is_not_sent_in_the_place_of_another(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, asked = threading.Event(), threading.Event()

    def slowly(*_: str) -> bytes | None:
        asked.set()
        goes_on.wait(SECONDS)
        return None

    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("topk-ef"))) as place:
        site = await place.join("site-a")
        before, after = await play(place, site, rounds=1)
        monkeypatch.setattr(place.store, "log", slowly)
        late = asyncio.create_task(refused(site.download(after, held_digest=before)))
        await asyncio.to_thread(asked.wait, SECONDS)
        await play(place, site, rounds=1)
        goes_on.set()
        assert (await late)[0] is grpc.StatusCode.NOT_FOUND
