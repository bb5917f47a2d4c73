"""Contributions and the outer log: what every codec says, with checksums that are put right."""

import struct
import zlib
from collections.abc import Sequence
from functools import cache, partial
from typing import Final

import torch

from tests.fuzz.target import Place, Target
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import Refusal, check_content
from windfall.lowcomm import contribution
from windfall.lowcomm.compressor import COMPRESSORS
from windfall.lowcomm.layout import Split, digest
from windfall.lowcomm.mergedform import merged_form, read_merged
from windfall.lowcomm.outerlog import Accepted, read, replay, write_entry
from windfall.lowcomm.rule import Rule, Said
from windfall.lowcomm.wire import HEADER_BYTES

_SPLIT: Final = Split(600, 5)
_HEADER: Final = struct.Struct("<4sBBHIIQQQI")
_CRC: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<4sBBHQ32s32sI")
_place: Final = Place()


def _vector(seed: int) -> torch.Tensor:
    return torch.randn(_SPLIT.elements, generator=torch.Generator().manual_seed(seed))


@cache
def _said(codec: str, seed: int = 1) -> bytes:
    rule = Rule.parse(codec)
    state = rule.codec.init(_SPLIT.trained)
    return rule.encode(state, _vector(seed), _SPLIT, base=3, tokens=800, steps=4)[1]


@cache
def _first_part(codec: str) -> bytes:
    data = _said(codec)
    size = _HEADER.unpack(data[: _HEADER.size])[-1]
    return data[: HEADER_BYTES + size]


def _sealed(data: bytes) -> bytes:
    """The length and the CRC of each message are what its bytes give."""
    found, rest = list[bytes](), data
    while len(rest) >= HEADER_BYTES:
        size = _HEADER.unpack(rest[: _HEADER.size])[-1]
        payload = rest[HEADER_BYTES : HEADER_BYTES + size] if size <= len(rest) - HEADER_BYTES else rest[HEADER_BYTES:]
        fixed = rest[: _HEADER.size - 4] + len(payload).to_bytes(4, "little")
        found += [fixed, _CRC.pack(zlib.crc32(payload, zlib.crc32(fixed))), payload]
        rest = rest[HEADER_BYTES + len(payload) :]
    return b"".join((*found, rest))


def _of_codec(codec: str) -> Target:
    return Target(
        f"contribution {codec}",
        partial(_both, codec),
        lambda data: contribution.read(data, max_elements=_SPLIT.elements),
        (ValueError,),
        _sealed,
    )


def _both(codec: str) -> Sequence[bytes]:
    return [_first_part(codec)]


def _content(codec: str) -> Target:
    """As the coordinator looks at what lies on its disk."""
    rule = Rule.parse(codec)
    manifest = pb.Manifest(key=pb.ContributionKey(round=3), tokens=800, steps=4, codec=rule.codec.name)
    return Target(
        f"contribution on disk {codec}",
        lambda: [_said(codec), _said(codec, 2)],
        lambda data: check_content(_place.holding(data), rule, _SPLIT, manifest),
        (Refusal,),
        _sealed,
    )


_RULE: Final = Rule.parse("int8-block", "nesterov:lr=0.7,momentum=0.9")


@cache
def _log(merged: bool) -> bytes:
    """Two rounds of two sites."""
    state, base, found = _RULE.init(_SPLIT), torch.zeros(_SPLIT.elements), list[bytes]()
    for number in range(2):
        accepted, said = [], []
        for site in "ab":
            feedback = _RULE.codec.init(_SPLIT.trained)
            data = _RULE.encode(feedback, _vector(number * 2 + ord(site)), _SPLIT, base=number, tokens=9, steps=3)[1]
            accepted.append(Accepted.of(site, 1, 9.0, data))
            said.append(Said(site, 1, 9.0, _RULE.decode(data, _SPLIT)[1]))
        form = _RULE.merge(said, _SPLIT)
        before = digest(base)
        state, base = _RULE.step(state, base, form, _SPLIT)
        found.append(write_entry(number, before, digest(base), accepted, merged_form(form, _SPLIT) if merged else None))
    return b"".join(found)


def _entry_sealed(data: bytes) -> bytes:
    """The CRC of the first entry's list is what its bytes give."""
    if len(data) < _ENTRY.size + _CRC.size:
        return data
    fixed, rest = data[: _ENTRY.size], data[_ENTRY.size + _CRC.size :]
    listed = rest[: _ENTRY.unpack(fixed)[-1]]
    return b"".join((fixed, _CRC.pack(zlib.crc32(listed, zlib.crc32(fixed))), rest))


def _followed(data: bytes) -> object:
    """As a trainer follows it."""
    base = torch.zeros(_SPLIT.elements)
    return replay(_RULE, _SPLIT, _RULE.init(_SPLIT), base, read(data, _SPLIT))


@cache
def _merged() -> bytes:
    rule = Rule.parse("topk-ef")
    said = [Said(site, 1, 9.0, rule.decode(_said("topk-ef", seed), _SPLIT)[1]) for seed, site in enumerate("ab")]
    return merged_form(rule.merge(said, _SPLIT), _SPLIT)


TARGETS: Final = (
    *(_of_codec(codec) for codec in COMPRESSORS),
    *(_content(codec) for codec in COMPRESSORS),
    Target("outer log", lambda: [_log(False), _log(True)], _followed, (ValueError,), _entry_sealed),
    Target("merged form", lambda: [_merged()], lambda data: read_merged(data, _SPLIT), (ValueError,)),
)
