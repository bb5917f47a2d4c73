"""A round as bytes: what its sites said, for whoever holds the base that it started from.

A log is one entry per round, end to end, oldest first. An entry names the base that it starts from and the model that
it gives, lists the accepted contributions in the order in which they merge, and carries either their messages or what
these say together. The receiver's own messages need not come back to it.

Entry, little-endian; ``n`` contributions:

======  ====  ========  ==========================================================================================
offset  size  type      meaning
======  ====  ========  ==========================================================================================
0       4     bytes     magic, ``57 46 4F 4C`` ("WFOL")
4       1     u8        version of this format, 1
5       1     u8        form: 0 messages, 1 merged
6       2     u16       ``n``, at least 1
8       8     u64       round, larger than that of the entry before
16      32    bytes     SHA-256 of the base (``windfall.lowcomm.layout.digest``)
48      32    bytes     SHA-256 of the model that the round gives
80      4     u32       bytes of the list
84      4     u32       CRC-32 (IEEE 802.3, as in zlib) of bytes 0 to 83 followed by the list
88      …     list      ``n`` contributions in the order in which they merge, by (site, attempt), as below; two of
                        one attempt, of which one was late, differ in their messages
…       …     bytes     form 0: every message that follows, in the order of the list; form 1: the merged section
======  ====  ========  ==========================================================================================

A contribution in the list:

======  ====  ========  ==========================================================================================
0       1     u8        ``s``, bytes of the site's name, 1 to 63
1       1     u8        1 when its message follows, 0 when the receiver holds it or the form is merged
2       4     u32       attempt
6       8     f64       weight: tokens, less what staleness takes; from 2⁻⁶⁴ to 2⁶⁴
14      32    bytes     SHA-256 of its message
46      4     u32       bytes of its message
50      s     utf-8     the site's name
======  ====  ========  ==========================================================================================

A message is what ``Rule.encode`` wrote: a message of ``windfall.lowcomm.wire`` per part. The merged section is the
length (u64) and the SHA-256 (32 bytes) of what follows, which is ``windfall.lowcomm.mergedform``.

Whoever reads bounds every length by what was received, the rest by the model. The checksum finds accidents in the
list, the digests any change of what it lists; a log from a stranger needs a signature, which this format leaves to
the channel.
"""

import hashlib
import struct
import zlib
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.layout import Split
from windfall.lowcomm.mergedform import read_merged
from windfall.lowcomm.rotation import Rotation, rotation
from windfall.lowcomm.sparse import Contribution

MAGIC: Final = b"WFOL"
VERSION: Final = 1
MAX_SITE_BYTES: Final = 63
WEIGHTS: Final = (2.0**-64, 2.0**64)

_MESSAGES, _MERGED = 0, 1
_FIXED: Final = struct.Struct("<4sBBHQ32s32sI")
_CRC: Final = struct.Struct("<I")
_LISTED: Final = struct.Struct("<BBId32sI")
MERGED_HEAD: Final = struct.Struct("<Q32s")


@dataclass(frozen=True)
class Accepted:
    """A contribution that a round counted. ``message`` is what ``Rule.encode`` wrote, or none when the receiver holds
    it or gets the merged form.

    Raises:
        ValueError: something does not fit the format.
    """

    site: str
    attempt: int
    tokens: float
    sha256: str
    nbytes: int
    message: Buffer | None

    def __post_init__(self) -> None:
        if not 1 <= len(self.site.encode()) <= MAX_SITE_BYTES:
            raise ValueError(f"a site's name has 1 to {MAX_SITE_BYTES} bytes, not {len(self.site.encode())}")
        if not self.site.isprintable():
            raise ValueError(f"a site's name is printable, unlike {self.site!r}")
        if not (0 <= self.attempt < 2**32 and 0 <= self.nbytes < 2**32):
            raise ValueError(f"attempt {self.attempt} or {self.nbytes} bytes are negative or do not fit 32 bits")
        if not WEIGHTS[0] <= self.tokens <= WEIGHTS[1]:
            raise ValueError(f"a weight is from 2^-64 to 2^64 tokens, not {self.tokens}")

    @classmethod
    def of(cls, site: str, attempt: int, tokens: float, message: Buffer) -> "Accepted":
        """The contribution with this message."""
        view = memoryview(message)
        return cls(site, attempt, tokens, hashlib.sha256(view).hexdigest(), view.nbytes, message)

    @property
    def order(self) -> tuple[str, int]:
        """As ``Said.order``."""
        return (self.site, self.attempt)


@dataclass(frozen=True, eq=False)
class Entry:
    """A round as it stands in a log; ``base`` and ``model`` are digests in hexadecimal."""

    round: int
    base: str
    model: str
    contributions: tuple[Accepted, ...]
    merged: tuple[Contribution, ...] | None
    """What ``Rule.merge`` gave, part by part, when the entry carries that instead of messages."""


def write_entry(
    number: int, base: str, model: str, contributions: Sequence[Accepted], merged: Buffer | None = None
) -> bytes:
    """One round, with the messages that its contributions have, or with the bytes of ``merged_form`` instead of all.

    Args:
        base: digest of the model that the round started from, in hexadecimal.
        model: of the one that it gave.

    Raises:
        ValueError: no contributions, one of them twice, a digest that is none, or a number too large.
    """
    ordered = sorted(contributions, key=lambda one: one.order)
    _check_order(ordered)
    bodies: list[Buffer] = []
    if merged is not None:
        bodies = [MERGED_HEAD.pack(memoryview(merged).nbytes, hashlib.sha256(merged).digest()), merged]
    else:
        bodies = [one.message for one in ordered if one.message is not None]
    form = _MESSAGES if merged is None else _MERGED
    listed = [(one, merged is None and one.message is not None) for one in ordered]
    return b"".join((_head(number, base, model, form, listed), *bodies))


