"""The update firewall in the live federation: it remembers what the coordinator decides about contributions and sites.

Its state lies in the journal with the decision that it follows from, so that a crash leaves both or neither.
"""

from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel

from windfall.contracts.events import ContributionAccepted, ContributionRefused
from windfall.contracts.message import Message
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator import firewall
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.firewall import Firewall, Limits
from windfall.servicekit.journal import Journal

STATE: Final = "firewall"


class Guard:
    """Of one federation, whose rounds synchronise so many fragments in turn."""

    def __init__(self, journal: Journal, limits: Limits, fragments: int = 1) -> None:
        self._limits = limits
        self._fragments = fragments
        self.state = journal.load(STATE, Firewall) or Firewall()
        self._looked_at: dict[tuple[str, int], tuple[float, int, str, int]] = {}

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

    def judge(self, manifest: pb.Manifest, norm: float) -> None:
        """Hold a contribution that was looked at against those that were accepted before.

        What a site says again under a new attempt is new work that came to the same: where training is deterministic,
        the same base leads to the same bytes. From another base the header differs, and with it the bytes.

        Raises:
            Refusal: it is too long, or another site's bytes.
        """
        site, sha256, fragment = manifest.key.site, manifest.sha256, manifest.key.round % self._fragments
        self._looked_at[site, manifest.key.attempt] = norm, manifest.steps, sha256, fragment
        if because := firewall.replayed(self.state, site, sha256, norm):
            raise Refusal("replay", because)
        if because := firewall.too_long(self.state, norm, manifest.steps, self._limits, fragment):
            raise Refusal("norm", because)

    def overhear(self, said: Sequence[Message]) -> dict[str, BaseModel]:
        """What the coordinator is about to say; gives what to keep of it in the same commit."""
        before = self.state
        for event in said:
            if isinstance(event, ContributionAccepted | ContributionRefused):
                looked_at = self._looked_at.pop((event.site, event.attempt), (0.0, 0, "", 0))
                norm, steps, sha256, fragment = looked_at
                if isinstance(event, ContributionRefused):
                    self._refused(event, norm)
                elif sha256:
                    self.state = firewall.accepted(self.state, event.site, norm, steps, sha256, fragment)
        return {} if self.state is before else {STATE: self.state}

    def readmit(self, site: str) -> dict[str, BaseModel]:
        """Let a site in again; gives what to keep of it in the same commit."""
        self.state = firewall.readmitted(self.state, site)
        return {STATE: self.state}

    def _refused(self, event: ContributionRefused, norm: float) -> None:
        self.state = firewall.refused(self.state, event.site, event.reason, event.round, self._limits)
        if event.reason == "norm":
            self.state = firewall.doubted(self.state, event.site, norm)
