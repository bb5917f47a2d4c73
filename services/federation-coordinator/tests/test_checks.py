"""What a contribution must be before a byte of it is believed: one row for each way to fail."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from typing import Final, get_args
from uuid import UUID

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.contracts.events import ContributionRefused
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import (
    LARGEST_LOSS,
    MAX_TOKENS,
    Reason,
    Refusal,
    check_content,
    check_manifest,
)
from windfall.federation_coordinator.federation import Federation, Member, Phase, Policy, Receipt
from windfall.lowcomm.compressor import COMPRESSORS
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.rule import Rule, Split
from windfall.lowcomm.wire import HEADER_BYTES, Header, compose

LAYOUT = Layout(
    (TensorSpec("embed", (4, 3)), TensorSpec("bias", ()), TensorSpec("seen", (3,), "int64", exact=True)),
    tied=(("head", "embed"),),
)
RULE = Rule.parse("fp32")
MOST = RULE.most_bytes(LAYOUT.split)
BASE = "ab" * 32
MEMBER = Member(site="site-a", attempt=2, lease_token=7, window_id=UUID(int=1), since=5)
POLICY = Policy(timedelta(minutes=20), None, timedelta(minutes=5), None)
STATE = Federation(
    name="demo",
    base_digest=BASE,
    round=5,
    phase=Phase.RUNNING,
    members={"site-a": MEMBER},
    lease_tokens={"site-a": 7, "site-b": 1},
)


def manifest() -> pb.Manifest:
    return pb.Manifest(
        key=pb.ContributionKey(federation="demo", site="site-a", round=5, attempt=2),
        lease_token=7,
        base_digest=BASE,
        codec="fp32",
        tokens=1000,
        steps=10,
        loss=2.5,
        total_bytes=64,
        sha256="cd" * 32,
        tensors=[
            pb.Tensor(name="embed", shape=[4, 3], dtype="float32"),
            pb.Tensor(name="bias", shape=[], dtype="float32"),
            pb.Tensor(name="seen", shape=[3], dtype="int64", exact=True),
            pb.Tensor(name="head", tied_to="embed"),
        ],
    )


def test_where_each_is_a_vote_nobody_has_two() -> None:
    spoken = STATE.model_copy(update={"receipts": {"site-a": Receipt(round=5, attempt=1)}})
    check_manifest(manifest(), spoken, POLICY, LAYOUT, RULE)
    votes = replace(POLICY, once=True)
    check_manifest(manifest(), STATE, votes, LAYOUT, RULE)
    with pytest.raises(Refusal, match="site-a counts once in a round, and has contributed to 5 or after it") as refusal:
        check_manifest(manifest(), spoken, votes, LAYOUT, RULE)
    assert refusal.value.reason == "round"
    before = STATE.model_copy(update={"receipts": {"site-a": Receipt(round=4, attempt=1)}})
    check_manifest(manifest(), before, votes, LAYOUT, RULE)


def change(**fields: object) -> Callable[[pb.Manifest], None]:
    def changed(wrong: pb.Manifest) -> None:
        for name, value in fields.items():
            owner, _, last = name.rpartition("__")
            setattr(getattr(wrong, owner) if owner else wrong, last, value)

    return changed


def reshape(wrong: pb.Manifest) -> None:
    wrong.tensors[0].shape[:] = [3, 4]


def swap(wrong: pb.Manifest) -> None:
    first, last = pb.Tensor(), pb.Tensor()
    first.CopyFrom(wrong.tensors[0])
    last.CopyFrom(wrong.tensors[2])
    wrong.tensors[0].CopyFrom(last)
    wrong.tensors[2].CopyFrom(first)


def rename(wrong: pb.Manifest) -> None:
    wrong.tensors[1].name = "gain"


def retype(wrong: pb.Manifest) -> None:
    wrong.tensors[1].dtype = "float16"


def shorten(wrong: pb.Manifest) -> None:
    wrong.tensors[2].exact = False


def untie(wrong: pb.Manifest) -> None:
    wrong.tensors[3].tied_to = "bias"


def lose_one(wrong: pb.Manifest) -> None:
    del wrong.tensors[3]


def add_one(wrong: pb.Manifest) -> None:
    wrong.tensors.add(name="extra", shape=[0], dtype="float32")


WRONG: dict[str, tuple[Callable[[pb.Manifest], None], Reason, str]] = {
    "another federation": (change(key__federation="other"), "member", "not a member"),
    "a site that never joined": (change(key__site="site-c"), "member", "not a member"),
    "a site that has left": (change(key__site="site-b", lease_token=1), "member", "not a member"),
    "an attempt that was replaced": (change(key__attempt=1), "member", "under attempt 1"),
    "an attempt that never was": (change(key__attempt=3), "member", "under attempt 3"),
    "an older lease": (change(lease_token=6), "lease", "fenced by 7"),
    "an older lease of an older attempt": (change(lease_token=6, key__attempt=1), "lease", "fenced by 7"),
    "a lease that never was": (change(lease_token=8), "lease", "not the member's 7"),
    "a round that is over": (change(key__round=4), "round", "round 4 takes nothing"),
    "a round to come": (change(key__round=6), "round", "round 6 takes nothing"),
    "another base": (change(base_digest="ef" * 32), "base", "another base"),
    "no base": (change(base_digest=""), "base", "another base"),
    "an unknown codec": (change(codec="zip"), "codec", "'zip'"),
    "another codec than the federation's": (change(codec="bf16"), "codec", "'bf16'"),
    "an endless codec name": (change(codec="x" * 10_000), "codec", "'xxxxxxxxxxxxxxxxxxxx'"),
    "another shape of as many elements": (reshape, "layout", "'embed'"),
    "another order": (swap, "layout", "'seen'"),
    "another name": (rename, "layout", "'gain'"),
    "another type": (retype, "layout", "'bias'"),
    "a counter that is to be shortened": (shorten, "layout", "'seen'"),
    "tied to another tensor": (untie, "layout", "'head'"),
    "a tensor too few": (lose_one, "layout", "3 tensors are declared, not 4"),
    "a tensor too many": (add_one, "layout", "5 tensors are declared, not 4"),
    "too long": (change(total_bytes=MOST + 1), "size", f"{MOST + 1} bytes"),
    "far too long": (change(total_bytes=2**63), "size", f"at most {MOST} fit"),
    "from beyond its end": (change(offset=65), "size", "from 65"),
    "no tokens": (change(tokens=0), "tokens", "not plausible"),
    "more tokens than anybody trains": (change(tokens=MAX_TOKENS + 1), "tokens", "not plausible"),
    "no steps": (change(steps=0), "tokens", "not plausible"),
    "more steps than tokens": (change(steps=1001), "tokens", "not plausible"),
    "a loss that is not a number": (change(loss=nan), "not-finite", "not a finite number"),
    "an infinite loss": (change(loss=-inf), "not-finite", "not a finite number"),
    "an absurd loss": (change(loss=LARGEST_LOSS * 2), "not-finite", "not a finite number"),
}


@pytest.mark.parametrize(("spoil", "reason", "detail"), WRONG.values(), ids=WRONG)
def test_refused(spoil: Callable[[pb.Manifest], None], reason: Reason, detail: str) -> None:
    wrong = manifest()
    spoil(wrong)
    with pytest.raises(Refusal, match=detail) as refused:
        check_manifest(wrong, STATE, POLICY, LAYOUT, RULE)
    assert refused.value.reason == reason
    assert len(refused.value.detail) < 200


def test_a_federation_that_takes_nothing_any_more() -> None:
    with pytest.raises(Refusal, match="finished"):
        check_manifest(manifest(), STATE.model_copy(update={"phase": Phase.FINISHED}), POLICY, LAYOUT, RULE)


@pytest.mark.parametrize(
    "vary",
    [
        change(),
        change(offset=64),
        change(total_bytes=MOST),
        change(tokens=MAX_TOKENS),
        change(tokens=10),
        change(loss=-3.0),
        change(partial=True),
    ],
    ids=[
        "whole",
        "nothing left to send",
        "as long as can be",
        "as much as can be",
        "a token a step",
        "a negative loss",
        "of one who leaves",
    ],
)
@pytest.mark.parametrize("phase", [Phase.DARK, Phase.RUNNING, Phase.FINISHING, Phase.MERGING])
def test_passes(vary: Callable[[pb.Manifest], None], phase: Phase) -> None:
    fine = manifest()
    vary(fine)
    check_manifest(fine, STATE.model_copy(update={"phase": phase}), POLICY, LAYOUT, RULE)


def test_every_reason_can_be_said() -> None:
    said = ContributionRefused.model_fields["reason"].annotation
    assert set(get_args(said)) == set(get_args(Reason))


# --- what lies on disk ------------------------------------------------------------------------------------------------


def message(rule: Rule, tokens: int = 1000) -> bytes:
    elements = LAYOUT.split
    gradient = torch.randn(elements.elements, generator=torch.Generator().manual_seed(1))
    state = rule.codec.init(elements.trained)
    return rule.encode(state, gradient, elements, base=5, tokens=tokens, steps=10)[1]


def part(codec: str, values: torch.Tensor, fragment: int = 0, elements: int | None = None) -> bytes:
    """A part that no honest site writes: the numbers go out unchecked."""
    raw = values.bfloat16().view(torch.int16).numpy() if codec == "bf16" else values.numpy()
    header = Header(codec, fragment, values.numel() if elements is None else elements, 5, 1000, 10)
    return compose(header, raw.tobytes())


def looked_at(rule: Rule, data: bytes, folder: Path, **fields: object) -> None:
    path, said = folder / "contribution", manifest()
    said.codec = rule.codec.name
    path.write_bytes(data)
    change(**fields)(said)
    check_content(path, rule, LAYOUT.split, said)


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_what_a_site_says_passes_in_every_codec(codec: str, tmp_path: Path) -> None:
    rule = Rule.parse(codec)
    looked_at(rule, message(rule), tmp_path)


@pytest.mark.parametrize(
    "fields", [{"key__round": 4}, {"tokens": 1001}, {"steps": 11}], ids=lambda one: next(iter(one))
)
@pytest.mark.parametrize("codec", COMPRESSORS)
def test_a_header_says_what_the_manifest_says(codec: str, fields: dict[str, object], tmp_path: Path) -> None:
    rule = Rule.parse(codec)
    with pytest.raises(Refusal, match="its manifest other numbers") as refused:
        looked_at(rule, message(rule), tmp_path, **fields)
    assert refused.value.reason == "tokens"


FINE, COUNT = torch.ones(13), torch.ones(3)
EXACT = part("fp32", COUNT, fragment=1)
CONTENT: dict[str, tuple[str, bytes, Reason]] = {
    "NaN": ("fp32", part("fp32", FINE.index_fill(0, torch.tensor(5), nan)) + EXACT, "not-finite"),
    "NaN, shortened": ("bf16", part("bf16", FINE.index_fill(0, torch.tensor(5), nan)) + EXACT, "not-finite"),
    "infinity": ("fp32", part("fp32", FINE.index_fill(0, torch.tensor(0), -inf)) + EXACT, "not-finite"),
    "absurdly large": ("fp32", part("fp32", FINE * 1e30) + EXACT, "not-finite"),
    "NaN in a counter": ("fp32", part("fp32", FINE) + part("fp32", COUNT * nan, fragment=1), "not-finite"),
    "NaN in a counter beside a sparse part": (
        "topk-ef",
        message(Rule.parse("topk-ef"))[: -HEADER_BYTES - 12] + part("fp32", COUNT * nan, fragment=1),
        "not-finite",
    ),
    "a shortened counter": ("bf16", part("bf16", FINE) + part("bf16", COUNT, fragment=1), "layout"),
    "another order": ("fp32", part("fp32", COUNT, fragment=1) + part("fp32", FINE), "layout"),
    "the same part twice": ("fp32", part("fp32", FINE) * 2, "layout"),
    "an element too many": ("fp32", part("fp32", torch.ones(14)) + EXACT, "layout"),
    "an element too few": ("fp32", part("fp32", torch.ones(12)) + EXACT, "layout"),
    "fewer bytes than elements": ("fp32", part("fp32", torch.ones(12), elements=13) + EXACT, "layout"),
    "another codec": ("topk-ef", message(Rule.parse("int4-block")), "layout"),
    "raw numbers": ("fp32", FINE.numpy().tobytes() + COUNT.numpy().tobytes(), "layout"),
    "zeros": ("topk-ef", bytes(100), "layout"),
}


@pytest.mark.parametrize(("codec", "data", "reason"), CONTENT.values(), ids=CONTENT)
def test_content_that_no_site_may_say(codec: str, data: bytes, reason: Reason, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        looked_at(Rule.parse(codec), data, tmp_path)
    assert refused.value.reason == reason
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_cut_short_anywhere_or_followed_by_more_it_does_not_pass(codec: str, tmp_path: Path) -> None:
    rule = Rule.parse(codec)
    whole = message(rule)
    for data in (*(whole[:end] for end in range(len(whole))), whole + b"\0"):
        with pytest.raises(Refusal) as refused:
            looked_at(rule, data, tmp_path)
        assert refused.value.reason == "layout"


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_any_byte_may_be_anything_and_nothing_but_a_refusal_follows(codec: str, tmp_path: Path) -> None:
    rule = Rule.parse(codec)
    whole = message(rule)
    passed = 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        try:
            looked_at(rule, bytes(damaged), tmp_path)
        except Refusal as refused:
            assert refused.reason in ("layout", "not-finite", "tokens")
        else:
            passed += 1
    # Other numbers are numbers too; but the header of each part is held against what is known.
    assert passed <= len(whole) - 2 * (HEADER_BYTES - 8)


def said_in(codec: str) -> pb.Manifest:
    fine = manifest()
    fine.codec = codec
    return fine


# --- how long it is, and how much room it takes -----------------------------------------------------------------------


@pytest.mark.parametrize("codec", COMPRESSORS)
def test_the_norm_is_that_of_what_moves_the_model(codec: str, tmp_path: Path) -> None:
    rule, path = Rule.parse(codec), tmp_path / "contribution"
    path.write_bytes(message(rule))
    (moves, _) = rule.decode(message(rule), LAYOUT.split)[1]
    expected = float((moves if isinstance(moves, torch.Tensor) else torch.from_numpy(moves.values)).norm())
    assert check_content(path, rule, LAYOUT.split, said_in(codec)).norm == pytest.approx(expected, rel=1e-5)


def test_a_norm_beyond_fp32_is_a_number(tmp_path: Path) -> None:
    huge = Layout((TensorSpec("weights", (300_000,)),))
    rule, path = Rule.parse("fp32"), tmp_path / "contribution"
    path.write_bytes(part("fp32", torch.full((300_000,), 2.0**49)))
    norm = check_content(path, rule, huge.split, said_in("fp32")).norm
    assert norm == pytest.approx(2.0**49 * 300_000**0.5, rel=1e-4)


def deflated(data: bytes, strategy: int = zlib.Z_HUFFMAN_ONLY) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, strategy)
    packed = packer.compress(data) + packer.flush()
    return struct.pack("<I", len(packed)) + packed


def hostile_topk(elements: int, keep: int, strategy: int) -> bytes:
    """As many coordinates as the bytes allow, side by side: the least that can be said about the most."""
    chunks = elements // 4096
    count = keep * chunks
    gaps = b"".join([b"\0" * keep + b"\xff" * ((4096 - keep) // 255)] * chunks)
    bits, planes = -(-count // 8), 2 * chunks
    return b"".join(
        (
            struct.pack("<HHB", 4096, keep, 2),
            deflated(gaps, strategy),
            bytes(bits),
            deflated(bytes(bits), strategy),
            deflated(bytes(planes), strategy),
            deflated(bytes(planes), strategy),
        )
    )


ELEMENTS: Final = 1 << 20
HOSTILE: dict[str, tuple[str, bytes]] = {
    "more coordinates than the rule keeps": ("topk-ef", hostile_topk(ELEMENTS, 300, zlib.Z_HUFFMAN_ONLY)),
    "all coordinates, in a few bytes": ("topk-ef", hostile_topk(ELEMENTS, 4096, zlib.Z_DEFAULT_STRATEGY)),
    "the same in frequencies": ("dct-momentum", hostile_topk(ELEMENTS, 4096, zlib.Z_DEFAULT_STRATEGY)),
    "codes in a few bytes": (
        "q2-ef",
        bytes(8 * ELEMENTS // 4096) + deflated(bytes(ELEMENTS * 64), zlib.Z_DEFAULT_STRATEGY),
    ),
    "a section of two gigabytes": ("topk-ef", struct.pack("<HHBI", 4096, 64, 2, 2**31 - 1) + bytes(1000)),
    "a stored section of two gigabytes": ("q2-ef", bytes(8 * ELEMENTS // 4096) + struct.pack("<I", 2**32 - 1)),
    "chunks of one element": ("topk-ef", struct.pack("<HHB", 1, 1, 2) + deflated(bytes(ELEMENTS)) + bytes(1000)),
}


@pytest.mark.parametrize(("codec", "payload"), HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_payload_says_of_itself_it_takes_no_more_room_than_two_models(
    codec: str, payload: bytes, tmp_path: Path
) -> None:
    rule, elements = Rule.parse(codec), Split(ELEMENTS)
    path = tmp_path / "contribution"
    path.write_bytes(compose(Header(codec, 0, ELEMENTS, 5, 1000, 10), payload))
    if path.stat().st_size > rule.most_bytes(elements):
        return  # the manifest was refused for its size
    tracemalloc.start()
    try:
        with suppress(Refusal):
            check_content(path, rule, elements, said_in(codec))
        assert tracemalloc.get_traced_memory()[1] < 2 * 4 * ELEMENTS + (1 << 20)
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(sorted(COMPRESSORS)),
    st.binary(max_size=64),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6),
)
def test_count_fields_that_were_tampered_with_take_no_more_room_than_two_models(
    tmp_path_factory: pytest.TempPathFactory, codec: str, tail: bytes, changes: list[tuple[int, int]]
) -> None:
    rule, elements = Rule.parse(codec), Split(1 << 14)
    gradient = torch.randn(1 << 14, generator=torch.Generator().manual_seed(1))
    state = rule.codec.init(elements.trained)
    data = bytearray(rule.encode(state, gradient, elements, base=5, tokens=1000, steps=10)[1])
    for place, value in changes:
        data[HEADER_BYTES + place] = value
    path = tmp_path_factory.mktemp("tampered") / "contribution"
    path.write_bytes(bytes(data) + tail)
    tracemalloc.start()
    try:
        with suppress(Refusal):
            check_content(path, rule, elements, said_in(codec))
        assert tracemalloc.get_traced_memory()[1] < 2 * 4 * (1 << 14) + (1 << 20)
    finally:
        tracemalloc.stop()
