"""The gate as tables and as laws: it never flaps, and it may be looked at only where something can change."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.energy.forecast import PERFECT, ForecastError
from windfall.energy.gate import Gate, Move, Outlook, Phase, Step, due, look, outlook, shut, tick
from windfall.energy.policy import Policy
from windfall.energy.verdict import Verdict

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLEAN, BETWEEN, DIRTY = Verdict.CLEAN, Verdict.BETWEEN, Verdict.DIRTY
LETTERS = {"c": CLEAN, "b": BETWEEN, "d": DIRTY}


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def at(minute: float) -> datetime:
    return NOON + minutes(minute)


def live(verdicts: Sequence[Verdict], policy: Policy, sees: bool = True, step: float = 5.0) -> list[Step]:
    """Every verdict through the gate, with all that follow it as the forecast, and every tick that falls due."""
    gate, said = Gate(), list[Step]()
    for place, verdict in enumerate(verdicts):
        now = at(step * place)
        while (when := due(gate, policy)) is not None and when < now:
            gate, steps = tick(gate, when, policy)
            assert steps, "what is due has something to do"
            said += steps
        ahead = [(at(step * later), verdicts[later]) for later in range(place + 1, len(verdicts))] if sees else None
        gate, steps = look(gate, now, verdict, ahead or None, policy)
        said += steps
    return said


def told(steps: Sequence[Step]) -> list[str]:
    return [f"{step.move.name.lower()}{(step.at - NOON) / minutes(1):+g}" for step in steps]


def spelled(word: str) -> list[Verdict]:
    return [LETTERS[letter] for letter in word]


@pytest.mark.parametrize(
    ("word", "ride", "is_open", "seen"),
    [
        ("dddccdd", 0, False, (15, 25)),
        ("dddcbcd", 0, False, (15, 30)),
        ("cccd", 0, False, (0, 15)),
        ("ccdcd", 5, False, (0, 20)),
        ("ccddc", 5, False, (0, 10)),
        ("ccc", 0, False, (0, None)),
        ("ddd", 0, False, (None, None)),
        ("bbcd", 0, True, (0, 15)),
        ("dcc", 5, True, (0, None)),
        ("ddc", 5, True, (0, 0)),
    ],
)
def test_an_outlook(word: str, ride: float, is_open: bool, seen: tuple[float | None, float | None]) -> None:
    first, *rest = spelled(word)
    ahead = [(at(5.0 * (place + 1)), verdict) for place, verdict in enumerate(rest)]
    expected = Outlook(*(None if minute is None else at(minute) for minute in seen))
    assert outlook(at(0), first, ahead, minutes(ride), is_open) == expected


START = Policy(start_up=minutes(4), drain=minutes(0.5), closing_lead=minutes(0.5), payback=0.0, error=PERFECT)


@pytest.mark.parametrize(
    ("word", "policy", "said"),
    [
        ("dddccccdd", START, ["expect+11", "open+15", "warn+34.5", "close+35"]),
        ("dddccccdcccdd", START, ["expect+11", "open+15", "warn+34.5", "close+35", "expect+36", "open+40"]),
        ("d" + "c" * 40 + "dd", START, ["open+5", "warn+204.5", "close+205"]),
        ("cccdd", START, ["open+0", "warn+14.5", "close+15"]),
        ("dccdd", Policy(minimum_off=minutes(20), error=PERFECT), ["open+5", "warn+10", "close+15"]),
    ],
    ids=["warm", "two-in-a-row", "long-starts-cold", "clean-from-the-start", "nothing-before-needs-no-rest"],
)
def test_a_gate_that_sees(word: str, policy: Policy, said: list[str]) -> None:
    assert told(live(spelled(word), policy))[: len(said)] == said


def test_rest_and_stay() -> None:
    rest = Policy(minimum_off=minutes(20), error=PERFECT, closing_lead=minutes(0))
    assert told(live(spelled("ccdccccccdd"), rest)) == ["open+0", "close+10", "open+30", "close+45"]
    stay = Policy(minimum_on=minutes(20), error=PERFECT, closing_lead=minutes(0))
    assert told(live(spelled("ccdddddd"), stay)) == ["open+0", "close+20"]


def test_what_is_shut_is_taken_back_or_closed() -> None:
    assert shut(Gate(), at(0)) == (Gate(), ())
    assert shut(Gate(Phase.EXPECTED), at(0))[1] == (Step(Move.WITHDRAW, at(0)),)
    assert shut(Gate(Phase.OPEN, at(0)), at(5)) == (Gate(moved_at=at(5)), (Step(Move.CLOSE, at(5)),))


WORDS = st.lists(st.sampled_from([CLEAN, CLEAN, BETWEEN, DIRTY, DIRTY]), min_size=2, max_size=60)
SPANS = st.sampled_from([minutes(0), minutes(5), minutes(7), minutes(15)])


@given(WORDS, SPANS, SPANS, SPANS, SPANS, st.booleans(), st.sampled_from([minutes(0), minutes(4)]))
def test_never_two_transitions_within_a_dwell(
    verdicts: list[Verdict],
    dwell: timedelta,
    grace: timedelta,
    on: timedelta,
    off: timedelta,
    sees: bool,
    start_up: timedelta,
) -> None:
    policy = Policy(dwell=dwell, grace=grace, minimum_on=on, minimum_off=off, start_up=start_up, error=PERFECT)
    moves = [step for step in live(verdicts, policy, sees) if step.move in (Move.OPEN, Move.CLOSE)]
    for before, after in pairwise(moves):
        assert before.move is not after.move
        assert after.at - before.at >= dwell
        least = on if before.move is Move.OPEN else off
        assert after.at - before.at >= least


@given(WORDS, st.booleans(), st.sampled_from([minutes(0), minutes(4), minutes(20)]))
def test_moves_come_in_the_order_of_a_life(verdicts: list[Verdict], sees: bool, start_up: timedelta) -> None:
    policy = Policy(start_up=start_up, error=ForecastError(), drain=minutes(1))
    follows = {
        None: {Move.EXPECT, Move.OPEN},
        Move.EXPECT: {Move.OPEN, Move.WITHDRAW},
        Move.WITHDRAW: {Move.EXPECT, Move.OPEN},
        Move.OPEN: {Move.WARN, Move.CLOSE},
        Move.WARN: {Move.WARN, Move.CLOSE},
        Move.CLOSE: {Move.EXPECT, Move.OPEN},
    }
    last: Move | None = None
    said = live(verdicts, policy, sees)
    assert [step.at for step in said] == sorted(step.at for step in said)
    for step in said:
        assert step.move in follows[last]
        last = step.move


@given(WORDS)
def test_clean_power_alone_opens_and_only_dirty_power_or_a_forecast_closes(verdicts: list[Verdict]) -> None:
    when = {at(5.0 * place): verdict for place, verdict in enumerate(verdicts)}
    for step in live(verdicts, Policy(error=PERFECT)):
        if step.move is Move.OPEN:
            assert when[step.at] is CLEAN
        if step.move is Move.CLOSE:
            assert when[step.at] is DIRTY


def test_a_forecast_that_is_always_about_to_be_clean_does_not_keep_a_window_open() -> None:
    policy = Policy(ride_through=minutes(20), error=PERFECT)
    gate, _ = look(Gate(), at(0), CLEAN, [(at(5), CLEAN)], policy)
    closed = list[Step]()
    for minute in range(5, 65, 5):
        gate, steps = look(gate, at(minute), DIRTY, [(at(minute + 5), CLEAN)], policy)
        closed += [step for step in steps if step.move is Move.CLOSE]
    assert told(closed) == ["close+25"]
