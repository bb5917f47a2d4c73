"""What a site knows at one instant: the memory of its signals, its owner's terms, a plan, and what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from windfall.contracts.commands import FollowPlan
from windfall.contracts.message import Instant
from windfall.energy.crosscheck import checked
from windfall.energy.heed import Heeded, heed, heed_ahead, lent
from windfall.energy.intake import Intake
from windfall.energy.intensity import INTENSITIES
from windfall.energy.judgement import Judgement, Verdicts, answered, judge, judge_ahead
from windfall.energy.policy import Policy
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy.rule import Rule, look_back, signals
from windfall.energy.thresholds import Series
from windfall.energy.verdict import Verdict
from windfall.energy.windows import Watch


@dataclass(frozen=True)
class Terms:
    """What the owner told."""

    rule: Rule
    policy: Policy
    stale_after: Mapping[str, timedelta] = field(default_factory=dict)
    """Of each signal; the policy's where it is not named."""
    check: tuple[str, str] | None = None
    """The signal that is checked, and the one that checks it."""
    horizon: timedelta = timedelta(hours=24)
    """How far ahead is looked."""
    plan_limit_g_per_kwh: float | None = None
    """Power up to this may be used inside a plan's spans although the rule does not call it surplus."""

    def limit(self, signal: str) -> timedelta:
        return self.stale_after.get(signal, self.policy.stale_after)


class Judged(BaseModel):
    """When the rule was last asked, and what was last said of it."""

    model_config = ConfigDict(frozen=True)

    at: Instant | None = None
    unanswered_since: Instant | None = None
    """When it first had no answer, because a signal on which that rests is silent; none when it had one."""
    state: str = ""
    deciding: tuple[str, ...] = ()
    """What decided then; the sentence is said again when this or the state changes."""


@dataclass(frozen=True)
class Lookout:
    """All that a site remembers between two looks."""

    watch: Watch
    intakes: Mapping[str, Intake]
    plan: FollowPlan | None = None
    judged: Judged = field(default_factory=Judged)


@dataclass(frozen=True)
class View:
    """What the rule and the plan say of an instant."""

    judgement: Judgement
    verdict: Verdict
    answered: bool
    """Whether the verdict would be the same if no signal were silent."""
    because: str
    ahead: Verdicts | None = None
    heeded: Heeded | None = None
    planned: bool = False
    """The verdict is the plan's."""
    intensity_g_per_kwh: float | None = None


def view(lookout: Lookout, at: datetime, forecast: Series, terms: Terms) -> tuple[View, dict[str, Unbelievable | None]]:
    """What the rule and the plan say of an instant, and by name what a second source makes of a signal."""
    values, doubts = _checked(lookout, at, forecast, terms)
    history = history_of(lookout, terms)
    inside = lookout.watch.is_open
    heeded = heed(lookout.plan, at)
    intensities = [name for name in signals(terms.rule) if lookout.intakes[name].kind in INTENSITIES]
    grams = next((values[name].value for name in intensities[:1] if name in values), None)
    rule = terms.rule
    if heeded is not None and heeded.runs and intensities and terms.plan_limit_g_per_kwh is not None:
        rule = lent(rule, intensities, terms.plan_limit_g_per_kwh)
    judgement = judge(rule, values, history, forecast, at, inside=inside)
    own = judge_ahead(terms.rule, forecast, values, history, at)
    seen = View(
        judgement=judgement,
        verdict=judgement.verdict,
        answered=answered(rule, values, history, forecast, at),
        because=judgement.because,
        ahead=own,
        heeded=heeded,
        intensity_g_per_kwh=grams,
    )
    if heeded is None or lookout.plan is None:
        return seen, doubts
    ahead = heed_ahead(lookout.plan, at, own, judge_ahead(rule, forecast, values, history, at))
    if heeded.runs:
        lends = rule is not terms.rule and judge(terms.rule, values, history, forecast, at).verdict is not seen.verdict
        return replace(seen, ahead=ahead, planned=lends), doubts
    because = f"the plan of {lookout.plan.federation} has no use for it now"
    return replace(seen, verdict=Verdict.DIRTY, ahead=ahead, planned=True, because=because), doubts


def _checked(
    lookout: Lookout, at: datetime, forecast: Series, terms: Terms
) -> tuple[dict[str, Quote], dict[str, Unbelievable | None]]:
    """The fresh values at an instant, those that were checked replaced by the darker one."""
    fresh = {
        name: intake.last
        for name, intake in lookout.intakes.items()
        if intake.last is not None and at - intake.last.point_time <= terms.limit(name)
    }
    values = {name: fresh[name] for name in signals(terms.rule) if name in fresh}
    if terms.check is None or not all(name in fresh for name in terms.check):
        return values, {}
    first, second = terms.check

    def verdict_of(quote: Quote) -> Verdict:
        return judge(terms.rule, {**values, first: quote}, history_of(lookout, terms), forecast, at).verdict

    found = checked(fresh[first], fresh[second], verdict_of)
    doubted = second if found.counts is fresh[first] else first
    doubts: dict[str, Unbelievable | None] = {first: None, second: None}
    if found.doubt is not None:
        doubts[doubted] = found.doubt
    return {**values, first: found.counts}, doubts


def history_of(lookout: Lookout, terms: Terms) -> Series:
    """Of the signals whose thresholds are percentiles of it."""
    return {name: lookout.intakes[name].history for name in signals(terms.rule) if look_back(terms.rule, name)}
