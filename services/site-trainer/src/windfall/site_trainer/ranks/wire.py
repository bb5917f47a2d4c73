"""Words between the trainer and its ranks: a length, then a JSON object. Never anything that could be run."""

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any, Final

MOST_BYTES: Final = 1 << 26
"""Of one word: a layout of some hundred thousand tensors."""
_LENGTH: Final = struct.Struct(">I")


def send(link: socket.socket, word: Mapping[str, object]) -> None:
    """Say a word.

    Raises:
        OSError: the other side is gone.
    """
    data = json.dumps(word).encode()
    link.sendall(_LENGTH.pack(len(data)) + data)


def receive(link: socket.socket) -> dict[str, Any] | None:
    """The next word; none when the other side is gone.

    Raises:
        ValueError: it is too long, or no JSON object.
    """
    head = _exactly(link, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MOST_BYTES:
        raise ValueError(f"a word of {length} bytes is longer than the {MOST_BYTES} that are taken")
    data = _exactly(link, length)
    if data is None:
        return None
    word = json.loads(data)
    if not isinstance(word, dict):
        raise ValueError(f"a word is a JSON object, not {type(word).__name__}")
    return word


def _exactly(link: socket.socket, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        try:
            part = link.recv(min(length - len(data), 1 << 20))
        except ConnectionError:
            return None
        if not part:
            return None
        data += part
    return bytes(data)
