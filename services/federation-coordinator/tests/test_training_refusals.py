"""What does not pass is refused with a reason, and the round goes on."""

from collections.abc import Callable
from functools import partial
from math import nan

import grpc
import pytest
import torch

from tests.training_field import (
    INVALID,
    LAYOUT,
    NOT_FOUND,
    PRECONDITION,
    RULE,
    UNAVAILABLE,
    Place,
    Site,
    flat,
    frames,
    message,
    raw,
    refused,
    stepped,
)
from windfall.contracts.events import ContributionRefused
from windfall.contracts.v1 import training_pb2 as pb
from windfall.lowcomm.layout import digest
from windfall.lowcomm.rule import Rule
from windfall.lowcomm.wire import Header, compose


def reshaped(manifest: pb.Manifest) -> None:
    manifest.tensors[0].shape[:] = [50, 200]


def of_another_round(manifest: pb.Manifest) -> None:
    manifest.key.round = 4


def of_another_attempt(manifest: pb.Manifest) -> None:
    manifest.key.attempt = 9


def setting(**fields: object) -> Callable[[pb.Manifest], None]:
    def change(manifest: pb.Manifest) -> None:
        for name, value in fields.items():
            setattr(manifest, name, value)

    return change


SOUND = message(1)
# No honest site writes it: its codec refuses to.
NAN = compose(
    Header("fp32", 0, LAYOUT.elements, 0, 100, 1),
    raw(flat(1).index_fill(0, torch.tensor([LAYOUT.elements // 2]), nan)),
)
WRONG: dict[str, tuple[Callable[[pb.Manifest], None], bytes, str, grpc.StatusCode]] = {
    "NaN in the middle": (setting(), NAN, "not-finite", INVALID),
    "a NaN loss": (setting(loss=nan), SOUND, "not-finite", INVALID),
    "another shape": (reshaped, SOUND, "layout", INVALID),
    "raw numbers": (setting(), raw(flat(1)), "layout", INVALID),
    "a torn element": (setting(), SOUND[:-1], "layout", INVALID),
    "oversized, as declared": (setting(total_bytes=RULE.most_bytes(LAYOUT.split) + 1), SOUND, "size", INVALID),
    "oversized, undeclared": (setting(total_bytes=len(SOUND)), SOUND + bytes(4), "size", INVALID),
    "another codec": (setting(codec="bf16"), message(1, rule=Rule.parse("bf16")), "codec", NOT_FOUND),
    "another codec than it says": (setting(), message(1, rule=Rule.parse("bf16")), "layout", INVALID),
    "implausible tokens": (setting(tokens=2**50), SOUND, "tokens", INVALID),
    "other tokens than it says": (setting(), message(1, tokens=101), "tokens", INVALID),
    "trained from another round's base, as it says": (setting(), message(1, number=1), "tokens", INVALID),
    "a stale round": (of_another_round, SOUND, "round", PRECONDITION),
    "another base": (setting(base_digest="0" * 64), SOUND, "base", PRECONDITION),
    "an old lease": (setting(lease_token=4), SOUND, "lease", PRECONDITION),
    "an attempt that is over": (of_another_attempt, SOUND, "member", NOT_FOUND),
}


@pytest.mark.parametrize(("spoil", "data", "reason", "code"), WRONG.values(), ids=WRONG)
async def test_refused_with_a_reason_while_the_round_goes_on(
    place: Place, spoil: Callable[[pb.Manifest], None], data: bytes, reason: str, code: grpc.StatusCode
) -> None:
    one, other = await place.join("site-a", token=5), await place.join("site-b")
    async with other.listening():
        await other.opened()
        manifest = one.manifest(data)
        spoil(manifest)
        status, detail = await refused(one.send(manifest, data))
        assert (status, detail.split(":")[0]) == (code, reason)
        (event,) = await place.said(ContributionRefused)
        assert (event.site, event.reason) == ("site-a", reason)
        assert (await one.progress(0)).received_bytes == 0
        # A better one still counts, and the others' round is none the worse.
        await one.push(3, tokens=1)
        await other.push(2, tokens=3)
        assert (await other.opened()).base_digest == digest(stepped([(flat(3), 1), (flat(2), 3)]))


async def test_with_another_digest_it_may_come_once_more_and_is_then_refused(place: Place) -> None:
    one, other = await place.join("site-a"), await place.join("site-b")
    async with other.listening():
        await other.opened()
        assert (await refused(one.send(one.manifest(SOUND, sha256="0" * 64), SOUND)))[0] is UNAVAILABLE
        assert not await place.said(ContributionRefused)
        status, detail = await refused(one.send(one.manifest(SOUND, sha256="0" * 64), SOUND))
        assert (status, detail.split(":")[0]) == (INVALID, "digest")
        (event,) = await place.said(ContributionRefused)
        assert (event.site, event.reason) == ("site-a", "digest")
        assert (await one.progress(0)).received_bytes == 0


async def test_nobody_waits_for_what_was_refused(place: Place) -> None:
    one, other = await place.join("site-a"), await place.join("site-b")
    async with one.listening(), other.listening():
        await one.opened()
        await other.opened()
        await refused(one.send(one.manifest(NAN), NAN))
        await other.push(2)
        assert [(await each.opened()).round for each in (one, other)] == [1, 1]
        assert place.coordinator.state.base_digest == digest(stepped([(flat(2), 1)]))


async def test_alone_and_refused_the_round_opens_again(place: Place) -> None:
    site = await place.join("site-a")
    async with site.listening():
        first = await site.opened()
        await refused(site.send(site.manifest(NAN), NAN))
        assert await site.opened() == first
        await site.push(1)
        assert (await site.opened()).round == 1


async def test_a_second_manifest_in_one_stream_is_refused(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    twice = [*frames(site.manifest(data), data)]
    twice.insert(2, twice[0])
    code, detail = await refused(place.push(partial(iter, twice)))
    assert (code, "second manifest" in detail) == (INVALID, True)
    (event,) = await place.said(ContributionRefused)
    assert event.reason == "size"


@pytest.mark.parametrize("stream", [[pb.PushFrame(data=b"1234")], [pb.PushFrame()], []], ids=["data", "empty", "none"])
async def test_a_stream_without_a_manifest_is_refused(place: Place, stream: list[pb.PushFrame]) -> None:
    await place.join("site-a")
    assert (await refused(place.push(partial(iter, stream))))[0] is INVALID


async def test_a_stranger_is_refused_and_not_talked_about(place: Place) -> None:
    stranger = Site(place, "site-b", 1, 1)
    assert (await refused(stranger.push(1)))[0] is NOT_FOUND
    assert (await stranger.progress(0)).received_bytes == 0
    assert not await place.said(ContributionRefused)


@pytest.mark.parametrize("kind", ["grpc"], indirect=True)
async def test_a_frame_over_the_size_cap_is_refused(place: Place) -> None:
    site = await place.join("site-a")
    manifest = site.manifest(SOUND)
    frame = pb.PushFrame(data=bytes(5 * 1024 * 1024))
    code, _ = await refused(place.push(partial(iter, [pb.PushFrame(manifest=manifest), frame])))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not (await site.resume(SOUND))[0].duplicate
