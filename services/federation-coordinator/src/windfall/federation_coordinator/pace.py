"""How many local steps a round has, when nobody said: from links, model and measured speeds. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import LinkMeasured, Measured
from windfall.contracts.message import Instant
from windfall.lowcomm.advice import Link, advise
from windfall.lowcomm.schedule import steps_by_speed

UNMEASURED: Final = 30
"""Steps while no link has been measured: where sparse codecs do well on any link (arXiv 2508.15706)."""

_BITS: Final = 8e6
"""Per MB."""


class Seen(BaseModel):
    """What was measured last of a site's way here, and its speed by its profile; what could not be is none."""

    model_config = ConfigDict(frozen=True)

    rtt_ms: float | None = None
    up_mb_per_s: float | None = None
    down_mb_per_s: float | None = None
    step_s: float | None = None
    """Of the federation's task, or of the profiler's reference model."""
    link_at: Instant | None = None
    """When the link was measured last; none in a journal of before it was told."""
    accelerators: int = 0


@dataclass(frozen=True)
class Pace:
    """Local steps of each site in the next round, and why; no steps: the round is boxed by time alone."""

    steps: Mapping[str, int] = field(default_factory=dict)
    otherwise: int = 0
    """For a site that joins in mid-round."""
    because: str = ""


def seen(measured: Measured, micro_batch: int, passes: int = 1) -> Seen:
    """What of a profile decides the pace. A site may claim anything: what no link and no node can do counts as not
    measured.

    Args:
        passes: micro-batches in a step.
    """
    pass_s = measured.step_s_by_micro_batch.get(micro_batch)
    return Seen(
        rtt_ms=_within(measured.link_rtt_ms, 0, 1e5),
        up_mb_per_s=_within(measured.link_up_mb_per_s, 1e-6, 1e6),
        down_mb_per_s=_within(measured.link_down_mb_per_s, 1e-6, 1e6),
        step_s=_within(None if pass_s is None else passes * pass_s, 1e-7, 1e5),
    )


def measured_again(before: Seen | None, link: LinkMeasured) -> Seen:
    """After a link was measured anew. What could not be measured is what it was; an older word changes nothing."""
    before = before or Seen()
    if before.link_at is not None and link.at < before.link_at:
        return before
    rtt_ms = _within(link.rtt_ms, 0, 1e5)
    up, down = _within(link.up_mb_per_s, 1e-6, 1e6), _within(link.down_mb_per_s, 1e-6, 1e6)
    return before.model_copy(
        update={
            "rtt_ms": before.rtt_ms if rtt_ms is None else rtt_ms,
            "up_mb_per_s": before.up_mb_per_s if up is None else up,
            "down_mb_per_s": before.down_mb_per_s if down is None else down,
            "link_at": link.at,
        }
    )


def _within(value: float | None, least: float, most: float) -> float | None:
    return value if value is not None and least <= value <= most else None


def paced(
    codec: str,
    parameters: int,
    members: Mapping[str, Seen | None],
    speeds: Mapping[str, float],
    told: int | None = None,
    fixed: Mapping[str, int] | None = None,
) -> Pace:
    """The fewest steps for which no site's synchronisation costs more than its share of the site's training, on
    average over the sites; each takes more or fewer in proportion to its speed, so that nobody waits at the end.

    Args:
        codec: the setting in which contributions travel.
        parameters: elements that travel.
        members: who trains, with what their profiles say.
        speeds: steps per second as earlier rounds had them; better than a profile.
        told: steps that the operator wants on average, instead of those.
        fixed: steps that the operator wants of single sites, whatever follows for the others.
    """
    if not members:
        return Pace()
    known = speeds_of(members, speeds)
    steps, because = told or UNMEASURED, f"{told} steps as told" if told else f"{UNMEASURED} steps: no link is measured"
    if told is None:
        for site in sorted(known):
            link = link_of(members[site])
            if link is None:
                continue
            advice = advise(parameters, 1 / known[site], link, len(members), codec=codec)
            if advice.steps > steps or because.endswith("measured"):
                steps, because = advice.steps, f"{site}: {advice.line}"
    each = steps_by_speed(known, steps) if len(known) == len(members) else dict.fromkeys(members, steps)
    if own := {site: count for site, count in (fixed or {}).items() if site in members}:
        because += f"; {', '.join(f'{own[site]} of {site}' for site in sorted(own))} as told"
    return Pace(each | own, steps, because)


def speeds_of(members: Mapping[str, Seen | None], reported: Mapping[str, float]) -> dict[str, float]:
    """Of the sites whose speed is known, all from one source: a profile times another model than the one that trains,
    and speeds that do not compare would make sites wait for each other."""
    if all(site in reported for site in members):
        return {site: reported[site] for site in members}
    return {site: 1 / profile.step_s for site, profile in members.items() if profile is not None and profile.step_s}


def link_of(profile: Seen | None) -> Link | None:
    """The way of a site, where all of it was measured."""
    if profile is None or not profile.up_mb_per_s or not profile.down_mb_per_s or profile.rtt_ms is None:
        return None
    return Link(profile.up_mb_per_s * _BITS, profile.down_mb_per_s * _BITS, profile.rtt_ms / 1000)
