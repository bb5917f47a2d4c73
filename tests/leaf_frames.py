"""What goes over a leaf connection of NATS, frame by frame, as far as a nats-server 2.10 to 2.15 speaks.

``CONNECT`` and ``INFO`` carry JSON; ``LS+`` and ``LS-`` say which subjects are of interest; ``LMSG`` carries a message
and ``HMSG`` one with headers (their length comes before the whole length). Compression must be off.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field


class Undecodable(Exception):
    """These bytes are no frame; the text says where."""


@dataclass(frozen=True)
class Frame:
    """One frame. ``subject`` of messages and of interest, ``body`` of messages or the JSON of the others."""

    operation: str
    subject: str = ""
    reply: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    status: str = ""
    """What stands behind ``NATS/1.0``."""
    body: bytes = b""


def frames(data: bytes) -> Iterator[Frame]:
    """Every frame of one direction.

    Raises:
        Undecodable: there is something else.
    """
    at = 0
    while at < len(data):
        end = data.find(b"\r\n", at)
        if end < 0:
            raise Undecodable(f"no frame at byte {at}: {data[at : at + 60]!r}")
        words = data[at:end].decode().split(" ", 1)
        operation, rest = words[0].upper(), words[1].strip() if len(words) > 1 else ""
        start, at = at, end + 2
        if operation in ("PING", "PONG", "+OK"):
            yield Frame(operation)
        elif operation in ("CONNECT", "INFO"):
            yield Frame(operation, body=rest.encode())
        elif operation in ("LS+", "LS-"):
            yield Frame(operation, rest.split(" ")[0])
        elif operation in ("LMSG", "HMSG"):
            frame, at = _message(operation, rest, data, at)
            yield frame
        else:
            raise Undecodable(f"no frame at byte {start}: {data[start : start + 60]!r}")


def _message(operation: str, rest: str, data: bytes, at: int) -> tuple[Frame, int]:
    words = rest.split()
    sizes = 2 if operation == "HMSG" else 1
    numbers, subject = [int(size) for size in words[-sizes:]], words[0]
    if len(words) > sizes + 2:
        raise Undecodable(f"a message to queues: {rest!r}")
    reply = words[1] if len(words) == sizes + 2 else ""
    total, head = numbers[-1], numbers[0] if operation == "HMSG" else 0
    whole = data[at : at + total]
    if len(whole) != total or data[at + total : at + total + 2] != b"\r\n":
        raise Undecodable(f"a message of {total} bytes is cut: {rest!r}")
    headers, status = _headers(whole[:head])
    return Frame(operation, subject, reply, headers, status, whole[head:]), at + total + 2


def _headers(block: bytes) -> tuple[dict[str, str], str]:
    if not block:
        return {}, ""
    first, *lines = block.decode().rstrip("\r\n").split("\r\n")
    if not first.startswith("NATS/1.0"):
        raise Undecodable(f"no headers: {block[:60]!r}")
    pairs = [line.split(":", 1) for line in lines]
    return {name.lower(): value.strip() for name, value in pairs}, first.removeprefix("NATS/1.0").strip()
