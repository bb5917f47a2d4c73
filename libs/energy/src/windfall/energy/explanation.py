"""Why a site is on or off, and what would change it, in a sentence each."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from windfall.contracts.events import WindowJudged
from windfall.contracts.message import derived_id
from windfall.energy.gate import Phase
from windfall.energy.lookout import Lookout, Terms, View, view
from windfall.energy.thresholds import Series
from windfall.energy.verdict import Verdict
from windfall.energy.windows import Events, Watch

State = Literal["off", "expected", "on", "stale"]


def explain(lookout: Lookout, forecast: Series, now: datetime, terms: Terms) -> tuple[Lookout, Events]:
    """Say how things stand, if the state or what decides it is other than when it was last said."""
    seen, _ = view(lookout, now, forecast, terms)
    state = _state(lookout.watch)
    deciding = _deciding(seen, state)
    judged = lookout.judged
    if (judged.state, judged.deciding) == (state, deciding):
        return lookout, ()
    because, would_change = _sentences(lookout, seen, now, terms)
    text = f"{now.astimezone(UTC).isoformat()}/{state}/{';'.join(deciding)}"
    event = WindowJudged(
        id=derived_id(text, WindowJudged.topic, lookout.watch.site),
        at=now,
        site=lookout.watch.site,
        state=state,
        because=because,
        would_change=would_change,
        next_change_at=_next_change(lookout, seen, now),
    )
    said = judged.model_copy(update={"state": state, "deciding": deciding})
    return replace(lookout, judged=said), (event,)


def _state(watch: Watch) -> State:
    if watch.stale:
        return "stale"
    states: dict[Phase, State] = {Phase.SHUT: "off", Phase.EXPECTED: "expected", Phase.OPEN: "on"}
    return states[watch.gate.phase]


def _deciding(seen: View, state: State) -> tuple[str, ...]:
    if seen.heeded is not None and not seen.heeded.runs:
        return ("plan",)
    # Where power is clean and the site off, the signal decides no more, though the same limit was looked at.
    waits = state == "off" and seen.verdict is Verdict.CLEAN
    return (*seen.judgement.deciding, "waits") if waits else seen.judgement.deciding


def _sentences(lookout: Lookout, seen: View, now: datetime, terms: Terms) -> tuple[str, str]:
    """Because, and what would change it."""
    watch, policy, plan = lookout.watch, terms.policy, lookout.plan
    because, would_change = seen.because, seen.judgement.would_change
    if seen.heeded is not None and plan is not None and not seen.heeded.runs:
        soonest = f"{seen.heeded.changes_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        return (
            f"{because}: {plan.because}",
            f"on when the plan has a use for it or is over, {soonest} at the soonest",
        )
    if watch.is_open and seen.verdict is Verdict.DIRTY:
        return f"{because}, though not yet for {_minutes(policy.grace)}", would_change
    if watch.is_open or watch.stale or seen.verdict is not Verdict.CLEAN:
        return because, would_change
    gate = watch.gate
    if gate.clean_since is not None and now - gate.clean_since < policy.dwell:
        return f"{because}, though not yet for {_minutes(policy.dwell)}", "on when it stays so"
    if gate.moved_at is not None and now - gate.moved_at < policy.minimum_off:
        off = _minutes(policy.minimum_off)
        return f"{because}, though it has not been off for {off}", f"on when it has been off for {off} and is still so"
    return f"{because}, though for too short a time to pay back a start", "on when a longer window comes"


def _next_change(lookout: Lookout, seen: View, now: datetime) -> datetime | None:
    gate = lookout.watch.gate
    foreseen = gate.closes_at if gate.phase is Phase.OPEN else gate.opens_at
    if foreseen is None and seen.heeded is not None:
        return seen.heeded.changes_at
    return foreseen if foreseen is None or foreseen > now else None


def _minutes(duration: timedelta) -> str:
    return f"{duration / timedelta(minutes=1):g} minutes"
