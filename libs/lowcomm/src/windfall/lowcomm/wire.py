"""A contribution as bytes: a self-describing, little-endian message of one fragment.

======  ====  ========  ==========================================================================================
offset  size  type      meaning
======  ====  ========  ==========================================================================================
0       4     bytes     magic, ``57 46 4C 43`` ("WFLC")
4       1     u8        version of this format, 1
5       1     u8        codec, one of ``CODEC_IDS``
6       2     u16       flags; none is defined, so 0
8       4     u32       fragment: which part of the model, counted from 0
12      4     u32       local steps behind the contribution
16      8     u64       elements of the fragment, at most ``MAX_ELEMENTS``
24      8     u64       base: version of the global model that the contribution started from
32      8     u64       tokens that the contribution was trained on
40      4     u32       bytes of payload, at most ``MAX_PAYLOAD_BYTES``
44      4     u32       CRC-32 (IEEE 802.3, as in zlib) of bytes 0 to 43 followed by the payload
48      …     bytes     payload, as its codec documents it; nothing may follow
======  ====  ========  ==========================================================================================

The checksum finds accidents, not attackers: whoever decodes bounds every length by what was received.
"""

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from windfall.lowcomm.codec import Buffer

MAGIC: Final = b"WFLC"
VERSION: Final = 1
MAX_ELEMENTS: Final = 2**31
MAX_PAYLOAD_BYTES: Final = 2**31

CODEC_IDS: Final[dict[str, int]] = {
    "fp32": 1,
    "bf16": 2,
    "int8-block": 3,
    "int4-block": 4,
    "q2-ef": 5,
    "topk-ef": 6,
    "dct-momentum": 7,
}
"""Numbers are for ever: a codec whose payload changes gets a new one."""

_NAMES: Final = {number: name for name, number in CODEC_IDS.items()}
_FIXED: Final = struct.Struct("<4sBBHIIQQQI")
_CRC: Final = struct.Struct("<I")
HEADER_BYTES: Final = _FIXED.size + _CRC.size


@dataclass(frozen=True)
class Header:
    """What a message says about its payload.

    Raises:
        ValueError: an unknown codec, or a number that is negative or too large for its field.
    """

    codec: str
    fragment: int
    elements: int
    base: int
    tokens: int
    steps: int

    def __post_init__(self) -> None:
        if self.codec not in CODEC_IDS:
            raise ValueError(f"unknown codec {self.codec!r}; known are {', '.join(CODEC_IDS)}")
        limits = {"fragment": 2**32 - 1, "elements": MAX_ELEMENTS, "base": 2**64 - 1, "tokens": 2**64 - 1}
        for name, limit in {**limits, "steps": 2**32 - 1}.items():
            if not 0 <= getattr(self, name) <= limit:
                raise ValueError(f"{name} is at least 0 and at most {limit}, not {getattr(self, name)}")


def compose(header: Header, payload: Buffer) -> bytes:
    """The message that ``parse`` reads.

    Raises:
        ValueError: the payload is longer than ``MAX_PAYLOAD_BYTES``.
    """
    size = memoryview(payload).nbytes
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload has at most {MAX_PAYLOAD_BYTES} bytes, not {size}")
    fixed = _FIXED.pack(
        MAGIC,
        VERSION,
        CODEC_IDS[header.codec],
        0,
        header.fragment,
        header.steps,
        header.elements,
        header.base,
        header.tokens,
        size,
    )
    return b"".join((fixed, _CRC.pack(zlib.crc32(payload, zlib.crc32(fixed))), payload))


def parse(message: Buffer, *, max_elements: int = MAX_ELEMENTS) -> tuple[Header, memoryview]:
    """Read a message without trusting it.

    Returns:
        Its header, and a read-only view of its payload (nothing is copied).

    Raises:
        ValueError: not such a message, damaged, cut short, followed by more, of an unknown version or codec, or of
            more elements than ``max_elements``.
    """
    header, payload, rest = split(message, max_elements=max_elements)
    if rest.nbytes:
        raise ValueError(
            f"the message announces {payload.nbytes} bytes of payload and has {payload.nbytes + rest.nbytes}"
        )
    return header, payload


def split(
    messages: Buffer, *, max_elements: int = MAX_ELEMENTS, whole: bool = False
) -> tuple[Header, memoryview, memoryview]:
    """Read the first of several messages that lie end to end, without trusting it.

    Args:
        whole: the bytes have been held against a cryptographic digest already, so their CRC is not looked at.

    Returns:
        Its header, a read-only view of its payload, and one of what follows it (nothing is copied).

    Raises:
        ValueError: as ``parse``, but that more may follow.
    """
    view = memoryview(messages).cast("B").toreadonly()
    header, size, expected = head(view, max_elements=max_elements)
    payload = view[HEADER_BYTES : HEADER_BYTES + size]
    if size != payload.nbytes:
        raise ValueError(f"the message announces {size} bytes of payload and has {payload.nbytes}")
    if not whole and (found := zlib.crc32(payload, zlib.crc32(view[: _FIXED.size]))) != expected:
        raise ValueError(f"the message is damaged: CRC-32 {found:08x}, not {expected:08x}")
    return header, payload, view[HEADER_BYTES + size :]


def head(message: Buffer, *, max_elements: int = MAX_ELEMENTS) -> tuple[Header, int, int]:
    """Read the header alone, for whoever reads a long payload piece by piece.

    Returns:
        The header, the bytes of payload that must follow, and the CRC-32 that it names.

    Raises:
        ValueError: as ``parse``, as far as a header shows it.
    """
    view = memoryview(message).cast("B")
    if view.nbytes < HEADER_BYTES:
        raise ValueError(f"a message has at least {HEADER_BYTES} bytes, not {view.nbytes}")
    magic, version, number, flags, fragment, steps, elements, base, tokens, size = _FIXED.unpack(view[: _FIXED.size])
    if magic != MAGIC:
        raise ValueError(f"a message begins with {MAGIC!r}, not with {magic!r}")
    if version != VERSION:
        raise ValueError(f"version {version} of the message format is unknown; this is version {VERSION}")
    if number not in _NAMES or flags:
        raise ValueError(f"codec {number} with flags {flags:#06x} is unknown")
    if elements > max_elements:
        raise ValueError(f"a fragment has at most {max_elements} elements, not {elements}")
    if size > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a payload has at most {MAX_PAYLOAD_BYTES} bytes, the message announces {size} bytes")
    (expected,) = _CRC.unpack(view[_FIXED.size : HEADER_BYTES])
    return Header(_NAMES[number], fragment, elements, base, tokens, steps), size, expected
