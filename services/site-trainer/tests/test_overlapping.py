"""What a trainer does next while what it said is on its way: each state's action here and beside, and every word."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.site_trainer import overlapping
from windfall.site_trainer import session as sessions
from windfall.site_trainer.overlapping import beside, delivered, next_action
from windfall.site_trainer.session import Action, Opening, Session, Work

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = timedelta(minutes=1)
DONE, SINCE = Work(10, 100, 2.5), Work(3, 30, 2.0)
BASE, NEXT = "a" * 64, "b" * 64
NEWER = Opening(4, NEXT, 64, 10, 4)

Word = Callable[[Session], Session]


def opened(number: int = 3, digest: str = BASE) -> Word:
    return partial(overlapping.opened, opening=Opening(number, digest, 64, 10, 4))


def after(session: Session, *words: Word) -> Session:
    for word in words:
        session = word(session)
    return session


def worked(work: Work, digest: str = BASE) -> Word:
    return partial(overlapping.worked, digest=digest, work=work)


counts: Word = partial(overlapping.pushed, number=3, attempt=1)
late: Word = partial(overlapping.refused, number=3, late=True)
bad: Word = partial(overlapping.refused, number=3, late=False)
fetched: Word = partial(overlapping.fetched, digest=NEXT)
stopped: Word = partial(overlapping.stop, reason="asked to", now=NOON)
told: Word = partial(overlapping.told, attempt=1)
rejoined: Word = partial(overlapping.joined, attempt=2)

JOINED = overlapping.allowed(overlapping.joined(Session(lead=SOON), 1), True)
FULL = after(JOINED, opened(), partial(sessions.pulled, digest=BASE), worked(DONE))
TOLD = after(FULL, told)
ON = after(TOLD, worked(SINCE))

STATES: dict[str, tuple[Session, Action, Action | None]] = {
    # state: (what it does, what it does beside)
    "its box is full": (FULL, Action.TELL, None),
    "the same without overlap": (overlapping.allowed(FULL, False), Action.PUSH, None),
    "told": (TOLD, Action.STEP, Action.PUSH),
    "told and trained on, further than a box": (after(TOLD, worked(DONE)), Action.STEP, Action.PUSH),
    "the next round is open before it is known whether it counts": (
        after(ON, opened(4, NEXT)),
        Action.STEP,
        Action.PUSH,
    ),
    "it counts": (after(ON, counts), Action.STEP, None),
    "it counts, and the same round is said again": (after(ON, counts, opened()), Action.STEP, None),
    "it counts, and the next round is open": (after(ON, counts, opened(4, NEXT)), Action.STEP, Action.PULL),
    "the base lies ready": (after(ON, counts, opened(4, NEXT), fetched), Action.REBASE, None),
    "a newer one is open": (after(ON, counts, opened(4, NEXT), fetched, opened(5, "c" * 64)), Action.STEP, Action.PULL),
    "the base is gone": (
        after(ON, counts, opened(4, NEXT), partial(overlapping.base_gone, digest=NEXT)),
        Action.STEP,
        None,
    ),
    "too late": (after(ON, late), Action.STEP, None),
    "too late, and the next base lies ready": (after(ON, late, opened(4, NEXT), fetched), Action.REBASE, None),
    "too late, and its round is opened anew": (after(ON, late, opened()), Action.PULL, None),
    "it did not pass": (after(ON, bad), Action.WAIT, None),
    "it did not pass, and its round was opened anew": (after(ON, opened(), bad), Action.PULL, None),
    "it did not pass, and the next round is open": (after(ON, opened(4, NEXT), bad), Action.PULL, None),
    "its membership ended": (after(ON, sessions.membership_ended), Action.JOIN, None),
    "under a new membership": (after(ON, sessions.membership_ended, rejoined), Action.STEP, Action.PUSH),
    "the new membership is asked for the round of the old one": (
        after(ON, sessions.membership_ended, rejoined, opened(), partial(overlapping.arrived, number=3, attempt=1)),
        Action.STEP,
        Action.PULL,
    ),
    "the new membership's own counts": (
        after(ON, sessions.membership_ended, rejoined, opened(), partial(overlapping.pushed, number=3, attempt=2)),
        Action.STEP,
        None,
    ),
    "its rows are another's": (after(ON, overlapping.disowned), Action.WAIT, Action.PUSH),
    "its rows are another's, and it counts": (
        after(ON, overlapping.disowned, counts, opened(4, NEXT)),
        Action.PULL,
        None,
    ),
    "drains with something on its way": (after(TOLD, stopped), Action.WAIT, Action.PUSH),
    "drains, and all of it counts": (after(TOLD, counts, stopped), Action.LEAVE, None),
    "drains with a rest": (after(ON, counts, stopped), Action.WAIT, None),
    "drains with a rest, and a round is open": (after(ON, counts, stopped, opened(4, NEXT)), Action.WAIT, Action.PULL),
    "drains with a rest, and its base lies ready": (
        after(ON, counts, stopped, opened(4, NEXT), fetched),
        Action.REBASE,
        None,
    ),
    "drains with a rest on the next base": (
        after(
            ON,
            counts,
            stopped,
            opened(4, NEXT),
            fetched,
            partial(overlapping.rebased, opening=NEWER, work=SINCE),
        ),
        Action.TELL,
        None,
    ),
    "the federation wants no more": (after(ON, counts, overlapping.dismissed, stopped), Action.LEAVE, None),
    "not admitted any more": (
        after(ON, sessions.membership_ended, partial(overlapping.refused_entry, reason="fenced")),
        Action.LEAVE,
        None,
    ),
}


@pytest.mark.parametrize(("session", "here", "there"), STATES.values(), ids=STATES)
def test_each_state_has_one_action_here_and_one_beside(session: Session, here: Action, there: Action | None) -> None:
    assert (next_action(session, NOON), beside(session)) == (here, there)


def test_what_is_trained_meanwhile_is_work_of_the_next_round() -> None:
    assert TOLD.told is not None and (TOLD.told.work, TOLD.work) == (DONE, Work())
    on = after(ON, counts, opened(4, NEXT), fetched, partial(overlapping.rebased, opening=NEWER, work=SINCE))
    assert (on.round, on.loaded, on.work, on.told, on.delivered) == (4, NEXT, SINCE, None, True)
    assert next_action(on, NOON) is Action.STEP
    assert next_action(after(on, worked(DONE, NEXT)), NOON) is Action.TELL


def test_the_coordinator_hears_of_the_new_work_once_its_round_is_begun() -> None:
    assert overlapping.way(ON) == (3, DONE)
    on = after(ON, counts, opened(4, NEXT), fetched, partial(overlapping.rebased, opening=NEWER, work=SINCE))
    assert overlapping.way(on) == (4, SINCE)


def test_who_drains_waits_for_a_round_as_long_as_a_push_may_take_and_says_what_is_lost() -> None:
    drains = after(replace(ON, lead=SOON), counts, stopped)
    assert overlapping.next_instant(drains, NOON) == NOON + SOON
    assert next_action(drains, NOON + SOON) is Action.LEAVE
    assert not delivered(drains)
    assert delivered(after(TOLD, counts)) and not delivered(TOLD) and not delivered(after(TOLD, late))
    closes = after(replace(ON, lead=5 * SOON), counts, partial(sessions.closing, closes_at=NOON + SOON, said_at=NOON))
    assert next_action(closes, NOON) is Action.WAIT
    assert next_action(closes, NOON + SOON) is Action.LEAVE, "at the window's end there is no power to wait with"


def test_what_is_on_its_way_is_waited_for_until_it_is_known_whether_it_counts() -> None:
    assert next_action(after(replace(TOLD, lead=SOON), stopped), NOON + 60 * SOON) is Action.WAIT


def test_a_round_that_opens_while_the_engine_goes_over_is_not_forgotten() -> None:
    ready = after(ON, counts, opened(4, NEXT), fetched, opened(5, "c" * 64))
    on = overlapping.rebased(ready, NEWER, SINCE)
    assert on.then is not None and on.then.number == 5
    assert next_action(on, NOON) is Action.TELL, "what is late is told first"
    empty = overlapping.rebased(ready, NEWER, Work())
    assert (empty.round, next_action(empty, NOON)) == (5, Action.PULL)


def test_a_step_that_ends_after_its_work_was_lost_changes_nothing() -> None:
    lost = after(sessions.stepping(ON), bad)
    assert after(lost, worked(SINCE)).work == Work()
    assert not lost.delivered


WORDS: list[Word] = [
    *(opened(number, digest) for number, digest in ((3, BASE), (4, NEXT), (5, "c" * 64))),
    worked(SINCE),
    counts,
    partial(overlapping.arrived, number=3, attempt=1),
    late,
    bad,
    fetched,
    overlapping.disowned,
    sessions.membership_ended,
    rejoined,
    partial(sessions.finish, number=4),
    partial(overlapping.base_gone, digest=NEXT),
    stopped,
    overlapping.dismissed,
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_no_words_in_any_order_leave_a_site_that_rests_with_nothing_to_wait_for(words: list[Word]) -> None:
    session = after(ON, *words)
    here, there = next_action(session, NOON), beside(session)
    assert here in set(Action)
    if session.told is not None and here is Action.STEP:
        assert session.loaded == session.base_digest, "a step stands on the base that the contribution names"
    if there is Action.PUSH:
        assert session.told is not None and session.told.counts is None
