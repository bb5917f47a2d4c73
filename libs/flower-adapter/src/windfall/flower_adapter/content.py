"""A message's content as a header and a body, and back: nothing of it is evaluated or unpickled.

The header is JSON: the records in their order, each with its kind, its name and its entries. Numbers, texts and lists
of them stand in it. Bytes do not: an array is a line that says its type, shape, encoding and length, a config value
that is bytes is its length, and the body holds those bytes end to end, in the order of the header.

What is read was written by somebody else: lengths must add up to the body's, every array must be what it says
(``arrays.check``), and Flower's own records refuse values of types that they do not hold.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from windfall.flower_adapter.arrays import LITTLE_ENDIAN, NarrowArray, check, recorded, stated

HEADER_BYTES: Final = 2 * 1024 * 1024
"""The longest header: gRPC messages end at 4 MiB."""
_ARRAYS, _METRICS, _CONFIG = "arrays", "metrics", "config"


class Unreadable(ValueError):
    """A header or a body that is not a content; the text says why in one line."""


@dataclass(frozen=True)
class Packed:
    """A content on its way."""

    header: bytes
    pieces: tuple[bytes, ...]
    """The body, in order, where it lies in memory."""

    @property
    def body_bytes(self) -> int:
        return sum(map(len, self.pieces))


def pack(content: RecordDict) -> Packed:
    """Take a content apart. Bodies are not copied.

    Raises:
        ValueError: the header is too long: too many or too long texts and lists in configs and metrics; or an array
            that does not state its type has none.
    """
    pieces: list[bytes] = []
    records = [_packed(name, record, pieces) for name, record in content.items()]
    header = json.dumps(records, separators=(",", ":")).encode()
    if len(header) > HEADER_BYTES:
        raise ValueError(f"a message's header has {len(header)} bytes, at most {HEADER_BYTES} travel; use arrays")
    return Packed(header, tuple(pieces))


def unpack(header: bytes, body: memoryview | bytes) -> RecordDict:
    """Put a content together; its arrays have memory of their own.

    Raises:
        Unreadable: it is none.
    """
    content = RecordDict()
    with memoryview(body) as view:
        reader = _Reader(view)
        try:
            for kind, name, entries in _lines(header):
                content[name] = reader.record(kind, entries)
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise Unreadable(f"not a message's content: {str(error)[:200] or type(error).__name__}") from error
        reader.end()
    return content


def _packed(name: str, record: Any, pieces: list[bytes]) -> list[Any]:
    if isinstance(record, ArrayRecord):
        pieces.extend(array.data for array in record.values())
        arrays = ((key, stated(key, array)) for key, array in record.items())
        lines = [[key, a.dtype, list(a.shape), a.stype, len(a.data)] for key, a in arrays]
        return [_ARRAYS, name, lines]
    if isinstance(record, MetricRecord):
        return [_METRICS, name, dict(record)]
    return [_CONFIG, name, {key: _packed_value(value, pieces) for key, value in record.items()}]


def _packed_value(value: Any, pieces: list[bytes]) -> Any:
    if isinstance(value, bytes):
        pieces.append(value)
        return {"bytes": len(value)}
    if isinstance(value, list):
        return [_packed_value(one, pieces) for one in value]
    return value


def _lines(header: bytes) -> Iterator[tuple[str, str, Any]]:
    if len(header) > HEADER_BYTES:
        raise ValueError(f"a header of {len(header)} bytes")
    try:
        records = json.loads(header)
    except RecursionError as error:
        raise ValueError("a header that is nested too deep") from error
    if not isinstance(records, list):
        raise TypeError("the header is no list")
    for line in records:
        kind, name, entries = line
        yield kind, name, entries


class _Reader:
    """Takes the body's bytes in the order in which the header names them."""

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._at = 0

    def record(self, kind: str, entries: Any) -> ArrayRecord | MetricRecord | ConfigRecord:
        if kind == _ARRAYS:
            return recorded(dict(self._array(*line) for line in entries))
        if kind == _METRICS:
            return MetricRecord(dict(entries))
        if kind == _CONFIG:
            return ConfigRecord({key: self._value(value) for key, value in entries.items()})
        raise ValueError(f"a record of kind {str(kind)[:40]!r}")

    def end(self) -> None:
        if self._at != len(self._body):
            raise Unreadable(f"a body of {len(self._body)} bytes, of which the header names {self._at}")

    def _array(self, name: str, dtype: str, shape: list[int], stype: str, nbytes: int) -> tuple[str, Array]:
        if any(isinstance(size, bool) or not isinstance(size, int) for size in shape):
            raise ValueError("a shape that is not made of whole numbers")
        kind = NarrowArray if stype == LITTLE_ENDIAN else Array
        array = kind(dtype=dtype, shape=tuple(shape), stype=stype, data=self._take(nbytes))
        check(name, array)
        return name, array

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._take(value["bytes"])
        if isinstance(value, list):
            return [self._value(one) for one in value]
        return value

    def _take(self, nbytes: int) -> bytes:
        if isinstance(nbytes, bool) or not isinstance(nbytes, int) or not 0 <= nbytes <= len(self._body) - self._at:
            raise ValueError(f"{str(nbytes)[:20]} bytes where {len(self._body) - self._at} are left")
        start, self._at = self._at, self._at + nbytes
        return bytes(self._body[start : self._at])
