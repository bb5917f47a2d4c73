"""Who trains in a round, whom it goes without, and when it has enough of them. Pure."""

from collections.abc import Iterable
from typing import Final

from windfall.federation_coordinator.federation import Federation, Member, Phase, Policy

AGAIN: Final = 20
"""After so many rounds that it was left out of, a site takes part in one: it is measured anew, and its data counts."""


def chosen_of(state: Federation, ready: Iterable[Member], most: int | None) -> tuple[str, ...]:
    """Who trains: all, or as many as may, those first whose last contribution is the oldest."""
    sites = sorted(one.site for one in ready)
    if most is not None and len(sites) > most:
        last = {site: receipt.round for site, receipt in state.receipts.items()}
        sites = sorted(sorted(sites, key=lambda site: (last.get(site, -1), site))[:most])
    return tuple(sites)


def left_out(state: Federation, ready: Iterable[Member], policy: Policy) -> dict[str, str]:
    """Whom the round goes without, and why; nobody where too few would be left."""
    out = {
        one.site: "the operator wants it in no round" if one.site in policy.excluded else policy.left_out[one.site]
        for one in ready
        if one.site in policy.excluded or (one.site in policy.left_out and state.left_out.get(one.site, 0) < AGAIN)
    }
    if len(state.members) - len(out) < max(1, policy.minimum):
        out = {site: why for site, why in out.items() if site in policy.excluded}
    return out


def half_done(state: Federation, policy: Policy) -> bool:
    """Whether at least half of those who train in a running round have taken all the steps that it has for them."""
    if not policy.cuts or state.phase is not Phase.RUNNING or not state.local_steps:
        return False
    training = [one for one in state.members.values() if one.since <= state.round]
    wanted = {(one.site, one.attempt): state.local_steps.get(one.site, policy.pace.otherwise) for one in training}
    done = sum(
        one.steps >= wanted.get(one.key[:2], one.steps + 1)
        for one in state.contributions
        if one.base_round == state.round
    )
    return done > 0 and 2 * done >= len(training)
