"""When a window is expected, opens and closes: one pure step over verdicts, whoever has judged and whoever listens.

The watcher says what this decides, the simulator lives by it, at each reading (``look``) and at the instants in between
that the gate itself names (``due``, ``tick``).

Shut, a run of clean verdicts that has lasted the dwell opens it, if the window is worth its start-up. Open, the first
dirty verdict shuts it, unless the forecast has clean power again within ``ride_through`` of it; without a forecast a
dirty run must last the grace. A verdict between the two ends either run and changes nothing else. Ahead of an opening
the gate may say *expect*, so that capacity is warm in time, and ahead of a closing *warn*, so that what was trained is
delivered.

An opening and a closing are never nearer to each other than the dwell. Only what ends a window from outside (``shut``:
the signal is silent, or at its end) does not wait: it fails closed.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import IntEnum
from typing import NamedTuple

from windfall.energy.policy import Policy
from windfall.energy.verdict import Verdict

Run = tuple[datetime, Verdict]
"""A verdict and the instant from which on it is expected to hold, until the next one."""


class Phase(IntEnum):
    """Where a gate stands."""

    SHUT = 0
    EXPECTED = 1
    """Shut, and capacity is on its way."""
    OPEN = 2


class Move(IntEnum):
    """What a gate does."""

    EXPECT = 0
    WITHDRAW = 1
    OPEN = 2
    WARN = 3
    CLOSE = 4


class Gate(NamedTuple):
    """All that is remembered between two looks."""

    phase: Phase = Phase.SHUT
    moved_at: datetime | None = None
    """The last opening or closing; none before the first."""
    clean_since: datetime | None = None
    """Begin of the run of clean verdicts, while shut."""
    dirty_since: datetime | None = None
    """Begin of the run of dirty ones, while open."""
    opens_at: datetime | None = None
    """While shut: the next opening that the forecast sees and that is worth it."""
    closes_at: datetime | None = None
    """The end of the window that is open or comes next, by the forecast."""
    warned_of: datetime | None = None
    """The end that was last warned of."""
    seen_at: datetime | None = None
    """When the forecast was last looked at."""


class Step(NamedTuple):
    """One move."""

    move: Move
    at: datetime
    until: datetime | None = None
    """EXPECT: the opening. OPEN, WARN: the end that is foreseen."""
    ends: datetime | None = None
    """EXPECT: the end that is foreseen."""


Looked = tuple[Gate, tuple[Step, ...]]


class Outlook(NamedTuple):
    """The next clean stretch."""

    opens_at: datetime | None
    """Its begin: now when it is clean already; none when there is none in sight."""
    closes_at: datetime | None
    """Its end; none when none is in sight."""


def outlook(
    at: datetime,
    verdict: Verdict,
    ahead: Sequence[Run],
    ride_through: timedelta,
    is_open: bool,
    dirty_since: datetime | None = None,
) -> Outlook:
    """Read a forecast: when the next clean stretch begins and ends.

    A stretch that is on goes on through verdicts between, and through dirty ones that end within ``ride_through``. One
    that is dirty now counts from when it was measured to be (``dirty_since``): a forecast that says again and again
    that it is about to end must not keep a window open.
    """
    opens_at = at if verdict is Verdict.CLEAN or is_open else None
    dirty_since = (dirty_since or at) if opens_at is not None and verdict is Verdict.DIRTY else None
    for since, expected in ahead:
        if opens_at is None:
            if expected is Verdict.CLEAN:
                opens_at = since
        elif expected is Verdict.DIRTY:
            dirty_since = dirty_since or since
        elif dirty_since is not None:
            if since - dirty_since > ride_through:
                break
            dirty_since = None
    return Outlook(opens_at, dirty_since)


def look(gate: Gate, at: datetime, verdict: Verdict, ahead: Sequence[Run] | None, policy: Policy) -> Looked:
    """A verdict for now, with those that are expected (none: nothing is known of what comes)."""
    steps: tuple[Step, ...] = ()
    if gate.phase is Phase.OPEN:
        gate, steps = _inside(gate, at, verdict, _seen(gate, at, verdict, ahead, policy), policy)
        if gate.phase is Phase.OPEN:
            return gate, steps
    gate, more = _outside(gate, at, verdict, _seen(gate, at, verdict, ahead, policy), policy)
    return gate, (*steps, *more)


def _seen(gate: Gate, at: datetime, verdict: Verdict, ahead: Sequence[Run] | None, policy: Policy) -> Outlook | None:
    if ahead is None:
        return None
    return outlook(at, verdict, ahead, policy.ride_through, gate.phase is Phase.OPEN, gate.dirty_since)


def tick(gate: Gate, now: datetime, policy: Policy) -> Looked:
    """Time passed without a verdict: an opening or an end that is foreseen comes near."""
    if gate.phase is Phase.OPEN:
        return _warned(gate, now, policy)
    return _expected(gate, now, policy) if gate.phase is Phase.SHUT else (gate, ())


def due(gate: Gate, policy: Policy) -> datetime | None:
    """When ``tick`` has something to do if no verdict comes first; none when it will not."""
    if gate.phase is Phase.OPEN:
        if gate.closes_at is None or gate.seen_at is None or gate.warned_of is not None:
            return None
        return gate.closes_at - policy.closing_lead if policy.drains_ahead(gate.closes_at - gate.seen_at) else None
    return _expected_at(gate, policy) if gate.phase is Phase.SHUT else None


def passes_up(gate: Gate, at: datetime, policy: Policy) -> bool:
    """Whether clean power goes unused at an instant, because its window would not pay back a start."""
    if gate.phase is not Phase.SHUT or gate.clean_since is None or not policy.is_choosy:
        return False
    rested = gate.moved_at is None or at - gate.moved_at >= policy.minimum_off
    return rested and at - gate.clean_since >= policy.dwell


def shut(gate: Gate, at: datetime) -> Looked:
    """Whatever was open or expected ends here: the signal is silent, or there is no more of it."""
    if gate.phase is Phase.SHUT:
        return gate._replace(clean_since=None, opens_at=None, closes_at=None), ()
    if gate.phase is Phase.EXPECTED:
        return Gate(moved_at=gate.moved_at), (Step(Move.WITHDRAW, at),)
    return Gate(moved_at=at), (Step(Move.CLOSE, at),)


def _outside(gate: Gate, at: datetime, verdict: Verdict, seen: Outlook | None, policy: Policy) -> Looked:
    warm = gate.phase is Phase.EXPECTED
    clean_since = (gate.clean_since or at) if verdict is Verdict.CLEAN else None
    opens_at, closes_at = seen or (clean_since, None)
    lasts = None if opens_at is None or closes_at is None else closes_at - opens_at
    if (
        clean_since is not None
        and at - clean_since >= policy.dwell
        and (gate.moved_at is None or at - gate.moved_at >= policy.minimum_off)
        and (warm or lasts is None or lasts >= policy.shortest_cold)
    ):
        opened, warned = _warned(Gate(Phase.OPEN, at, closes_at=closes_at, seen_at=at), at, policy)
        return opened, (Step(Move.OPEN, at, closes_at), *warned)
    if (
        not warm
        and lasts is not None
        and lasts < (policy.shortest_warm if policy.warms(lasts) else policy.shortest_cold)
    ):
        opens_at = closes_at = None
    gate = Gate(gate.phase, gate.moved_at, clean_since, None, opens_at, closes_at)
    if not warm:
        return _expected(gate, at, policy)
    # It idles on dirty power: no longer than a new start would take.
    if clean_since is not None or (opens_at is not None and opens_at - at <= policy.warm_lead):
        return gate, ()
    return gate._replace(phase=Phase.SHUT), (Step(Move.WITHDRAW, at),)


def _inside(gate: Gate, at: datetime, verdict: Verdict, seen: Outlook | None, policy: Policy) -> Looked:
    dirty_since = (gate.dirty_since or at) if verdict is Verdict.DIRTY else None
    closes_at = seen.closes_at if seen is not None else None
    if closes_at is not None and gate.moved_at is not None and policy.least_open:
        closes_at = max(closes_at, gate.moved_at + policy.least_open)
    # Who was warned of an end that did not come has left: only a new window brings it back.
    over = gate.warned_of is not None and gate.warned_of <= at
    if dirty_since is not None:
        for_good = closes_at is not None and closes_at <= at
        over = for_good or (seen is None and at - dirty_since >= policy.grace)
    if over and (gate.moved_at is None or at - gate.moved_at >= policy.least_open):
        return Gate(moved_at=at), (Step(Move.CLOSE, at),)
    inside = Gate(Phase.OPEN, gate.moved_at, None, dirty_since, None, closes_at, gate.warned_of, at)
    return _warned(inside, at, policy)


def _warned(gate: Gate, now: datetime, policy: Policy) -> Looked:
    """Say that the end is near; again when it is moved, as long as nobody can have left because of it."""
    ends_at = gate.closes_at
    if gate.warned_of is not None and gate.warned_of > now and ends_at != gate.warned_of:
        later = ends_at if ends_at is not None else now + policy.stale_after
        return _warning(gate, later), (Step(Move.WARN, now, later),)
    if ends_at is None or gate.warned_of is not None or ends_at - now > policy.closing_lead:
        return gate, ()
    if not policy.drains_ahead(ends_at - (gate.seen_at or now)):
        return gate, ()
    return _warning(gate, ends_at), (Step(Move.WARN, now, ends_at),)


def _warning(gate: Gate, of: datetime) -> Gate:
    return Gate(gate.phase, gate.moved_at, None, gate.dirty_since, None, gate.closes_at, of, gate.seen_at)


def _expected(gate: Gate, now: datetime, policy: Policy) -> Looked:
    starts_at = _expected_at(gate, policy)
    if starts_at is None or starts_at > now:
        return gate, ()
    return gate._replace(phase=Phase.EXPECTED), (Step(Move.EXPECT, now, gate.opens_at, gate.closes_at),)


def _expected_at(gate: Gate, policy: Policy) -> datetime | None:
    """When capacity has to start for the opening that is foreseen; none when it may start with the opening."""
    if gate.opens_at is None or gate.closes_at is None or gate.clean_since is not None:
        return None
    if not policy.warms(gate.closes_at - gate.opens_at):
        return None
    opens_at = gate.opens_at
    if gate.moved_at is not None and policy.minimum_off:
        opens_at = max(opens_at, gate.moved_at + policy.minimum_off)
    return opens_at + policy.dwell - policy.warm_lead
