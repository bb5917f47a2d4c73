"""Calls of gRPC in the bytes of an HTTP/2 connection without TLS (RFC 9113), headers by RFC 7541.

As gRPC's own client writes them: literals without Huffman coding, no compressed messages. Whatever else there is cannot
be decoded here, and is said.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.leaf_frames import Undecodable

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, _PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
_END_HEADERS, _PADDED, _PRIORITY = 0x4, 0x8, 0x20

_STATIC: Final = (
    *((":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html")),
    *((":scheme", "http"), (":scheme", "https")),
    *((":status", code) for code in ("200", "204", "206", "304", "400", "404", "500")),
    *(("accept-charset", ""), ("accept-encoding", "gzip, deflate")),
    *(
        (name, "")
        for name in (
            *("accept-language", "accept-ranges", "accept", "access-control-allow-origin", "age", "allow"),
            *("authorization", "cache-control", "content-disposition", "content-encoding", "content-language"),
            *("content-length", "content-location", "content-range", "content-type", "cookie", "date", "etag"),
            *("expect", "expires", "from", "host", "if-match", "if-modified-since", "if-none-match", "if-range"),
            *("if-unmodified-since", "last-modified", "link", "location", "max-forwards", "proxy-authenticate"),
            *("proxy-authorization", "range", "referer", "refresh", "retry-after", "server", "set-cookie"),
            *("strict-transport-security", "transfer-encoding", "user-agent", "vary", "via", "www-authenticate"),
        )
    ),
)
"""RFC 7541, appendix A."""


@dataclass
class Stream:
    """One direction of one call."""

    headers: list[tuple[str, str]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    reset: bool = False

    def messages(self) -> Iterator[bytes]:
        """Every message that went over it (length-prefixed, gRPC over HTTP/2).

        Raises:
            Undecodable: a compressed one, or one that is cut although the call was not.
        """
        at = 0
        while at < len(self.data):
            size = int.from_bytes(self.data[at + 1 : at + 5], "big")
            whole = bytes(self.data[at + 5 : at + 5 + size])
            if len(whole) < size or at + 5 > len(self.data):
                if self.reset:
                    # Cut in the middle: its bytes are searched, though they cannot be read.
                    return
                raise Undecodable(f"a message of {size} bytes is cut at {len(whole)}")
            if self.data[at]:
                raise Undecodable("a compressed message")
            yield whole
            at += 5 + size


def streams(data: bytes, *, client: bool) -> dict[int, Stream]:
    """Every call of a connection, as one side of it spoke.

    Raises:
        Undecodable: there is something else.
    """
    if client:
        if not data.startswith(PREFACE):
            raise Undecodable(f"no HTTP/2: {data[:40]!r}")
        data = data[len(PREFACE) :]
    found: dict[int, Stream] = {}
    table = Table()
    block, at = bytearray(), 0
    while at + 9 <= len(data):
        size, kind, flags = int.from_bytes(data[at : at + 3], "big"), data[at + 3], data[at + 4]
        number = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        if kind not in (DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION):
            raise Undecodable(f"a frame of kind {kind} at byte {at}")
        payload = data[at + 9 : at + 9 + size]
        at += 9 + size
        if len(payload) < size:
            # The connection ended in the middle of a frame.
            for stream in found.values():
                stream.reset = True
            break
        stream = found.setdefault(number, Stream())
        if kind == DATA:
            stream.data += _unpadded(payload, flags)
        elif kind in (HEADERS, CONTINUATION):
            if kind == HEADERS:
                payload = _unpadded(payload, flags)
                block = bytearray(payload[5:] if flags & _PRIORITY else payload)
            else:
                block += payload
            if flags & _END_HEADERS:
                stream.headers += table.read(bytes(block))
        elif kind == RST:
            stream.reset = True
        elif kind == GOAWAY:
            stream.headers.append(("goaway", payload[8:].decode()))
    if at < len(data):
        raise Undecodable(f"no frame at byte {at}: {data[at : at + 40]!r}")
    return {number: stream for number, stream in found.items() if number or stream.headers}


def _unpadded(payload: bytes, flags: int) -> bytes:
    return payload[1 : len(payload) - payload[0]] if flags & _PADDED else payload


class Table:
    """The dynamic table of one direction."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str]] = []
        self._most = 4096

    def read(self, block: bytes) -> list[tuple[str, str]]:
        """The headers of a block."""
        found, at = [], 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 7)
                found.append(self._entry(index))
            elif first & 0xE0 == 0x20:
                self._most, at = _integer(block, at, 5)
                self._fit()
            else:
                kept = bool(first & 0x40)
                index, at = _integer(block, at, 6 if kept else 4)
                if index:
                    name = self._entry(index)[0]
                else:
                    name, at = _text(block, at)
                value, at = _text(block, at)
                found.append((name, value))
                if kept:
                    self._entries.insert(0, (name, value))
                    self._fit()
        return found

    def _entry(self, index: int) -> tuple[str, str]:
        entries = (*_STATIC, *self._entries)
        if not 1 <= index <= len(entries):
            raise Undecodable(f"header {index} of {len(entries)}")
        return entries[index - 1]

    def _fit(self) -> None:
        while sum(len(name) + len(value) + 32 for name, value in self._entries) > self._most:
            self._entries.pop()


def _integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    most = (1 << bits) - 1
    value, at = block[at] & most, at + 1
    if value < most:
        return value, at
    shift = 0
    while True:
        byte, at = block[at], at + 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _text(block: bytes, at: int) -> tuple[str, int]:
    huffman = block[at] & 0x80
    size, at = _integer(block, at, 7)
    if huffman:
        raise Undecodable("a header in Huffman code")
    return block[at : at + size].decode("latin-1"), at + size
