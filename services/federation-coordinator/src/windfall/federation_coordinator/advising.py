"""What would suit a federation, what of it is used, and what is said of that. Pure.

A site's own values follow its profile, local steps follow links and speeds, and who costs the others more than it
brings is left out; an operator overrides each. Codec and fragments are chosen once (``beginning``); what would suit
later is said and not switched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from windfall.contracts.events import AdviceGiven, Chooser, Chosen, Recommendation, SiteAdvice
from windfall.contracts.message import derived_id
from windfall.federation_coordinator.choosing import choices
from windfall.federation_coordinator.federation import Federation, Policy
from windfall.federation_coordinator.pace import Pace, Seen, link_of, paced, speeds_of
from windfall.lowcomm.fleet_advice import FleetAdvice, Taking, advise_fleet, dispensable

MOST_SITES: Final = 200
"""That one event tells of."""
_SAME_STEPS: Final = 2.0
"""Steps follow speeds, which vary: no more than so many times more or fewer on average is no news."""


@dataclass(frozen=True)
class Told:
    """How contributions are written, and by whose word."""

    codec: str
    """The setting in which they travel."""
    fragments: int
    parameters: int
    """Of the whole model."""
    codec_by: Chooser = "default"
    fragments_by: Chooser = "default"


@dataclass(frozen=True)
class Known:
    """What is known of those who take part."""

    members: Mapping[str, Seen | None]
    speeds: Mapping[str, float]
    """Steps per second as earlier rounds had them."""
    recommended: Mapping[str, Recommendation]
    """By their profiles."""

    def only(self, sites: frozenset[str]) -> "Known":
        """What is known of these sites."""
        return replace(self, members={site: one for site, one in self.members.items() if site in sites})


def takings(known: Known, steps: Mapping[str, int]) -> dict[str, Taking]:
    """The sites whose link and speed are known, with the local steps that each takes in a round."""
    speeds = speeds_of(known.members, known.speeds)
    return {
        site: Taking(1 / speed, steps[site], link)
        for site, speed in speeds.items()
        if site in steps and (link := link_of(known.members[site])) is not None
    }


def advised(told: Told, known: Known, steps: Mapping[str, int]) -> FleetAdvice | None:
    """Advice for the sites whose link and speed are known; none while there is no such site.

    Args:
        steps: local steps of each site in a round.
    """
    taking = takings(known, steps)
    return advise_fleet(told.parameters, taking, told.codec) if taking else None


def followed(policy: Policy, told: Told, moved: int, known: Known, *, waits: bool) -> Policy:
    """The policy with the pace that follows from what is known, and without the sites that cost more than they bring.

    Args:
        moved: elements that a round moves.
        waits: sites wait for each other; where they train on, nobody is held up.
    """
    fixed = _fixed(policy, known.recommended)
    pace = paced(told.codec, moved, known.members, known.speeds, policy.average_steps, fixed)
    policy = replace(policy, cuts=waits and not fixed)
    if not (policy.weighs and waits):
        return replace(policy, pace=pace)
    taking = {site: one for site, one in takings(known, pace.steps).items() if site not in policy.excluded}
    kept = [site for site, one in policy.sites.items() if one.takes_part]
    unknown = len(known.members.keys() - taking.keys() - policy.excluded)
    out = dispensable(moved, taking, told.codec, kept, max(1, policy.minimum) - unknown)
    if out:
        rest = known.only(frozenset(known.members.keys() - out.keys()))
        without = paced(told.codec, moved, rest.members, rest.speeds, policy.average_steps, fixed)
        # Those that are left out take part now and then.
        pace = Pace({**pace.steps, **without.steps}, without.otherwise, without.because)
    return replace(policy, pace=pace, left_out={site: worth.line for site, worth in out.items()})


def _fixed(policy: Policy, recommended: Mapping[str, Recommendation]) -> dict[str, int]:
    """Local steps that somebody chose: the operator's word goes before the owner's."""
    owners = {site: one.local_steps for site, one in recommended.items() if "local_steps" in one.told}
    operators = {site: one.local_steps for site, one in policy.sites.items() if one.local_steps is not None}
    return {**owners, **policy.site_steps, **operators}


def given(state: Federation, policy: Policy, told: Told, moved: int, known: Known, now: datetime) -> AdviceGiven:
    """What is advised for a round that was just opened, what is used of it, and by whose word.

    Args:
        policy: as it is followed in that round.
        moved: elements that a round moves.
    """
    free = paced(told.codec, moved, known.members, known.speeds)
    found = advised(told, known, policy.pace.steps)
    average = policy.steps or policy.pace.otherwise
    by: Chooser = "operator" if policy.steps or policy.average_steps else "advice"
    names = sorted(state.members)
    return AdviceGiven(
        id=derived_id(f"{state.name}/{state.round}/{state.openings}", AdviceGiven.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        codec=Chosen(advised="" if found is None else found.codec, used=told.codec[:100], by=told.codec_by),
        fragments=Chosen(
            advised="" if found is None else str(found.fragments), used=str(told.fragments), by=told.fragments_by
        ),
        average_steps=Chosen(
            advised=str(free.otherwise) if free.otherwise else "",
            used=str(average) if average else "",
            by=by if average else "operator",
        ),
        sites=tuple(_site(site, state, policy, known, free, found) for site in names[:MOST_SITES]),
        unlisted=max(0, len(names) - MOST_SITES),
        because=found.line if found is not None else "no site's link and speed are known yet",
    )


def _site(
    site: str, state: Federation, policy: Policy, known: Known, free: Pace, found: FleetAdvice | None
) -> SiteAdvice:
    recommended = known.recommended.get(site)
    worth = None if found is None else found.worths.get(site)
    values = choices(site, policy.for_all, recommended)
    fixed, steps = _fixed(policy, known.recommended), policy.steps or policy.pace.steps.get(site, 0)
    if steps:
        owner = recommended is not None and "local_steps" in recommended.told and site not in policy.site_steps
        by: Chooser = "owner" if owner else "operator" if policy.steps or site in fixed else "advice"
        values["local_steps"] = Chosen(advised=str(free.steps.get(site, "")), used=str(steps), by=by)
    reasons = [policy.left_out.get(site) or ("" if worth is None else worth.line)]
    reasons.append("" if recommended is None else recommended.because)
    return SiteAdvice(
        site=site,
        takes_part=site not in state.left_out,
        gain=None if worth is None else round(worth.gain, 4),
        values=values,
        because="; ".join(filter(None, reasons)),
    )


def news(before: AdviceGiven | None, after: AdviceGiven) -> bool:
    """Whether another value is advised or used, or by another word. Reasons and chance are none, nor are local steps of
    single sites: every round says its own."""
    if before is None or _heart(before) != _heart(after):
        return True
    was, now = (int(event.average_steps.used or 0) for event in (before, after))
    return not was / _SAME_STEPS <= now <= was * _SAME_STEPS


def _heart(event: AdviceGiven) -> object:
    sites = [(one.site, one.takes_part, *map(_value, one.values.items())) for one in event.sites]
    return event.codec, event.fragments, event.average_steps.by, sites, event.unlisted


def _value(named: tuple[str, Chosen]) -> object:
    name, one = named
    return (name, one.by) if name == "local_steps" else (name, one)
