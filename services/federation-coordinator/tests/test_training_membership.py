"""Who is admitted, who is silent, and whose lease is the newer one."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest

from tests.training_field import (
    FRAME,
    INVALID,
    LONG,
    NOT_FOUND,
    PRECONDITION,
    Place,
    Site,
    flat,
    frames,
    message,
    refused,
    standing,
    stepped,
)
from windfall.contracts.events import RoundCompleted, SiteJoined, SiteLeft
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.federation import Phase
from windfall.lowcomm.layout import digest

WELL: dict[str, Any] = {
    "federation": "demo",
    "site": "site-a",
    "window_id": str(UUID(int=5)),
    "lease_token": 3,
    "protocol": 1,
}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"federation": "other"}, NOT_FOUND),
        ({"federation": "x" * 100_000}, NOT_FOUND),
        ({"site": "site-z"}, grpc.StatusCode.PERMISSION_DENIED),
        ({"site": "../../etc"}, INVALID),
        ({"site": ""}, INVALID),
        ({"site": "x" * 100_000}, INVALID),
        ({"protocol": 2}, PRECONDITION),
        ({"lease_token": 0}, PRECONDITION),
        ({"lease_token": 2}, PRECONDITION),
        ({"window_id": "the first"}, INVALID),
    ],
    ids=[
        "federation",
        "endless federation",
        "site",
        "no name of a site",
        "no site",
        "endless site",
        "protocol",
        "no lease",
        "fenced",
        "window",
    ],
)
async def test_not_admitted(place: Place, wrong: dict[str, Any], code: grpc.StatusCode) -> None:
    await place.join("site-a", token=3)
    request = pb.JoinRequest(**(WELL | wrong))
    found, detail = await refused(place.stub.Join(request))
    assert (found, len(detail) < 200) == (code, True)
    assert len(await place.said(SiteJoined)) == 1


async def test_a_heartbeat_of_nobody_is_told_to_join(place: Place) -> None:
    site = await place.join("site-a")
    for stranger in (Site(place, "site-a", site.attempt + 1, 1), Site(place, "site-b", 1, 1)):
        async with stranger.listening():
            assert await stranger.word() is NOT_FOUND


async def test_a_stream_without_a_beat_ends(place: Place) -> None:
    async def nothing() -> AsyncIterator[pb.Beat]:
        for _ in range(0):
            yield pb.Beat()

    assert [word async for word in place.stub.Heartbeat(nothing())] == []


async def test_a_silent_member_is_dropped_and_hears_it(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, silence=timedelta(seconds=3))) as place:
        site = await place.join("site-a")
        async with site.listening():
            await site.opened()
            # It beat once and never again.
            assert await site.word() is NOT_FOUND
        (left,) = await place.said(SiteLeft)
        assert (left.reason, place.coordinator.state.phase) == ("silent", Phase.DARK)


async def test_a_round_does_not_wait_for_the_silent(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, silence=timedelta(seconds=3))) as place:
        await place.join("site-b")
        site = await place.join("site-a")
        await site.push(1)
        (completed,) = await place.said(RoundCompleted, 1)
        assert completed.contributors == ("site-a",)
        assert "site-b" in {left.site for left in await place.said(SiteLeft)}


async def test_the_newer_lease_takes_over_from_one_that_still_pushes(place: Place) -> None:
    """Two trainers of one site overlap: the older one drains while the next window's has come up."""
    old = await place.join("site-a", token=1)
    data = message(1)
    still = asyncio.Event()

    async def slowly() -> AsyncIterator[pb.PushFrame]:
        sent = [*frames(old.manifest(data), data)]
        for frame in sent[:-1]:
            yield frame
        await still.wait()
        yield sent[-1]

    async def pushing() -> tuple[grpc.StatusCode, str]:
        return await refused(place.stub.Push(slowly()))

    async with old.listening():
        await old.opened()
        late = asyncio.create_task(pushing())
        await place.disk.has(len(data) - FRAME)
        new = await place.join("site-a", token=2)
        assert await old.word() is NOT_FOUND
        still.set()
        code, detail = await late
        assert (code, detail.split(":")[0]) == (PRECONDITION, "lease")
        assert not (await old.progress(0)).accepted
    async with new.listening():
        await new.opened()
        await new.push(2)
        assert (await new.opened()).base_digest == digest(stepped([(flat(2), 1)]))
    assert [left.reason for left in await place.said(SiteLeft)] == ["replaced"]


async def test_a_contribution_accepted_before_the_takeover_counts(place: Place) -> None:
    other = await place.join("site-b")
    old = await place.join("site-a", token=1)
    async with other.listening():
        await other.opened()
        await old.push(1, tokens=2)
        new = await place.join("site-a", token=2)
        await new.leave()
        await other.push(2, tokens=3)
        assert (await other.opened()).base_digest == digest(stepped([(flat(1), 2), (flat(2), 3)]))
