"""What a contribution must be before a byte of it is believed: one row for each way to fail."""

from collections.abc import Callable
from math import inf, nan
from typing import get_args
from uuid import UUID

import pytest

from windfall.contracts.events import ContributionRefused
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import LARGEST_LOSS, MAX_TOKENS, Reason, Refusal, check_manifest
from windfall.federation_coordinator.rounds import Federation, Member, Phase
from windfall.lowcomm.layout import Layout, TensorSpec

LAYOUT = Layout((TensorSpec("embed", (4, 3)), TensorSpec("bias", ()), TensorSpec("head", (3,))))
BASE = "ab" * 32
MEMBER = Member(site="site-a", attempt=2, lease_token=7, window_id=UUID(int=1), since=5)
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
            pb.Tensor(name="head", shape=[3], dtype="float32"),
        ],
    )


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


def lose_one(wrong: pb.Manifest) -> None:
    del wrong.tensors[2]


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
    "a round that is over": (change(key__round=4), "round", "round 4 is not open"),
    "a round to come": (change(key__round=6), "round", "round 6 is not open"),
    "another base": (change(base_digest="ef" * 32), "base", "another base"),
    "no base": (change(base_digest=""), "base", "another base"),
    "an unknown codec": (change(codec="zip"), "codec", "'zip'"),
    "another codec than the federation's": (change(codec="bf16"), "codec", "'bf16'"),
    "an endless codec name": (change(codec="x" * 10_000), "codec", "'xxxxxxxxxxxxxxxxxxxx'"),
    "another shape of as many elements": (reshape, "layout", "'embed'"),
    "another order": (swap, "layout", "'head'"),
    "another name": (rename, "layout", "'gain'"),
    "another type": (retype, "layout", "'bias'"),
    "a tensor too few": (lose_one, "layout", "2 tensors are declared, not 3"),
    "a tensor too many": (add_one, "layout", "4 tensors are declared, not 3"),
    "too long": (change(total_bytes=68), "size", "68 bytes"),
    "far too long": (change(total_bytes=2**63), "size", "not 64"),
    "too short": (change(total_bytes=60), "size", "60 bytes"),
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
        check_manifest(wrong, STATE, LAYOUT, "fp32")
    assert refused.value.reason == reason
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize("phase", [Phase.DARK, Phase.MERGING, Phase.FINISHED])
def test_a_round_that_takes_nothing_any_more(phase: Phase) -> None:
    with pytest.raises(Refusal, match=phase.value):
        check_manifest(manifest(), STATE.model_copy(update={"phase": phase}), LAYOUT, "fp32")


@pytest.mark.parametrize(
    "vary",
    [
        change(),
        change(offset=64),
        change(tokens=MAX_TOKENS),
        change(tokens=10),
        change(loss=-3.0),
        change(partial=True),
    ],
    ids=[
        "whole",
        "nothing left to send",
        "as much as can be",
        "a token a step",
        "a negative loss",
        "of one who leaves",
    ],
)
@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.FINISHING])
def test_passes(vary: Callable[[pb.Manifest], None], phase: Phase) -> None:
    fine = manifest()
    vary(fine)
    check_manifest(fine, STATE.model_copy(update={"phase": phase}), LAYOUT, "fp32")


def test_every_reason_can_be_said() -> None:
    said = ContributionRefused.model_fields["reason"].annotation
    assert set(get_args(said)) == set(get_args(Reason))
