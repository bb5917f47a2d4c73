"""Cuts and repetitions: what has arrived is not sent again, and counts once."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from tests.training_field import FRAME, Place, frames, message, refused
from windfall.contracts.events import ContributionAccepted, ContributionRefused, RoundCompleted
from windfall.contracts.v1 import training_pb2 as pb


async def test_cut_at_nine_tenths_only_the_rest_is_sent_again(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    most = len(data) * 9 // 10 // FRAME * FRAME
    still = asyncio.Event()

    async def until_the_cut() -> AsyncIterator[pb.PushFrame]:
        for frame in frames(site.manifest(data), data[:most]):
            yield frame
        await still.wait()

    async def pushing() -> None:
        await place.stub.Push(until_the_cut())

    cut = asyncio.create_task(pushing())
    await place.disk.has(most)
    cut.cancel()
    receipt, sent = await site.resume(data)
    assert (receipt.duplicate, sent) == (False, len(data) - most)
    assert len(await place.said(ContributionAccepted)) == 1
    assert not await place.said(ContributionRefused)


async def test_one_stream_at_a_time_and_none_while_the_disk_still_works_for_the_last(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    goes_on = asyncio.Event()

    async def slowly() -> AsyncIterator[pb.PushFrame]:
        sent = [*frames(site.manifest(data), data)]
        for frame in sent[:2]:
            yield frame
        await goes_on.wait()
        yield sent[2]
        await asyncio.Event().wait()

    async def pushing() -> None:
        await place.stub.Push(slowly())

    first = asyncio.create_task(pushing())
    await place.disk.has(FRAME)
    # A second stream that goes on where the first one is would write into the same file.
    second = site.manifest(data, offset=FRAME)
    assert (await refused(site.send(second, data)))[0] is grpc.StatusCode.UNAVAILABLE
    place.disk.gate.clear()
    goes_on.set()
    await place.disk.held()
    first.cancel()
    # Its client has gone, but what it sent is still on its way to the disk.
    assert (await refused(site.send(second, data)))[0] is grpc.StatusCode.UNAVAILABLE
    place.disk.gate.set()
    receipt, sent = await site.resume(data)
    assert (receipt.duplicate, sent) == (False, len(data) - 2 * FRAME)
    assert not await place.said(ContributionRefused)


async def test_a_stream_that_just_ends_early_is_a_cut_and_keeps_its_bytes(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    code, detail = await refused(site.send(site.manifest(data), data[: 2 * FRAME]))
    assert (code, str(2 * FRAME) in detail) == (grpc.StatusCode.UNAVAILABLE, True)
    assert (await site.resume(data))[1] == len(data) - 2 * FRAME
    assert not await place.said(ContributionRefused)


async def test_bytes_from_elsewhere_than_wanted_are_sent_again(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    code, detail = await refused(site.send(site.manifest(data, offset=FRAME), data))
    assert (code, "0 are wanted" in detail) == (grpc.StatusCode.UNAVAILABLE, True)
    assert (await site.resume(data))[1] == len(data)


async def test_what_lay_there_before_the_cut_was_damaged_it_begins_again(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    await refused(site.send(site.manifest(data), message(2)[:FRAME]))
    receipt, sent = await site.resume(data)
    assert (receipt.duplicate, sent) == (False, len(data))
    assert not await place.said(ContributionRefused)


async def test_sent_twice_it_counts_once_in_its_round_and_after(place: Place) -> None:
    one, other = await place.join("site-a"), await place.join("site-b")
    data = message(1)
    manifest = one.manifest(data)
    async with other.listening():
        await other.opened()
        assert not (await one.send(manifest, data)).duplicate
        assert (await one.progress(0)).accepted
        assert (await one.send(manifest, data)).duplicate
        await other.push(2)
        await other.opened()
        # The receipt was lost, and the round has been merged meanwhile: it counts, and its site must hear so.
        assert (await one.progress(0)).accepted
        assert (await one.send(manifest, data)).duplicate
        assert not (await one.progress(1)).accepted
    assert len(await place.said(ContributionAccepted)) == 2
    (completed,) = await place.said(RoundCompleted)
    assert (completed.contributors, completed.tokens) == (("site-a", "site-b"), 200)
