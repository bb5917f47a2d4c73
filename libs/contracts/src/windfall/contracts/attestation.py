"""What a site says of a contribution under its own signature, and the bytes that are signed.

::

    statement = canonical JSON (RFC 8785) of what the manifest says, without where a cut upload goes on
    signature = by the private key of the site's certificate over ``windfall.contribution.v1`` ‖ 0x00 ‖ statement

The statement names federation, site, round and attempt, so that a signature counts for one contribution and no other.
Its loss is a string: every other value is an integer, a string or yes and no, and so has one canonical form everywhere.
"""

import json
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from windfall.contracts.message import Digest, Instant, Name
from windfall.contracts.v1 import training_pb2 as pb

DOMAIN: Final = b"windfall.contribution.v1\0"
"""Before the statement: what is signed here can be mistaken for nothing else that the same key signs."""
PREFIX: Final = "attestation/"
"""Of the keys under which a coordinator's journal keeps attestations."""


class Attestation(BaseModel):
    """A statement with what proves whose it is: all that a third party needs beside the fleet's authority."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    statement: str
    """As it was signed."""
    signature: str
    """Base64."""
    certificate: str
    """Of the key that signed, DER in base64."""
    checked_at: Instant
    """By the coordinator's clock: when the certificate counted. It may have ended since."""


class Statement(BaseModel):
    """What a statement says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    federation: Name
    site: Name
    round: int
    attempt: int
    lease_token: int
    base_digest: Digest
    """Of the model that it was trained from."""
    codec: str
    tokens: int
    steps: int
    loss_nats: str
    partial: bool
    total_bytes: int
    sha256: Digest
    """Of the contribution's bytes."""
    skipped: int
    spikes: int
    refused_passes: int
    cursor: int
    rows: tuple[tuple[int, int], ...]


def statement(manifest: pb.Manifest) -> str:
    """What a manifest says, in its canonical form."""
    key = manifest.key
    said: dict[str, Any] = {
        "federation": key.federation,
        "site": key.site,
        "round": key.round,
        "attempt": key.attempt,
        "lease_token": manifest.lease_token,
        "base_digest": manifest.base_digest,
        "codec": manifest.codec,
        "tokens": manifest.tokens,
        "steps": manifest.steps,
        "loss_nats": repr(manifest.loss),
        "partial": manifest.partial,
        "total_bytes": manifest.total_bytes,
        "sha256": manifest.sha256,
        "skipped": manifest.skipped,
        "spikes": manifest.spikes,
        "refused_passes": manifest.refused_passes,
        "cursor": manifest.cursor,
        "rows": [[one.begin, one.end] for one in manifest.rows],
    }
    return json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def signed_bytes(said: str) -> bytes:
    """What a signature is made over, of a statement."""
    return DOMAIN + said.encode()


def journal_key(said: Statement) -> str:
    """Where a coordinator's journal keeps the attestation of a statement."""
    return f"{PREFIX}{said.round:010d}/{said.site}/{said.attempt}"
