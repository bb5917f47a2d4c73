"""Whose a contribution is, as its site's own signature proves it.

What counts is kept with the signature in the journal, one row for each contribution, in the commit that accepts it: a
third party can be shown later who contributed what.
"""

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel

from windfall.contracts.attestation import Attestation, Statement, journal_key, signed_bytes, statement
from windfall.contracts.message import Name
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.federation import Frozen
from windfall.servicekit.admission import Revoked
from windfall.servicekit.journal import Journal

if TYPE_CHECKING:
    from windfall.servicekit.signing import Trusted

STATE: Final = "signers"
CURE: Final = "run the coordinator's version there, with the certificate that enrolment gave"

Demand = Literal["off", "where-known", "required"]


@dataclass(frozen=True)
class Trust:
    """Whose signatures count, and who must sign."""

    authority: Path | None = None
    """PEM, of whoever signs sites' certificates; none: nobody's signature can be checked."""
    revoked: Path | None = None
    """Serials that do not count."""
    demand: Demand = "where-known"
    """``where-known``: of each site that has signed before; ``required``: of every site; ``off``: of none, and nobody
    looks."""


class Signers(Frozen):
    """Who has proven by a signature who it is."""

    sites: tuple[Name, ...] = ()


def unsigned(demand: Demand, signers: Signers, site: str) -> str:
    """Why what a site says without a signature does not count; empty when it does."""
    if demand == "required":
        return f"{site} does not sign, and this federation demands it; {CURE}"
    if demand == "where-known" and site in signers.sites:
        return f"{site} has signed before and does not now; {CURE}"
    return ""


def signed(signers: Signers, site: str) -> Signers:
    """Remember that a site signs."""
    return signers if site in signers.sites else Signers(sites=(*signers.sites, site))


class Signatures:
    """Of one federation.

    Args:
        now: wall time, by which certificates end.
    """

    def __init__(self, journal: Journal, trust: Trust, now: Callable[[], datetime]) -> None:
        self._trust = trust
        self._now = now
        self._authorities = None if trust.authority is None else _trusted(trust.authority)
        self._revoked = None if trust.revoked is None else Revoked(trust.revoked)
        self._signers = journal.load(STATE, Signers) or Signers()

    def admit(self, site: str, signs: bool) -> None:
        """Let a site join.

        Raises:
            Refusal: it will not sign, and must.
        """
        if not signs and (because := unsigned(self._trust.demand, self._signers, site)):
            raise Refusal("signature", because)

    def check(self, manifest: pb.Manifest) -> Attestation | None:
        """What proves that a contribution is its site's; none where nobody asks for it.

        Raises:
            Refusal: its signature does not hold, or is missing where one must be.
        """
        trust, site = self._trust, manifest.key.site
        if not manifest.signature or self._authorities is None or trust.demand == "off":
            if because := unsigned(trust.demand, self._signers, site):
                raise Refusal("signature", because)
            return None
        # Only now: a coordinator that comes back without TLS does not wait for it.
        from windfall.servicekit.signing import Unproven, proven

        said, at = statement(manifest), self._now()
        try:
            by = proven(
                signed_bytes(said),
                manifest.signature,
                manifest.certificate,
                self._authorities(),
                at,
                self._revoked,
            )
        except Unproven as error:
            raise Refusal("signature", str(error)) from error
        if by != site:
            raise Refusal("signature", f"it is signed by {by}, which may not speak for {site}")
        return Attestation(
            statement=said,
            signature=b64encode(manifest.signature).decode(),
            certificate=b64encode(manifest.certificate).decode(),
            checked_at=at,
        )

    def kept(self, proof: Attestation | None) -> Mapping[str, BaseModel]:
        """What to keep in the commit that accepts a contribution."""
        if proof is None:
            return {}
        said = Statement.model_validate_json(proof.statement)
        self._signers = signed(self._signers, said.site)
        return {journal_key(said): proof, STATE: self._signers}


def _trusted(authority: Path) -> "Trusted":
    from windfall.servicekit.signing import Trusted

    return Trusted(authority)
