"""A site's ledger as a chain: each entry names the hash of the one before, and the site has signed each hash.

One line of the file is one record in canonical JSON (RFC 8785)::

    {"entry":{…},"hash":"<64 hex>","signature":"<128 hex>"}

    hash      = SHA-256(hash of the line before ‖ canonical bytes of the entry); before the first line stand 32 zeros
    signature = Ed25519 (RFC 8032) over ``windfall.ledger.v1`` ‖ 0x00 ‖ hash

The first line holds a ``genesis`` instead of an entry: whose ledger it is, and the public key that all signatures are
checked with. The chain proves that nothing in it was changed, dropped, added or moved by whoever lacks the key. What
the key's owner could do, cut the end off or write it all anew, shows against the hashes that the site has published in
``energy.recorded``.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Final, Literal
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from windfall.contracts.message import Digest, Instant, Name
from windfall.energy.canonical import canonical
from windfall.energy.power import SiteState

BEFORE_THE_FIRST: Final = "0" * 64
"""The previous hash of a genesis."""
_SIGNED_AS: Final = b"windfall.ledger.v1\x00"
_HASH: Final = re.compile("[0-9a-f]{64}")
_SIGNATURE: Final = re.compile("[0-9a-f]{128}")

PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""The 32 bytes of an Ed25519 public key in lower-case hexadecimal."""

Method = Literal["metered", "modelled"]
IntensitySource = Literal["marginal", "average", "mixed", "assumed"]
"""Where an interval's intensity comes from: readings of one kind, of both, or for some of it nothing better than the
value that the site assumes when it knows none."""

_STRICT: Final = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Genesis(BaseModel):
    """The first record: whose ledger this is, and who signs it."""

    model_config = _STRICT

    site: Name
    federation: str
    """For which the site drew the power; empty when nobody said so."""
    public_key: PublicKey
    created_at: Instant
    """From when on the site's power is accounted."""


class Entry(BaseModel):
    """What a site drew, and emitted, while its node was in one state."""

    model_config = _STRICT

    sequence: int = Field(ge=1)
    site: Name
    window_id: UUID | None
    """The window for which it was drawn; none while the node was off."""
    state: SiteState
    start: Instant
    end: Instant
    energy_kwh: float = Field(ge=0)
    emissions_kg: float = Field(ge=0)
    clean_energy_kwh: float = Field(ge=0)
    """The part drawn while the intensity was below the site's open threshold."""
    always_on_kwh: float = Field(ge=0)
    """The counterfactual: the same interval at training power. Always modelled."""
    always_on_kg: float = Field(ge=0)
    intensity_source: IntensitySource
    mean_intensity_g_per_kwh: float = Field(ge=0)
    """Over the time of the interval."""
    method: Method
    """``metered``: a counter covered the whole interval; ``modelled``: state times the site's power model."""
    meter: str
    """Which counters, like ``nvml``; empty when modelled."""
    previous_hash: Digest


@dataclass(frozen=True)
class Sealed:
    """A record with its hash and the site's signature."""

    record: Genesis | Entry
    hash: str
    signature: str

    @cached_property
    def body(self) -> bytes:
        """The record's canonical bytes."""
        return canonical(self.record.model_dump(mode="json"))

    @property
    def line(self) -> str:
        """The line of the file, without its newline; canonical as a whole."""
        name = "genesis" if isinstance(self.record, Genesis) else "entry"
        return f'{{"{name}":{self.body.decode()},"hash":"{self.hash}","signature":"{self.signature}"}}'


@dataclass(frozen=True)
class Verified:
    """A whole chain that holds."""

    genesis: Genesis
    entries: tuple[Entry, ...]
    head: str
    """Hash of the last record."""


Fault = Literal[
    "unreadable", "edited", "removed", "reordered", "relinked", "signature", "key", "truncated", "rewritten"
]


@dataclass(frozen=True)
class Broken:
    """The first record that does not hold, and what is wrong with it in words."""

    sequence: int
    """Where it stands: 0 is the genesis."""
    fault: Fault
    detail: str

    def __str__(self) -> str:
        return f"entry {self.sequence}: {self.detail}" if self.sequence else f"its beginning: {self.detail}"


class _Unsound(Exception):
    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault: Fault = fault
        self.detail = detail


def public_key_of(key: Ed25519PrivateKey) -> str:
    """As a genesis names it."""
    return key.public_key().public_bytes_raw().hex()


def entry_hash(previous_hash: str, record: Genesis | Entry) -> str:
    """SHA-256 over the previous hash and the record's canonical bytes, in hexadecimal."""
    return _hash(previous_hash, canonical(record.model_dump(mode="json")))


def seal(record: Genesis | Entry, key: Ed25519PrivateKey) -> Sealed:
    """Hash and sign a record. An entry names the hash before it; before a genesis there is none."""
    previous = record.previous_hash if isinstance(record, Entry) else BEFORE_THE_FIRST
    digest = entry_hash(previous, record)
    return Sealed(record, digest, key.sign(_SIGNED_AS + bytes.fromhex(digest)).hex())


