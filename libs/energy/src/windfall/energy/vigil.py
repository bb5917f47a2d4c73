"""How news, time and plans move what a site knows, and so its windows.

Values are judged in the order of their own time, so that a watcher that was away decides what an attentive one would
have. What came after an instant is the best forecast of it, so catching up needs no old forecasts.

A signal whose last value is older than its own limit says nothing. The site is stale, and fails closed, from the
instant at which the rule's answer depends on what such a signal would say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from windfall.contracts.commands import FollowPlan
from windfall.contracts.events import SignalRecovered, SignalStale
from windfall.energy import windows
from windfall.energy.heed import boundaries, heed, newer
from windfall.energy.intake import EARLY, Intake, refuse, set_back, settle, take
from windfall.energy.judgement import answered
from windfall.energy.lookout import Lookout, Terms, history_of, view
from windfall.energy.moves import Sight
from windfall.energy.policy import Policy
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy.rule import look_back, signals
from windfall.energy.thresholds import Series, Valued
from windfall.energy.windows import Events, Watch

News = Mapping[str, Sequence[Quote] | Unbelievable]
"""By the signal's name: values, oldest first, or why there are none."""
Steps = list[tuple[Lookout, Events]]


def look(lookout: Lookout, news: News, forecast: Series, now: datetime, terms: Terms) -> Steps:
    """News in, of every signal that was asked and said something: the steps that follow, with what each says.

    Args:
        lookout: what is remembered.
        news: what came.
        forecast: of every signal that has one, as it stands now.
        now: the instant by our clock.
        terms: what the owner told.
    """
    steps = [(lookout, Events())]
    _rewind(steps, now)
    arrivals = _arrivals(steps, news, now, terms)
    edges = boundaries(lookout.plan, lookout.judged.at, now) if lookout.judged.at else ()
    late = False
    for at in sorted({*arrivals, *edges}):
        before = steps[-1][0]
        for name, quote in arrivals.get(at, ()):
            _take(steps, name, quote, now, terms)
        if at not in edges and _lasts(steps[-1][0]) == _lasts(before):
            continue
        if before.judged.at is not None and at <= before.judged.at:
            late = True
            continue
        _judge(steps, at, _hindsight(arrivals, forecast, at, terms.horizon), before, terms)
    if late:
        _judge(steps, _not_before(now, steps), forecast, steps[-1][0], terms)
    return steps[1:]


def follow(lookout: Lookout, plan: FollowPlan, forecast: Series, now: datetime, terms: Terms) -> Steps:
    """A plan in: it counts at once if it is the newest."""
    lookout = replace(lookout, plan=newer(lookout.plan, plan))
    steps = [(lookout, Events())]
    _rewind(steps, now)
    _judge(steps, _not_before(now, steps), forecast, steps[-1][0], terms)
    return steps


def pass_time(lookout: Lookout, forecast: Series, now: datetime, terms: Terms) -> Steps:
    """Time passed: what is foreseen comes near, or the site is stale by now."""
    watch, policy = _held(lookout, forecast, terms)
    watch, said = windows.tick(watch, now, policy)
    return [(replace(lookout, watch=watch), said)]


def end(lookout: Lookout, now: datetime, terms: Terms) -> Steps:
    """There will be no more news: whatever is open or expected ends here."""
    watch, said = windows.finish(lookout.watch, now, terms.policy)
    return [(replace(lookout, watch=watch), said)]


def unmissed(steps: Steps) -> Steps:
    """The steps that say something, and the last one; without a word about windows, and recoveries of the signal, that
    came and went within them.
    """
    told = [event for _, said in windows.unmissed([(one.watch, said) for one, said in steps]) for event in said]
    signs = [event for event in told if isinstance(event, SignalRecovered | SignalStale)]
    brief = {
        event.id
        for recovered, stale in pairwise(signs)
        if isinstance(recovered, SignalRecovered) and isinstance(stale, SignalStale)
        for event in (recovered, stale)
    }
    kept = {event.id for event in told} - brief
    worth = [(one, tuple(event for event in said if event.id in kept)) for one, said in steps]
    return [step for step in worth[:-1] if step[1]] + worth[-1:]


def next_due(lookout: Lookout, forecast: Series, now: datetime, terms: Terms) -> datetime | None:
    """When there is something to decide although no news came: silence, what is foreseen, or the plan."""
    watch, policy = _held(lookout, forecast, terms)
    heeded = heed(lookout.plan, now)
    due = [windows.next_tick(watch, policy), heeded.changes_at if heeded else None]
    # What lies in the past has been decided: nothing more follows from it.
    return min((instant for instant in due if instant is not None and instant > now), default=None)


def _judge(steps: Steps, at: datetime, forecast: Series, before: Lookout, terms: Terms) -> None:
    """Ask the rule at an instant; how long it was silent until then is told by what was known ``before``."""
    lookout = steps[-1][0]
    watch, policy = _held(before, forecast, terms)
    watch, lapsed = windows.lapse(watch, at, policy)
    seen, doubts = view(replace(lookout, watch=watch), at, forecast, terms)
    unanswered = None if seen.answered else (lookout.judged.unanswered_since or at)
    judged = lookout.judged.model_copy(update={"at": at, "unanswered_since": unanswered})
    steps.append((replace(lookout, watch=watch, judged=judged), lapsed))
    for name, doubt in doubts.items():
        _check(steps, name, doubt, at)
    shut_by_plan = seen.heeded is not None and not seen.heeded.runs and not watch.stale
    if seen.answered or shut_by_plan:
        sight = Sight(at, seen.verdict, seen.ahead, seen.intensity_g_per_kwh, seen.because, seen.planned)
        watch, said = windows.observe(watch, sight, policy)
        steps.append((replace(steps[-1][0], watch=watch), said))


