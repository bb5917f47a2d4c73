"""The site's own key, which signs its ledger: made once, kept by the site alone."""

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from windfall.servicekit.errors import ExitCode, Mistake

KEY_FILE: Final = "site.key"
PUBLIC_FILE: Final = "site.pub"


def site_key(state_dir: Path, given: Path | None) -> Ed25519PrivateKey:
    """The private key that was given, or that of the state folder, which is made when it is not there.

    The public key is written beside it, to be handed to whoever shall check the ledger.

    Raises:
        Mistake: a file cannot be read or written, or holds no such key.
    """
    path = given or state_dir / KEY_FILE
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        if given is None and not path.exists():
            _make(path)
        key = _read(path)
        (state_dir / PUBLIC_FILE).write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    except OSError as error:
        raise Mistake(
            f"cannot use the ledger's key {path} ({error.strerror})",
            "Set WINDFALL_LEDGER_KEY_FILE to a file that this user may read, and own WINDFALL_STATE_DIR",
            ExitCode.RESOURCE,
        ) from error
    return key


def _make(path: Path) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    begun = path.with_name(f"{path.name}.new")
    begun.unlink(missing_ok=True)
    descriptor = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    begun.rename(path)


def _read(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        # The library's own words may quote the file.
        raise _no_key(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(path)
    return key


def _no_key(path: Path) -> Mistake:
    return Mistake(
        f"{path} holds no Ed25519 private key that can be read without a password",
        "Make one with `openssl genpkey -algorithm ed25519`, or remove the file to have one made",
        ExitCode.RESOURCE,
    )