def unseal(line: str, public_key: str | None = None) -> Sealed:
    """Read one line and check it as far as it can be checked by itself: form, hash and signature.

    Args:
        line: without its newline.
        public_key: who must have signed; none believes the genesis that the line holds.

    Raises:
        ValueError: it is not a record, was edited, or was signed by another key.
    """
    try:
        sealed = _read(line)
        key = public_key or (sealed.record.public_key if isinstance(sealed.record, Genesis) else None)
        if key is None:
            raise ValueError("an entry alone does not say who signs it")
        previous = sealed.record.previous_hash if isinstance(sealed.record, Entry) else BEFORE_THE_FIRST
        _check_seal(sealed, previous, Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)))
    except _Unsound as error:
        raise ValueError(error.detail) from error
    return sealed


def verify(
    lines: Iterable[str], public_key: str | None = None, published: Mapping[int, str] | None = None
) -> Verified | Broken:
    """Check a whole chain; the first record that does not hold ends it.

    Args:
        lines: the file's, without newlines.
        public_key: the site's, from a place that whoever could change the file could not; none takes the one in the
            file, which proves only that one key has signed all of it.
        published: the hashes that the site said in ``energy.recorded``, by sequence.
    """
    said = published or {}
    genesis: Genesis | None = None
    entries: list[Entry] = []
    head, key = BEFORE_THE_FIRST, None
    for place, line in enumerate(lines):
        try:
            sealed = _read(line)
            if genesis is None:
                genesis = _begun(sealed.record, public_key)
                key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(genesis.public_key))
            else:
                entry = _following(sealed.record, entries[-1] if entries else None, genesis, head)
                entries.append(entry)
            assert key is not None
            _check_seal(sealed, head, key)
        except _Unsound as error:
            return Broken(place, error.fault, error.detail)
        head = sealed.hash
        if said.get(place, head) != head:
            return Broken(place, "rewritten", "the site published another hash for it")
    if genesis is None:
        return Broken(0, "truncated", "there is no record at all")
    if missing := [sequence for sequence in said if sequence > len(entries)]:
        last = max(missing)
        return Broken(len(entries) + 1, "truncated", f"the end is cut off: the site published entries up to {last}")
    return Verified(genesis, tuple(entries), head)


def _read(line: str) -> Sealed:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _Unsound("unreadable", "it is not a record") from error
    kind = "genesis" if isinstance(document, dict) and "genesis" in document else "entry"
    if not isinstance(document, dict) or set(document) != {kind, "hash", "signature"}:
        raise _Unsound("unreadable", "it is not a record")
    try:
        record = (Genesis if kind == "genesis" else Entry).model_validate(document[kind])
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise _Unsound("unreadable", f"it is not a record: {where}: {error.errors()[0]['msg'].lower()}") from error
    sealed = Sealed(record, str(document["hash"]), str(document["signature"]))
    try:
        canonical_form = sealed.line
    except ValueError as error:
        raise _Unsound("unreadable", f"it is not a record: {error}") from error
    if not _SIGNATURE.fullmatch(sealed.signature) or not _HASH.fullmatch(sealed.hash) or canonical_form != line:
        # Else whoever lacks the key could still change how a record is written, and two files would say the same.
        raise _Unsound("edited", "it is not in canonical form")
    return sealed


def _begun(record: Genesis | Entry, public_key: str | None) -> Genesis:
    if not isinstance(record, Genesis):
        raise _Unsound("removed", f"the chain begins with entry {record.sequence}")
    if public_key is not None and public_key != record.public_key:
        raise _Unsound("key", f"it was begun under the key {record.public_key[:12]}… and not {public_key[:12]}…")
    return record


def _following(record: Genesis | Entry, before: Entry | None, genesis: Genesis, head: str) -> Entry:
    expected = before.sequence + 1 if before else 1
    if isinstance(record, Genesis):
        raise _Unsound("reordered", "a second beginning stands in its place")
    if record.sequence > expected:
        raise _Unsound("removed", f"it is missing; entry {record.sequence} stands in its place")
    if record.sequence < expected:
        raise _Unsound("reordered", f"entry {record.sequence} stands in its place")
    if record.previous_hash != head:
        raise _Unsound("relinked", "it does not follow from the record before it")
    if record.site != genesis.site:
        raise _Unsound("edited", f"it is about {record.site}, and the ledger about {genesis.site}")
    if not (before.end if before else genesis.created_at) <= record.start < record.end:
        raise _Unsound("edited", "it overlaps the time before it, or has none")
    return record


def _check_seal(sealed: Sealed, previous_hash: str, key: Ed25519PublicKey) -> None:
    if _hash(previous_hash, sealed.body) != sealed.hash:
        raise _Unsound("edited", "its content is not what was hashed")
    try:
        key.verify(bytes.fromhex(sealed.signature), _SIGNED_AS + bytes.fromhex(sealed.hash))
    except (InvalidSignature, ValueError) as error:
        raise _Unsound("signature", "it was not signed by the site's key") from error


def _hash(previous_hash: str, body: bytes) -> str:
    return hashlib.sha256(bytes.fromhex(previous_hash) + body).hexdigest()
