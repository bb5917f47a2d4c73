"""The plan of a federation, as far as a site heeds it: spans in which it may run, until the plan is too old.

Outside its spans a plan closes the site. Inside, the site's own surplus rule goes on deciding, unless its owner lends
the plan dirtier power up to a limit. So a plan narrows the windows, and widens them only by the owner's word.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from windfall.contracts.commands import FollowPlan
from windfall.energy.judgement import Verdicts
from windfall.energy.rule import And, Or, Rule, below
from windfall.energy.verdict import Verdict


@dataclass(frozen=True)
class Heeded:
    """What a plan makes of an instant."""

    runs: bool
    """Within one of its spans."""
    changes_at: datetime
    """When its next span begins, this one ends, or the plan is too old."""


def newer(known: FollowPlan | None, given: FollowPlan) -> FollowPlan:
    """The plan that was made later; a message that was overtaken changes nothing."""
    return given if known is None or given.at >= known.at else known


def heed(plan: FollowPlan | None, at: datetime) -> Heeded | None:
    """What a plan makes of an instant; none when there is no plan, or it is too old to be followed."""
    if plan is None or at >= plan.valid_until:
        return None
    begun = next((span for span in plan.spans if span.start <= at < span.end), None)
    if begun is not None:
        return Heeded(True, min(begun.end, plan.valid_until))
    later = min((span.start for span in plan.spans if span.start > at), default=plan.valid_until)
    return Heeded(False, min(later, plan.valid_until))


def boundaries(plan: FollowPlan | None, after: datetime, until: datetime) -> tuple[datetime, ...]:
    """The instants at which a plan changes its mind, later than ``after`` and up to ``until``, oldest first."""
    if plan is None:
        return ()
    edges = {edge for span in plan.spans for edge in (span.start, span.end) if edge < plan.valid_until}
    return tuple(sorted(edge for edge in {*edges, plan.valid_until} if after < edge <= until))


def lent(rule: Rule, intensities: Sequence[str], limit_g_per_kwh: float) -> Rule:
    """The rule inside a plan's span when the owner lends it power up to a limit: by each of these signals."""
    limits = tuple(below(name, limit_g_per_kwh, limit_g_per_kwh) for name in intensities)
    return Or((rule, limits[0] if len(limits) == 1 else And(limits)))


def heed_ahead(plan: FollowPlan, at: datetime, own: Verdicts | None, inside: Verdicts | None) -> Verdicts:
    """What is expected after ``at`` under a plan: dirty outside its spans, what ``inside`` expects within them, and
    what the site's ``own`` rule expects when the plan is over. Where nobody has a forecast nothing changes.
    """
    edges = boundaries(plan, at, plan.valid_until)
    instants = sorted({at, *edges, *(since for steps in (own, inside) for since, _ in steps or () if since > at)})
    told: list[tuple[datetime, Verdict]] = []
    for instant in instants:
        heeded = heed(plan, instant)
        steps = own if heeded is None else inside
        verdict = Verdict.DIRTY if heeded is not None and not heeded.runs else _held(steps, instant)
        if verdict is not None and (not told or told[-1][1] is not verdict):
            told.append((instant, verdict))
    return tuple(told)


def _held(steps: Verdicts | None, instant: datetime) -> Verdict | None:
    """None before the first step: what is now goes on."""
    if steps is None:
        return Verdict.BETWEEN
    place = bisect_right(steps, instant, key=lambda step: step[0])
    return steps[place - 1][1] if place else None
