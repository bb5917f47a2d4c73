"""Who contributed what, as the sites' own signatures prove it to whoever has the certificate of their authority."""

from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from pydantic import ValidationError

from windfall.contracts.attestation import PREFIX, Attestation, Statement, signed_bytes
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal_reading import kept
from windfall.servicekit.signing import Unproven, proven

JOURNAL: Final = "federation-coordinator.sqlite"
COLUMNS: Final = tuple(
    (name, name) for name in ("round", "site", "attempt", "tokens", "steps", "codec", "bytes", "sha256", "holds")
)


@dataclass(frozen=True)
class Checked:
    """One contribution, and whether its site said so."""

    round: int
    site: str
    attempt: int
    tokens: int
    steps: int
    codec: str
    bytes: int
    sha256: str
    base_digest: str
    checked_at: datetime
    """By the coordinator's clock."""
    holds: str
    """``yes``, or why not."""


def lines_of(path: Path) -> tuple[str, ...]:
    """The attestations of a coordinator's folder or journal, or of a file that was made of one, a JSON object each.

    Raises:
        Mistake: there are none, or they cannot be read.
    """
    journal = path / JOURNAL if path.is_dir() else path
    try:
        with journal.open("rb") as file:
            beginning = file.read(16)
        text = "" if beginning.startswith(b"SQLite format 3") else journal.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(
            f"cannot read {journal} ({error})",
            "Name the coordinator's folder, or a file of `windfall contributions -o jsonl`",
            ExitCode.RESOURCE,
        ) from error
    found = tuple(text.splitlines()) if text else kept(journal, PREFIX)
    if not found:
        raise Mistake(
            f"there is no signed contribution in {journal}",
            "Sites sign where enrolment gave them keys; ask the coordinator to demand it with WINDFALL_SIGNATURES",
            ExitCode.FAILED,
        )
    return found


def checked(lines: Iterable[str], trusted: tuple[x509.Certificate, ...]) -> Iterator[Checked]:
    """Hold each against its signature, and against those before it.

    Raises:
        Mistake: a line is no attestation.
    """
    seen: set[tuple[str, int, str, int]] = set()
    for number, line in enumerate(lines, 1):
        try:
            one = Attestation.model_validate_json(line)
            said = Statement.model_validate_json(one.statement)
            signature, certificate = b64decode(one.signature, validate=True), b64decode(one.certificate, validate=True)
        except (ValidationError, ValueError) as error:
            raise Mistake(
                f"line {number} is no signed contribution", "Take the file as `windfall contributions` wrote it"
            ) from error
        key = said.federation, said.round, said.site, said.attempt
        yield Checked(
            said.round,
            said.site,
            said.attempt,
            said.tokens,
            said.steps,
            said.codec,
            said.total_bytes,
            said.sha256,
            said.base_digest,
            one.checked_at,
            "it is there twice" if key in seen else _holds(one, said, signature, certificate, trusted),
        )
        seen.add(key)


def summary(rows: Sequence[Checked]) -> str:
    """In one line, what was found."""
    sites = sorted({row.site for row in rows})
    wrong = sum(row.holds != "yes" for row in rows)
    held = f"{len(rows) - wrong} of {len(rows)} contributions are signed by the sites that they name"
    return f"{held}: {', '.join(sites)}"


def _holds(
    one: Attestation, said: Statement, signature: bytes, certificate: bytes, trusted: tuple[x509.Certificate, ...]
) -> str:
    try:
        by = proven(signed_bytes(one.statement), signature, certificate, trusted, one.checked_at)
    except Unproven as error:
        return str(error)
    return "yes" if by == said.site else f"it is signed by {by}"
