"""The update firewall: what a contribution must be before a byte of it is believed."""

from dataclasses import dataclass
from hashlib import sha256
from math import isfinite, sqrt
from pathlib import Path
from struct import pack
from typing import Final, Literal

import numpy as np

from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.federation import Federation, Policy
from windfall.federation_coordinator.rounds import base_of, has_spoken, standing
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.contribution import decode
from windfall.lowcomm.gradient import checked
from windfall.lowcomm.layout import Layout
from windfall.lowcomm.rotation import Rotation
from windfall.lowcomm.rule import Rule, Split
from windfall.lowcomm.sparse import Sparse
from windfall.lowcomm.wire import HEADER_BYTES, Header, head

Reason = Literal[
    "lease",
    "round",
    "base",
    "codec",
    "layout",
    "size",
    "digest",
    "not-finite",
    "tokens",
    "member",
    "rows",
    "canary",
    "norm",
    "replay",
    "shut-out",
    "signature",
]

MAX_TOKENS: Final = 2**40
"""More than a site can train in one round; a larger weight would let it own the model."""

LARGEST_LOSS: Final = 1e6

_CHUNK: Final = 128 * 1024
"""Elements looked at at a time."""
_TOLD_BYTES: Final = 16 * 1024
"""Of each chunk, what its digest reads."""


class Refusal(Exception):
    """A contribution does not pass, with the check that it failed and one line for a person."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


def check_manifest(manifest: pb.Manifest, state: Federation, policy: Policy, layout: Layout, rule: Rule) -> None:
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
    if standing(state, key.round, policy) is None:
        raise Refusal("round", f"round {key.round} takes nothing; the federation is {state.phase} at {state.round}")
    if policy.once and has_spoken(state, key.site, key.round):
        raise Refusal("round", f"{key.site} counts once in a round, and has contributed to {key.round} or after it")
    if manifest.base_digest != base_of(state, key.round):
        raise Refusal("base", "it was trained from another base")
    if manifest.codec not in (rule.codec.name, policy.alone_codec):
        raise Refusal("codec", f"codec {manifest.codec[:20]!r} is not the federation's {rule.codec.name!r}")
    _check_layout(manifest, layout)
    most = rule.most_bytes(Rotation(layout.split, state.fragments).split(key.round), manifest.codec)
    if not manifest.offset <= manifest.total_bytes <= most:
        raise Refusal("size", f"{manifest.total_bytes} bytes from {manifest.offset} are declared, at most {most} fit")
    if not (0 < manifest.tokens <= MAX_TOKENS and 0 < manifest.steps <= manifest.tokens):
        raise Refusal("tokens", f"{manifest.tokens} tokens in {manifest.steps} steps are not plausible")
    if not isfinite(manifest.loss) or abs(manifest.loss) > LARGEST_LOSS:
        raise Refusal("not-finite", "the loss is not a finite number")


@dataclass(frozen=True)
class Seen:
    """What was found in a contribution on the way through its values."""

    headers: tuple[Header, ...]
    """Of each part."""
    norm: float
    """Euclidean, of the part that gradients move."""
    content: str
    """What tells the values again under another round's name: SHA-256 of the payloads without their headers; of long
    ones, of how each chunk begins and how long its vector is, which a look at every value finds without reading twice.
    Whoever changes one value of what he repeats is not found by any digest."""


def check_content(path: Path, rule: Rule, elements: Split, manifest: pb.Manifest) -> Seen:
    """Hold a contribution that lies on disk against its manifest and against what a site may say: every value is
    looked at, once. Its SHA-256 has been checked.

    Raises:
        Refusal: it does not pass.
    """
    try:
        look = _look_at_chunks if manifest.codec in CODECS else _look_at_all
        seen = look(path, rule, elements, manifest.codec)
    except ValueError as error:
        raise Refusal("not-finite" if "NaN" in str(error) else "layout", str(error)) from error
    for header in seen.headers:
        said = (header.base, header.tokens, header.steps)
        if said != (manifest.key.round, manifest.tokens, manifest.steps):
            raise Refusal("tokens", f"its header says base, tokens and steps {said}, its manifest other numbers")
    return seen


def _look_at_all(path: Path, rule: Rule, elements: Split, codec: str) -> Seen:
    read = rule.payloads(path.read_bytes(), elements, whole=True, codec=codec)
    parts = [decode(header.codec, payload, header.elements) for header, payload in read]
    squares, content = 0.0, sha256()
    for _, payload in read:
        content.update(payload)
    for part, one in zip(elements.parts, parts, strict=True):
        if part.stop <= elements.trained:
            values = one.values if isinstance(one, Sparse) else one.numpy()
            squares += sum(_squares(values[start : start + _CHUNK]) for start in range(0, len(values), _CHUNK))
    return Seen(tuple(header for header, _ in read), sqrt(squares), content.hexdigest())


def _look_at_chunks(path: Path, rule: Rule, elements: Split, name: str) -> Seen:
    """Codecs that code every element alone are looked at in memory of one chunk."""
    headers, squares, content = [], 0.0, sha256()
    with path.open("rb") as file:
        for fragment, part in enumerate(elements.parts):
            header, size, _ = head(file.read(HEADER_BYTES), max_elements=part.stop - part.start)
            rule.check(header, fragment, elements, name)
            codec = CODECS[header.codec]
            if size != header.elements * codec.bytes_per_element:
                raise ValueError(f"part {fragment} has {size} bytes for {header.elements} elements")
            for start in range(0, header.elements, _CHUNK):
                count = min(_CHUNK, header.elements - start)
                encoded = file.read(count * codec.bytes_per_element)
                length = _squares(checked(codec.decode(encoded), count))
                content.update(encoded[:_TOLD_BYTES])
                content.update(pack("<d", length))
                if part.stop <= elements.trained:
                    squares += length
            headers.append(header)
        if file.read(1):
            raise ValueError("more bytes follow the last part")
    return Seen(tuple(headers), sqrt(squares), content.hexdigest())


def _squares(values: "np.ndarray[tuple[int], np.dtype[np.float32]]") -> float:
    """To some five digits: a chunk's sum of squares below 2¹⁰⁰ does not overflow in fp32, and is never in the model."""
    return float(np.dot(values, values))


def described(layout: Layout) -> list[pb.Tensor]:
    """A layout on the wire."""
    tensors = [
        pb.Tensor(name=spec.name, shape=spec.shape, dtype=spec.dtype, exact=spec.exact) for spec in layout.tensors
    ]
    return tensors + [pb.Tensor(name=name, tied_to=owner) for name, owner in layout.tied]


def _check_layout(manifest: pb.Manifest, layout: Layout) -> None:
    expected = described(layout)
    if len(manifest.tensors) != len(expected):
        raise Refusal("layout", f"{len(manifest.tensors)} tensors are declared, not {len(expected)}")
    for declared, tensor in zip(manifest.tensors, expected, strict=True):
        if declared != tensor:
            raise Refusal(
                "layout", f"tensor {declared.name[:60]!r} is not {tensor.name!r} {tensor.dtype}{tensor.shape}"
            )
