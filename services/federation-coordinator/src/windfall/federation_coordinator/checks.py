"""The update firewall: what a contribution must be before a byte of it is believed. Pure."""

from math import isfinite
from typing import Final, Literal

from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.rounds import Federation, Phase
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.layout import Layout

Reason = Literal["lease", "round", "base", "codec", "layout", "size", "digest", "not-finite", "tokens", "member"]

MAX_TOKENS: Final = 2**40
"""More than a site can train in one round; a larger weight would let it own the model."""

LARGEST_LOSS: Final = 1e6


class Refusal(Exception):
    """A contribution does not pass, with the check that it failed and one line for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


def check_manifest(manifest: pb.Manifest, state: Federation, layout: Layout, codec: str) -> None:
    """Hold a manifest against the round that runs.

    Raises:
        Refusal: the first check that it fails.
    """
    key = manifest.key
    member = state.members.get(key.site)
    if manifest.lease_token < (newest := state.lease_tokens.get(key.site, 0)):
        raise Refusal("lease", f"lease {manifest.lease_token} is fenced by {newest}")
    if key.federation != state.name or member is None or member.attempt != key.attempt:
        raise Refusal("member", f"{key.site[:60]!r} is not a member under attempt {key.attempt}")
    if manifest.lease_token != member.lease_token:
        raise Refusal("lease", f"lease {manifest.lease_token} is not the member's {member.lease_token}")
    if key.round != state.round or state.phase not in (Phase.RUNNING, Phase.FINISHING):
        raise Refusal("round", f"round {key.round} is not open; the federation is {state.phase} at {state.round}")
    if manifest.base_digest != state.base_digest:
        raise Refusal("base", "it was trained from another base")
    if manifest.codec != codec:
        raise Refusal("codec", f"codec {manifest.codec[:20]!r} is not the federation's {codec!r}")
    _check_layout(manifest, layout)
    expected = layout.elements * CODECS[codec].bytes_per_element
    if manifest.total_bytes != expected or manifest.offset > expected:
        raise Refusal("size", f"{manifest.total_bytes} bytes from {manifest.offset} are declared, not {expected}")
    if not (0 < manifest.tokens <= MAX_TOKENS and 0 < manifest.steps <= manifest.tokens):
        raise Refusal("tokens", f"{manifest.tokens} tokens in {manifest.steps} steps are not plausible")
    if not isfinite(manifest.loss) or abs(manifest.loss) > LARGEST_LOSS:
        raise Refusal("not-finite", "the loss is not a finite number")


def _check_layout(manifest: pb.Manifest, layout: Layout) -> None:
    if len(manifest.tensors) != len(layout.tensors):
        raise Refusal("layout", f"{len(manifest.tensors)} tensors are declared, not {len(layout.tensors)}")
    for declared, spec in zip(manifest.tensors, layout.tensors, strict=True):
        if (declared.name, tuple(declared.shape), declared.dtype) != (spec.name, spec.shape, spec.dtype):
            raise Refusal("layout", f"tensor {declared.name[:60]!r} is not {spec.name!r} {spec.dtype}{spec.shape}")
