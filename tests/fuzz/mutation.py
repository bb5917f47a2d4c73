"""Bad bytes from good ones: flips, cuts, splices, numbers at their edges, and JSON with its parts exchanged."""

import json
import random
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final

from tests.spoil import REALS, TEXTS, WHOLE

_LONGEST: Final = 1 << 16
"""Bytes of an input: what grows with what it is given is met elsewhere, with its limits."""
_WORDS: Final = (
    *(text.encode() for text in TEXTS if len(text) < 2000),
    b"\x00",
    b"\xff" * 8,
    b"\xf0\x9f\x9c\x82",
    b"\xed\xa0\x80",
    b"[" * 3000,
    b"{'a':" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"1e999",
    b"-0",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b"\\ud800",
    b"2024-13-45",
    b"9999-12-31T23:59:59-23:59",
    b"0001-01-01T00:00:00+23:59",
    b"2024-06-30T23:59:60Z",
    b"!!python/object:os.system",
    b"!!timestamp 1",
    b"!!binary x",
    b"!!float a",
    b"!!int _",
    b"&a [*a]",
    b"? [a]\n: b\n",
    b"- ",
    b": ",
    b"\n---\n",
    b"\r\n\r\n",
    b",",
    b'"',
    b"'",
    b"=",
    b"@" * 100,
    b"0_0",
    b"0x10",
)
_VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    [],
    {},
    "",
    [[]],
    {"": None},
    *WHOLE,
    *(-number for number in WHOLE),
    10**400,
    *REALS,
    *(text for text in TEXTS if len(text) < 2000),
    "\ud800",
    "2024-13-45",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59",
    "P1D",
    "PT9999999999H",
)
_NUMBER: Final = re.compile(rb"-?\d+(?:\.\d+)?")


def mutated(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """One to four changes of an input, some with parts of others."""
    for _ in range(dice.choice((1, 1, 1, 2, 2, 4))):
        if dice.random() < 0.4 and (changed := _in_json(data, dice)) is not None:
            data = changed
        else:
            data = dice.choice(_CHANGES)(data, others, dice)
    return data[:_LONGEST]


def _flip(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    if not data:
        return b"\x00"
    place = dice.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << dice.randrange(8)]) + data[place + 1 :]


def _set(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    return data[:place] + bytes([dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))]) + data[place + 1 :]


def _cut(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _drop(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    begin, end = _span(data, dice)
    return data[:begin] + data[end:]


def _double(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    begin, end = _span(data, dice)
    return data[:end] + data[begin:end] * dice.choice((1, 1, 2, 30)) + data[end:]


def _insert(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    return data[:place] + dice.choice(_WORDS) + data[place:]


def _replace(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    begin, end = _span(data, dice)
    return data[:begin] + dice.choice(_WORDS) + data[end:]


def _splice(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    other = dice.choice(others)
    begin, end = _span(other, dice)
    place = dice.randrange(len(data) + 1)
    return data[:place] + other[begin:end] + data[place + (0 if dice.random() < 0.5 else end - begin) :]


def _whole(data: bytes, _: Sequence[bytes], dice: random.Random) -> bytes:
    """A little-endian or big-endian integer at its edges."""
    size = dice.choice((1, 2, 4, 8))
    number: int = dice.choice((*WHOLE, 2**64 - 2, len(data), len(data) + 1)) % (1 << (8 * size))
    place = dice.randrange(max(1, len(data) - size + 1))
    return data[:place] + number.to_bytes(size, dice.choice(("little", "big"))) + data[place + size :]


def _number(data: bytes, others: Sequence[bytes], dice: random.Random) -> bytes:
    """A number in text at its edges."""
    found = list(_NUMBER.finditer(data[:_LONGEST]))
    if not found:
        return _flip(data, others, dice)
    one = dice.choice(found)
    number = dice.choice((*map(str, WHOLE), *map(repr, REALS), "-1", "00", "1e400", "0x1", "1_0", "9" * 400))
    return data[: one.start()] + number.encode() + data[one.end() :]


_CHANGES: Final[tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...]] = (
    _flip,
    _flip,
    _set,
    _cut,
    _drop,
    _double,
    _insert,
    _replace,
    _splice,
    _whole,
    _whole,
    _number,
    _number,
)


def _span(data: bytes, dice: random.Random) -> tuple[int, int]:
    begin = dice.randrange(len(data) + 1)
    return begin, min(len(data), begin + dice.choice((1, 1, 2, 4, 8, 32, 200)))


def _in_json(data: bytes, dice: random.Random) -> bytes | None:
    """A JSON document with one part of it changed; none where the bytes are no JSON."""
    if data[:1] not in (b"{", b"["):
        return None
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    places = list(_places(document))
    if not places:
        return None
    inside, key = dice.choice(places)
    match dice.randrange(4):
        case 0:
            del inside[key]
        case 1 if isinstance(inside, dict):
            inside[dice.choice((f"{key}x", "", "x", "__class__", str(key).upper()))] = inside.pop(key)
        case 2:
            holder, other = dice.choice(places)
            inside[key] = json.loads(json.dumps(holder[other])) if other in _keys(holder) else None
        case _:
            inside[key] = dice.choice(_VALUES)
    return json.dumps(document).encode()


def _keys(holder: dict[str, Any] | list[Any]) -> Collection[Any]:
    return holder if isinstance(holder, dict) else range(len(holder))


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(node, dict | list):
        for key in list(_keys(node)):
            yield node, key
            yield from _places(node[key])
