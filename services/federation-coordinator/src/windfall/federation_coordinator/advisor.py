"""Advice in the live federation: the policy that follows from what is known now, and what is said of it."""

import logging
from collections.abc import Mapping
from dataclasses import replace

from windfall.contracts.events import AdviceGiven, Chosen
from windfall.federation_coordinator import advising
from windfall.federation_coordinator.advising import Known, Told
from windfall.federation_coordinator.beginning import Wanted, measured, pending, told_of
from windfall.federation_coordinator.federation import Federation, Policy
from windfall.federation_coordinator.store import ModelStore
from windfall.servicekit.clock import Clock

log = logging.getLogger(__name__)


class Advisor:
    """Of one federation. Nothing of it outlives the process: what was said is said once more after a restart.

    Args:
        policy: as told.
        wanted: how contributions are to be written.
        follows_links: local steps follow links and speeds.
        waits: sites wait for each other at the end of a round.
    """

    def __init__(
        self, policy: Policy, store: ModelStore, parameters: int, wanted: Wanted, follows_links: bool, waits: bool
    ) -> None:
        self._policy, self._store, self._parameters = policy, store, parameters
        self._follows_links, self._waits = follows_links, waits
        self.wanted = wanted
        self._given: AdviceGiven | None = None
        self._last: tuple[Federation, tuple[object, ...], Policy] | None = None

    def policy(self, state: Federation, speeds: Mapping[str, float], *joining: str) -> Policy:
        """The policy of now, with those who are about to join counted in."""
        key = (*sorted(speeds.items()), *joining)
        if self._last is None or self._last[0] is not state or self._last[1] != key:
            # A decision asks for it once for each site that it tells something.
            self._last = state, key, self._policy_of(state, speeds, *joining)
        return self._last[2]

    def _policy_of(self, state: Federation, speeds: Mapping[str, float], *joining: str) -> Policy:
        held = pending(state, self.wanted)
        if not self._follows_links or held:
            return replace(self._policy, held=held)
        known = self.known(state, speeds, *joining)
        return advising.followed(self._policy, self._told(state), self._moved, known, waits=self._waits)

    def ready(self, state: Federation, speeds: Mapping[str, float]) -> bool:
        """Whether all that a choice follows from was measured."""
        return measured(state, self._policy, self.known(state, speeds))

    def news(self, state: Federation, speeds: Mapping[str, float], clock: Clock) -> AdviceGiven | None:
        """What is to be said of the round that was just opened; none while it is as it was, or nothing is known."""
        known, policy = self.known(state, speeds), self.policy(state, speeds)
        if not any(site in known.recommended or seen is not None for site, seen in known.members.items()):
            return None
        event = advising.given(state, policy, self._told(state), self._moved, known, clock.now())
        if not advising.news(self._given, event):
            return None
        self._given = event
        log.info("advice: codec %s; fragments %s; %s", _line(event.codec), _line(event.fragments), event.because)
        return event

    @property
    def _moved(self) -> int:
        """Elements that a round moves at most."""
        return self._store.fragments.most_elements

    def known(self, state: Federation, speeds: Mapping[str, float], *joining: str) -> Known:
        """What is known of the members."""
        members = {site: state.profiles.get(site) for site in (*state.members, *joining)}
        return Known(members, speeds, state.recommended)

    def _told(self, state: Federation) -> Told:
        store = self._store
        return told_of(state.terms, self.wanted, store.rule.settings[0], store.fragments.count, self._parameters)


def _line(one: Chosen) -> str:
    """One value, and what would suit instead."""
    if not one.advised or one.advised == one.used.partition(":")[0]:
        return f"{one.used} as it is"
    return f"{one.used}, {one.advised} would suit"
