"""What a coordinator hears of a site over gRPC, and a site of its coordinator."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from google.protobuf.message import DecodeError

from tests.fuzz.target import Target
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import Refusal, check_manifest
from windfall.federation_coordinator.federation import Federation, Member, Phase, Policy
from windfall.federation_coordinator.wire import read_frame
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.rule import Rule
from windfall.servicekit.frames import framed
from windfall.site_trainer.bulk import read_frame as read_pulled
from windfall.site_trainer.claims import check_claims
from windfall.site_trainer.coordinator import membership_of, tensors_of

_LAYOUT: Final = Layout(
    (TensorSpec("embed", (4, 3)), TensorSpec("bias", ()), TensorSpec("seen", (3,), "int64", exact=True)),
    tied=(("head", "embed"),),
)
_RULE: Final = Rule.parse("topk-ef")
_BASE: Final = "ab" * 32
_MEMBER: Final = Member(site="site-a", attempt=2, lease_token=7, window_id=UUID(int=1), since=5)
_POLICY: Final = Policy(timedelta(minutes=20), None, timedelta(minutes=5), None)
_STATE: Final = Federation(
    name="demo",
    base_digest=_BASE,
    round=5,
    phase=Phase.RUNNING,
    members={"site-a": _MEMBER},
    lease_tokens={"site-a": 7},
)


def _manifest() -> pb.Manifest:
    return pb.Manifest(
        key=pb.ContributionKey(federation="demo", site="site-a", round=5, attempt=2),
        lease_token=7,
        base_digest=_BASE,
        codec="topk-ef",
        tokens=1000,
        steps=10,
        loss=3.5,
        total_bytes=40,
        sha256="cd" * 32,
        tensors=tensors_of(_LAYOUT),
        rows=[pb.RowRange(begin=0, end=8)],
    )


def _pushed() -> Sequence[bytes]:
    return [
        pb.PushFrame(manifest=_manifest()).SerializeToString(),
        pb.PushFrame(data=b"x" * 300).SerializeToString(),
        framed(2, b"y" * 40),
    ]


def _push(data: bytes) -> object:
    frame: Any = read_frame(data)
    if isinstance(frame, pb.PushFrame) and frame.WhichOneof("kind") == "manifest":
        check_manifest(frame.manifest, _STATE, _POLICY, _LAYOUT, _RULE)
    return frame


def _pulled() -> Sequence[bytes]:
    head = pb.PullFrame(head=pb.PullHead(total_bytes=99))
    return [head.SerializeToString(), pb.PullFrame(data=b"x" * 300).SerializeToString(), framed(1, b"y" * 40)]


def _replies() -> Sequence[bytes]:
    reply = pb.JoinReply(
        attempt=3,
        task="toy",
        task_settings_json="{}",
        tensors=tensors_of(_LAYOUT),
        codec="int8-block",
        outer="nesterov",
        merge="mean",
        heartbeat_interval_ms=15000,
        fragments=1,
        corpus=pb.Corpus(rows=1000, seed=7),
    )
    return [reply.SerializeToString()]


def _joined(data: bytes) -> object:
    """All that a trainer asks of a membership before it trains."""
    reply = pb.JoinReply.FromString(data)
    check_claims(reply)
    membership = membership_of(reply)
    return membership.rule, membership.rotation, membership.codec


TARGETS: Final = (
    Target("push frame and manifest", _pushed, _push, (DecodeError, Refusal)),
    Target("pull frame", _pulled, read_pulled, (DecodeError,)),
    Target("join reply", _replies, _joined, (DecodeError, ValueError)),
)
