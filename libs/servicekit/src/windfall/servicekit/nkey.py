"""An nkey of a NATS user: an Ed25519 key as https://github.com/nats-io/nkeys writes it, base32 with a prefix that
says what it is and a CRC-16 (XMODEM) at the end.

The public key (U…) stands in a server's configuration; the seed (SU…) lies in a file and never travels.
"""

import binascii
from base64 import b32decode, b32encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from windfall.servicekit.errors import ExitCode, Mistake

_SEED: Final = 18 << 3
_USER: Final = 20 << 3
_LENGTH: Final = 36
"""Of a seed: two bytes of prefix, 32 of key, two of checksum."""
_PUBLIC: Final = 35
_PUBLIC_LETTERS: Final = 56


@dataclass(frozen=True)
class Nkey:
    """One key. It does not show its seed."""

    _key: Ed25519PrivateKey = field(repr=False)

    @property
    def public(self) -> str:
        """What the server knows it by."""
        return _written(bytes([_USER]) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        """What is kept from everybody else."""
        prefix = bytes([_SEED | _USER >> 5, (_USER & 0x1F) << 3])
        return _written(prefix + self._key.private_bytes_raw())

    def sign(self, nonce: bytes) -> bytes:
        return self._key.sign(nonce)


def new() -> Nkey:
    return Nkey(Ed25519PrivateKey.generate())


def is_public(text: str) -> bool:
    """Whether that is a user's public key, its checksum too: a server takes no configuration with a wrong one."""
    if len(text) != _PUBLIC_LETTERS:
        return False
    try:
        raw = b32decode(text)
    except ValueError:
        return False
    return len(raw) == _PUBLIC and raw[0] == _USER and _written(raw[:-2]) == text


def read(path: Path) -> Nkey:
    """The key whose seed a file holds.

    Raises:
        Mistake: it cannot be read, or holds no seed of a user.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(
            f"cannot read the nkey seed {path} ({error})",
            "Set WINDFALL_NATS_NKEY_FILE to a file that this user may read",
            ExitCode.RESOURCE,
        ) from error
    try:
        raw = b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raw = b""
    whole = len(raw) == _LENGTH and binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little") == raw[-2:]
    if not whole or raw[0] & 0xF8 != _SEED or (raw[0] & 7) << 5 | raw[1] >> 3 != _USER:
        raise Mistake(
            f"{path} holds no seed of a NATS user, which begins with SU",
            "Write there what `windfall nkeys` makes, or the first line of `nk -gen user`",
            ExitCode.RESOURCE,
        )
    return Nkey(Ed25519PrivateKey.from_private_bytes(raw[2:-2]))


def _written(raw: bytes) -> str:
    return b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")
