"""A round as a site meets it: one body over real gRPC and over the double that ships."""

from uuid import UUID

import grpc
import pytest

from tests.training_field import LAYOUT, RULE, Place, Site, flat, message, raw, refused, stepped
from windfall.contracts.events import RoundCompleted, SiteLeft
from windfall.contracts.v1 import training_pb2 as pb
from windfall.lowcomm.layout import digest
from windfall.lowcomm.rule import Rule


async def test_a_site_joins_pulls_pushes_and_leaves(place: Place) -> None:
    reply = await place.stub.Join(
        pb.JoinRequest(federation="demo", site="site-a", window_id=str(UUID(int=5)), lease_token=3, protocol=1)
    )
    assert (reply.attempt, reply.task) == (1, "toy")
    assert Rule.parse(reply.codec, reply.outer, reply.clip, reply.merge).settings == RULE.settings
    assert [(one.name, tuple(one.shape)) for one in reply.tensors] == [("embed", (100, 100)), ("bias", (240,))]
    async with Site(place, "site-a", 1, 3).listening() as site:
        first = await site.opened()
        assert (first.round, first.base_digest, first.base_bytes) == (0, digest(flat(0)), LAYOUT.nbytes)
        assert (first.tokens, first.sites) == (0, 1)
        assert await site.pull(first.base_digest) == raw(flat(0))
        assert not (await site.push(1, tokens=7)).duplicate
        second = await site.opened()
        expected = stepped([(flat(1), 7)])
        assert (second.round, second.base_digest) == (1, digest(expected))
        assert (second.tokens, second.sites) == (7, 1)
        assert await site.pull(second.base_digest) == raw(expected)
        await site.leave()
        assert await site.word() is grpc.StatusCode.NOT_FOUND
    await place.said(SiteLeft)
    assert [event.topic for event in place.events()] == [
        "site.joined",
        "round.started",
        "contribution.accepted",
        "round.completed",
        "round.started",
        "site.left",
    ]
    (completed,) = await place.said(RoundCompleted)
    assert (completed.tokens, completed.bytes_up, completed.bytes_down) == (7, len(message(1)), LAYOUT.nbytes)


@pytest.mark.parametrize("offset", [0, 4, 12_345, LAYOUT.nbytes])
async def test_a_base_is_pulled_from_anywhere(place: Place, offset: int) -> None:
    site = await place.join("site-a")
    assert await site.pull(digest(flat(0)), offset) == raw(flat(0))[offset:]


async def test_a_base_that_is_not_the_current_one_is_not_there(place: Place) -> None:
    site = await place.join("site-a")
    async with site.listening():
        await site.opened()
        await site.push(1)
        await site.opened()
        assert (await refused(site.pull(digest(flat(0)))))[0] is grpc.StatusCode.NOT_FOUND
        now = place.coordinator.state.base_digest
        assert (await refused(site.pull(now, LAYOUT.nbytes + 1)))[0] is grpc.StatusCode.INVALID_ARGUMENT