def _arrivals(steps: Steps, news: News, now: datetime, terms: Terms) -> Mapping[datetime, Sequence[tuple[str, Quote]]]:
    """The values by their time; what could not be had is told at once."""
    arrivals: dict[datetime, list[tuple[str, Quote]]] = {}
    for name, given in news.items():
        if isinstance(given, Unbelievable):
            _take(steps, name, given, now, terms)
            continue
        for quote in given:
            arrivals.setdefault(quote.point_time, []).append((name, quote))
    return arrivals


def _take(steps: Steps, name: str, given: Quote | Unbelievable, now: datetime, terms: Terms) -> None:
    lookout = steps[-1][0]
    intake, said = take(lookout.intakes[name], given, now, look_back=look_back(terms.rule, name))
    _remember(steps, name, intake, said)


def _check(steps: Steps, name: str, doubt: Unbelievable | None, at: datetime) -> None:
    intake = steps[-1][0].intakes[name]
    _remember(steps, name, *((settle(intake), ()) if doubt is None else refuse(intake, doubt, at)))


def _remember(steps: Steps, name: str, intake: Intake, said: Events) -> None:
    lookout = steps[-1][0]
    if said or intake != lookout.intakes[name]:
        steps.append((replace(lookout, intakes={**lookout.intakes, name: intake}), said))


def _lasts(lookout: Lookout) -> Mapping[str, Quote | None]:
    return {name: intake.last for name, intake in lookout.intakes.items()}


def _rewind(steps: Steps, now: datetime) -> None:
    """Forget what was remembered of a future that is none: the clock was ahead, and has been set back."""
    for name, intake in steps[-1][0].intakes.items():
        _remember(steps, name, *set_back(intake, now))
    lookout = steps[-1][0]
    gate, judged = lookout.watch.gate, lookout.judged
    remembered = (judged.at, gate.moved_at, gate.clean_since, gate.dirty_since)
    if all(at is None or at <= now + EARLY for at in remembered):
        return
    gate = gate._replace(
        moved_at=_past(gate.moved_at, now),
        clean_since=_past(gate.clean_since, now),
        dirty_since=_past(gate.dirty_since, now),
    )
    watch = lookout.watch.model_copy(update={"watched_since": now, "last_point_time": None, "gate": gate})
    if judged.at is not None and judged.at > now:
        judged = judged.model_copy(update={"at": None, "unanswered_since": None})
    steps.append((replace(lookout, watch=watch, judged=judged), ()))


def _not_before(now: datetime, steps: Steps) -> datetime:
    """Now, or a moment after the rule was last asked: no instant is judged twice."""
    asked_at = steps[-1][0].judged.at
    return now if asked_at is None else max(now, asked_at + datetime.resolution)


def _past(at: datetime | None, now: datetime) -> datetime | None:
    return None if at is None else min(at, now)


def _held(lookout: Lookout, forecast: Series, terms: Terms) -> tuple[Watch, Policy]:
    """The watch and the policy whose silence is that of the signal on which the answer rests.

    Signals fall silent one after the other. The first whose silence leaves the rule without an answer is the one.
    """
    known = {name: intake.last for name, intake in lookout.intakes.items() if intake.last is not None}
    remaining = {name: known[name] for name in signals(terms.rule) if name in known}
    history, at = history_of(lookout, terms), lookout.judged.at
    decisive: str | None = None
    for name in sorted(remaining, key=lambda name: known[name].point_time + terms.limit(name)):
        if not answered(terms.rule, remaining, history, forecast, at):
            break
        decisive = name
        del remaining[name]
    if decisive is None:
        return lookout.watch.model_copy(update={"last_point_time": None}), terms.policy
    limit = terms.limit(decisive)
    policy = terms.policy if limit == terms.policy.stale_after else replace(terms.policy, stale_after=limit)
    since = known[decisive].point_time
    if lookout.judged.unanswered_since is not None:
        # Nothing depended on it before: the site was not stale then.
        since = max(since, lookout.judged.unanswered_since - limit)
    return lookout.watch.model_copy(update={"last_point_time": since}), policy


def _hindsight(
    arrivals: Mapping[datetime, Sequence[tuple[str, Quote]]], forecast: Series, at: datetime, horizon: timedelta
) -> Series:
    """What was expected at an instant that is over: what came after it, and then the forecast as it stands now."""
    ahead: dict[str, list[Valued]] = {}
    for point_time in sorted(later for later in arrivals if at < later <= at + horizon):
        for name, quote in arrivals[point_time]:
            if math.isfinite(quote.value):
                ahead.setdefault(name, []).append(quote)
    for name, points in forecast.items():
        told = ahead.setdefault(name, [])
        since = told[-1].point_time if told else at
        told += [point for point in points if since < point.point_time <= at + horizon]
    return ahead
