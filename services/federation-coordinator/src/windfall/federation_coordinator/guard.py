"""The update firewall in the live federation: it remembers what the coordinator decides about contributions and sites.

Its state lies in the journal with the decision that it follows from, so that a crash leaves both or neither.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from windfall.contracts.events import ContributionAccepted, ContributionRefused
from windfall.contracts.message import Message
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator import firewall, influence, owners
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.firewall import Firewall, Limits
from windfall.servicekit.journal import Journal

STATE: Final = "firewall"


@dataclass(frozen=True)
class LookedAt:
    """What was found in a contribution, until it is decided upon."""

    norm: float
    steps: int
    tokens: int
    content: str
    """SHA-256 of what it says, whatever it calls itself."""
    round: int
    """From whose base it was trained."""
    fragment: int


class Guard:
    """Of one federation, whose rounds synchronise so many fragments in turn."""

    def __init__(self, journal: Journal, limits: Limits, fragments: int = 1) -> None:
        self._limits = limits
        self._fragments = fragments
        self.state = journal.load(STATE, Firewall) or Firewall()
        self._looked_at: dict[tuple[str, int], LookedAt] = {}

    def cut(self, fragments: int) -> None:
        """The model is cut into so many fragments after all; nothing was looked at before."""
        self._fragments = fragments

    def admit(self, site: str, round_number: int) -> None:
        """Let a site join.

        Raises:
            Refusal: it is shut out.
        """
        if because := self.barred(site, round_number):
            raise Refusal("shut-out", because)

    def barred(self, site: str, round_number: int) -> str:
        """Why it may not take part; empty when it may."""
        return firewall.barred(self.state, site, round_number)

    def judge(self, manifest: pb.Manifest, norm: float, content: str) -> None:
        """Hold a contribution that was looked at against those that were accepted before.

        What a site says again under a new attempt is new work that came to the same: where training is deterministic,
        the same base leads to the same values.

        Raises:
            Refusal: it is too long, or holds what another site said, or the site itself of another base.
        """
        site, number = manifest.key.site, manifest.key.round
        looked_at = LookedAt(norm, manifest.steps, manifest.tokens, content, number, number % self._fragments)
        self._looked_at[site, manifest.key.attempt] = looked_at
        if because := firewall.replayed(self.state, site, content, norm, number):
            raise Refusal("replay", because)
        if because := firewall.too_long(self.state, norm, manifest.steps, self._limits, looked_at.fragment):
            raise Refusal("norm", because)

    def counted(self, contributions: Sequence[Contribution], speeds: Mapping[str, float]) -> tuple[Contribution, ...]:
        """Contributions as they count in a merge; see ``influence`` and ``owners``."""
        limits = self._limits
        found = influence.counted(contributions, firewall.usual_tokens(self.state), speeds, limits.tokens_factor)
        return owners.capped(found, limits.owners, limits.owner_share)

    def overhear(self, said: Sequence[Message]) -> dict[str, BaseModel]:
        """What the coordinator is about to say; gives what to keep of it in the same commit."""
        before = self.state
        for event in said:
            if isinstance(event, ContributionAccepted | ContributionRefused):
                one = self._looked_at.pop((event.site, event.attempt), None)
                if isinstance(event, ContributionRefused):
                    self._refused(event, 0.0 if one is None else one.norm)
                elif one is not None:
                    self.state = firewall.accepted(
                        self.state, event.site, one.norm, one.steps, one.content, one.fragment, one.tokens, one.round
                    )
        return {} if self.state is before else {STATE: self.state}

    def readmit(self, site: str) -> dict[str, BaseModel]:
        """Let a site in again; gives what to keep of it in the same commit."""
        self.state = firewall.readmitted(self.state, site)
        return {STATE: self.state}

    def _refused(self, event: ContributionRefused, norm: float) -> None:
        self.state = firewall.refused(self.state, event.site, event.reason, event.round, self._limits)
        if event.reason == "norm":
            self.state = firewall.doubted(self.state, event.site, norm)