def entry_head(
    number: int, base: str, model: str, contributions: Sequence[Accepted], held: Container[str] = ()
) -> bytes:
    """One round without its messages, for whoever writes those behind it from where they lie: in the order of
    ``Accepted.order``, each but the ones of these SHA-256.

    Raises:
        ValueError: as ``write_entry``.
    """
    ordered = sorted(contributions, key=lambda one: one.order)
    _check_order(ordered)
    return _head(number, base, model, _MESSAGES, [(one, one.sha256 not in held) for one in ordered])


def read(log: Buffer, elements: Split | Rotation) -> Iterator[Entry]:
    """Every entry of a log about a vector of ``elements``, or about its fragments in turn, without trusting it.

    Messages are read-only views of the log; a merged form takes memory for one model at most.

    Raises:
        ValueError: not a log, damaged, cut short, of an unknown version, or about another vector. Entries before the
            one at fault have been given by then.
    """
    rest = memoryview(log).cast("B").toreadonly()
    before, fragments = -1, rotation(elements)
    while rest.nbytes:
        entry, rest = _read_entry(rest, fragments)
        if entry.round <= before:
            raise ValueError(f"round {entry.round} stands behind round {before} in the log")
        before = entry.round
        yield entry


def _head(number: int, base: str, model: str, form: int, contributions: Sequence[tuple[Accepted, bool]]) -> bytes:
    listed = b"".join(_listed(one, follows=follows) for one, follows in contributions)
    if not 0 <= number < 2**64 or len(listed) >= 2**32:
        raise ValueError(f"round {number} or a list of {len(listed)} bytes does not fit an entry")
    count = len(contributions)
    fixed = _FIXED.pack(MAGIC, VERSION, form, count, number, _digest(base), _digest(model), len(listed))
    return b"".join((fixed, _CRC.pack(zlib.crc32(listed, zlib.crc32(fixed))), listed))


def _read_entry(log: memoryview, fragments: Rotation) -> tuple[Entry, memoryview]:
    fixed, rest = _taken(log, _FIXED.size)
    crc, rest = _taken(rest, _CRC.size)
    magic, version, form, count, number, base, model, size = _FIXED.unpack(fixed)
    if magic != MAGIC:
        raise ValueError(f"an entry begins with {MAGIC!r}, not with {magic!r}")
    if version != VERSION or form not in (_MESSAGES, _MERGED):
        raise ValueError(f"version {version}, form {form} of an entry is unknown; this is version {VERSION}")
    listed, rest = _taken(rest, size)
    (expected,) = _CRC.unpack(crc)
    if (found := zlib.crc32(listed, zlib.crc32(fixed))) != expected:
        raise ValueError(f"the list of round {number} is damaged: CRC-32 {found:08x}, not {expected:08x}")
    contributions = []
    for _ in range(count):
        one, follows, listed = _read_listed(listed)
        if follows and form == _MERGED:
            raise ValueError(f"round {number} is merged, and yet {one.site}'s message is to follow")
        if follows:
            message, rest = _taken(rest, one.nbytes)
            one = replace(one, message=message)
        contributions.append(one)
    if listed.nbytes:
        raise ValueError(f"{listed.nbytes} bytes follow the list of round {number}")
    _check_order(contributions)
    merged = None
    if form == _MERGED:
        head, rest = _taken(rest, MERGED_HEAD.size)
        length, sha256 = MERGED_HEAD.unpack(head)
        section, rest = _taken(rest, length)
        if hashlib.sha256(section).digest() != sha256:
            raise ValueError(f"the merged form of round {number} does not have its SHA-256")
        merged = read_merged(section, fragments.split(number))
    return Entry(number, base.hex(), model.hex(), tuple(contributions), merged), rest


def _read_listed(listed: memoryview) -> tuple[Accepted, bool, memoryview]:
    head, rest = _taken(listed, _LISTED.size)
    length, follows, attempt, tokens, sha256, nbytes = _LISTED.unpack(head)
    name, rest = _taken(rest, length)
    if follows > 1:
        raise ValueError(f"a message follows (1) or does not (0), not {follows}")
    # A name that is not UTF-8 raises UnicodeDecodeError, which is a ValueError of one line.
    return Accepted(str(name, "utf-8"), attempt, tokens, sha256.hex(), nbytes, None), bool(follows), rest


def _listed(one: Accepted, *, follows: bool) -> bytes:
    name = one.site.encode()
    if one.message is not None and memoryview(one.message).nbytes != one.nbytes:
        raise ValueError(f"{one.site}'s message has {memoryview(one.message).nbytes} bytes, not {one.nbytes}")
    return _LISTED.pack(len(name), follows, one.attempt, one.tokens, _digest(one.sha256), one.nbytes) + name


def _check_order(contributions: Sequence[Accepted]) -> None:
    if not 1 <= len(contributions) < 2**16:
        raise ValueError(f"a round has 1 to 65535 contributions, not {len(contributions)}")
    for one, following in pairwise(contributions):
        if one.order > following.order or (one.order, one.sha256) == (following.order, following.sha256):
            raise ValueError(f"{following.site}, attempt {following.attempt} is listed twice or out of order")


def _digest(hexadecimal: str) -> bytes:
    raw = bytes.fromhex(hexadecimal)
    if len(raw) != 32:
        raise ValueError(f"a SHA-256 has 64 hexadecimal digits, not {len(hexadecimal)}")
    return raw


def _taken(view: memoryview, size: int) -> tuple[memoryview, memoryview]:
    if size > view.nbytes:
        raise ValueError(f"the log is cut short: {size} bytes expected, {view.nbytes} left")
    return view[:size], view[size:]
