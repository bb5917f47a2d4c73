"""Bulk bytes as protobuf lays them out on the wire, past protobuf itself.

A message whose one field is ``bytes`` is that field's tag, the length as a varint and the bytes
(https://protobuf.dev/programming-guides/encoding/). The generated code copies them into a message and out of it once
more at either end, which is a third of what a gigabyte over gRPC costs; these are the same messages without that.
"""

from typing import Final

AT_ONCE_BYTES: Final = 1024 * 1024
"""What may be sent without being asked for. More waits for its turn."""

INVITED: Final = "windfall-invited"
"""Key of the initial metadata by which somebody asks for the bytes of a call; what is refused gets none."""

_LENGTH_DELIMITED: Final = 2
_HIGHEST_NUMBER: Final = 15
"""Field numbers up to here have a tag of one byte."""
_LONGEST_VARINT: Final = 5
"""Bytes of a length below 2³⁵: more than any message may have."""


def framed(number: int, data: bytes | bytearray | memoryview) -> bytes:
    """The message in which field ``number`` is ``data`` and nothing else is set. One copy."""
    return b"".join((_tag(number), _varint(memoryview(data).nbytes), data))


def unframed(number: int, message: bytes) -> memoryview | None:
    """The bytes in a message that is field ``number`` and nothing else, as a view of it; none when it is anything else,
    which protobuf then reads."""
    if message[:1] != _tag(number):
        return None
    length = 0
    for place, byte in enumerate(message[1 : 1 + _LONGEST_VARINT]):
        length |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            data = memoryview(message)[place + 2 :]
            return data if data.nbytes == length else None
    return None


def _tag(number: int) -> bytes:
    if not 0 < number <= _HIGHEST_NUMBER:
        raise ValueError(f"a field number between 1 and {_HIGHEST_NUMBER} is due, not {number}")
    return bytes((number << 3 | _LENGTH_DELIMITED,))


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
