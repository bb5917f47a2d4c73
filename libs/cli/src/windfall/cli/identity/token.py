"""A one-time token as a person carries it: which site it is for, its secret, and whom the site may believe.

``quebec.<secret>.<fingerprint>``: 128 random bits and the SHA-256 of the authority's certificate, in base64url. The hub
keeps no more of the secret than its digest: guessing it back is as hard as guessing it.
"""

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter, ValidationError

from windfall.contracts.message import Name
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import Mistake

_SECRET: Final = 16
_FINGERPRINT: Final = 32


@dataclass(frozen=True)
class OneTime:
    """A token. It does not show its secret but when it is written."""

    site: str
    secret: bytes = field(repr=False)
    fingerprint: bytes

    @property
    def digest(self) -> str:
        """What the hub knows it by."""
        return digest(self.secret)

    def written(self) -> str:
        return ".".join((self.site, _text(self.secret), _text(self.fingerprint)))


def new(site: str, fingerprint: bytes) -> OneTime:
    return OneTime(site, secrets.token_bytes(_SECRET), fingerprint)


def site_named(text: str) -> str:
    """
    Raises:
        Mistake: no site can be called that.
    """
    try:
        name = TypeAdapter(Name).validate_python(text)
    except ValidationError as error:
        raise Mistake(
            f"{text!r} names no site", "Use 1 to 48 lower-case letters and digits, with dashes between them"
        ) from error
    if name == HUB:
        raise Mistake(f"a site cannot be called {HUB!r}: that is the hub's domain", "Name it otherwise")
    return name


def owner_named(text: str) -> str:
    """
    Raises:
        Mistake: nobody can be called that.
    """
    try:
        return TypeAdapter(Name).validate_python(text)
    except ValidationError as error:
        raise Mistake(
            f"{text!r} names no owner", "Use 1 to 48 lower-case letters and digits, with dashes between them"
        ) from error


def digest(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()


def read(text: str) -> OneTime:
    """
    Raises:
        Mistake: that is no token.
    """
    try:
        site, secret, fingerprint = text.strip().split(".")
        found = OneTime(TypeAdapter(Name).validate_python(site), _bytes(secret), _bytes(fingerprint))
    except (ValueError, ValidationError) as error:
        raise _cut() from error
    if len(found.secret) != _SECRET or len(found.fingerprint) != _FINGERPRINT:
        raise _cut()
    return found


def _cut() -> Mistake:
    return Mistake(
        "that is no token, or only a part of one", "Copy all of what `windfall site token SITE` printed at the hub"
    )


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
