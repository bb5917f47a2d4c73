"""What a trainer does next: each state's one action, and words that come twice, late, or in another order."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.site_trainer import session as sessions
from windfall.site_trainer.session import Action, Opening, Session, Work, next_action

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOON = timedelta(minutes=1)
DONE = Work(10, 100, 2.5)
BASE, NEXT = "a" * 64, "b" * 64

Word = Callable[[Session], Session]


def opened(number: int = 3, digest: str = BASE, steps: int = 0) -> Word:
    return partial(sessions.opened, opening=Opening(number, digest, 64, steps, 4))


def told(session: Session, *words: Word) -> Session:
    for word in words:
        session = word(session)
    return session


WARM = sessions.warmed(Session(permitted=False))
JOINED = sessions.joined(Session(), 1)
OPENED = told(JOINED, opened())
LOADED = sessions.pulled(OPENED, BASE)
WORKED = sessions.worked(LOADED, BASE, DONE)
PUSHING = sessions.pushing(WORKED)
PUSHED = sessions.pushed(PUSHING, 3)

STATES: dict[str, tuple[Session, Action, Action]] = {
    # state: (what it does, what it does once it drains)
    "before its window": (Session(permitted=False), Action.WARM, Action.LEAVE),
    "warm": (WARM, Action.WAIT, Action.LEAVE),
    "warm, and the window opens": (sessions.permitted(WARM), Action.JOIN, Action.LEAVE),
    "the window opens before it is warm": (sessions.permitted(Session(permitted=False)), Action.JOIN, Action.LEAVE),
    "warm, and a round is said to be over": (sessions.finish(WARM, 3), Action.WAIT, Action.LEAVE),
    "warm, and its window is withdrawn": (sessions.withdrawn(WARM, "no wind"), Action.LEAVE, Action.LEAVE),
    "withdrawn, and said to be open all the same": (
        sessions.permitted(sessions.withdrawn(WARM, "no wind")),
        Action.LEAVE,
        Action.LEAVE,
    ),
    "new": (Session(), Action.JOIN, Action.LEAVE),
    "joined": (JOINED, Action.WAIT, Action.LEAVE),
    "a round is open": (OPENED, Action.PULL, Action.LEAVE),
    "the base is loaded": (LOADED, Action.STEP, Action.LEAVE),
    "worked": (WORKED, Action.STEP, Action.PUSH),
    "boxed by steps, not enough": (told(WORKED, opened(steps=11)), Action.STEP, Action.PUSH),
    "boxed by steps, enough": (told(WORKED, opened(steps=10)), Action.PUSH, Action.PUSH),
    "over before the base came": (sessions.finish(OPENED, 3), Action.PULL, Action.LEAVE),
    "over before the first step": (sessions.finish(LOADED, 3), Action.STEP, Action.LEAVE),
    "over": (sessions.finish(WORKED, 3), Action.PUSH, Action.PUSH),
    "its contribution is on its way": (PUSHING, Action.PUSH, Action.PUSH),
    "and the next round is open": (told(PUSHING, opened(4, NEXT)), Action.PUSH, Action.PUSH),
    "and membership has ended": (sessions.membership_ended(PUSHING), Action.JOIN, Action.JOIN),
    "and both": (sessions.membership_ended(told(PUSHING, opened(4, NEXT))), Action.JOIN, Action.JOIN),
    "pushed": (PUSHED, Action.WAIT, Action.LEAVE),
    "pushed, and the next round is open": (told(PUSHED, opened(4, NEXT)), Action.PULL, Action.LEAVE),
    "refused": (sessions.refused(PUSHING, 3), Action.WAIT, Action.LEAVE),
    "refused, and the round opens again": (
        told(PUSHING, partial(sessions.refused, number=3), opened()),
        Action.PULL,
        Action.LEAVE,
    ),
    "the round opens again, and refused": (
        told(PUSHING, opened(), partial(sessions.refused, number=3)),
        Action.PULL,
        Action.LEAVE,
    ),
    "the round opens again, and accepted after all": (
        told(PUSHING, opened(), partial(sessions.pushed, number=3)),
        Action.WAIT,
        Action.LEAVE,
    ),
    "what was trained is not finite": (sessions.unsound(PUSHING), Action.JOIN, Action.LEAVE),
    "not finite, and the next round is open": (
        sessions.unsound(told(PUSHING, opened(4, NEXT))),
        Action.JOIN,
        Action.LEAVE,
    ),
    "a member again, with nothing": (sessions.joined(sessions.unsound(PUSHING), 2), Action.WAIT, Action.LEAVE),
    "a member again, with nothing, and the same round is opened to it": (
        told(PUSHING, sessions.unsound, partial(sessions.joined, attempt=2), opened()),
        Action.PULL,
        Action.LEAVE,
    ),
    "the base is gone": (sessions.base_gone(OPENED, BASE), Action.WAIT, Action.LEAVE),
    "membership ended without work": (sessions.membership_ended(LOADED), Action.JOIN, Action.LEAVE),
    "membership ended with work": (sessions.membership_ended(WORKED), Action.JOIN, Action.JOIN),
    "a member again, with work": (sessions.joined(sessions.membership_ended(WORKED), 2), Action.STEP, Action.PUSH),
    "a member again, after a push": (sessions.joined(sessions.membership_ended(PUSHED), 2), Action.WAIT, Action.LEAVE),
    "a member again, in a round that it pushed to before": (
        told(PUSHED, sessions.membership_ended, partial(sessions.joined, attempt=2), opened()),
        Action.PULL,
        Action.LEAVE,
    ),
    "what an earlier membership sent had arrived": (
        told(
            PUSHING,
            sessions.membership_ended,
            partial(sessions.joined, attempt=2),
            opened(),
            partial(sessions.arrived, number=3),
        ),
        Action.PULL,
        Action.LEAVE,
    ),
    "and the round does not wait for the new one": (
        told(
            PUSHING,
            sessions.membership_ended,
            partial(sessions.joined, attempt=2),
            partial(sessions.arrived, number=3),
        ),
        Action.WAIT,
        Action.LEAVE,
    ),
    "not admitted": (sessions.refused_entry(Session(), "fenced"), Action.LEAVE, Action.LEAVE),
    "not admitted again, with work": (
        sessions.refused_entry(sessions.membership_ended(WORKED), "fenced"),
        Action.LEAVE,
        Action.LEAVE,
    ),
    "gone": (sessions.gone(Session()), Action.END, Action.END),
}


@pytest.mark.parametrize(("state", "works", "drains"), STATES.values(), ids=STATES)
def test_one_action(state: Session, works: Action, drains: Action) -> None:
    assert next_action(state, NOON) is works
    assert next_action(sessions.stop(state, "told to"), NOON) is drains
    closing = sessions.closing(sessions.paced(state, SOON), NOON + SOON, NOON)
    assert next_action(closing, NOON) is drains
    assert next_action(closing, NOON - timedelta(microseconds=1)) is next_action(state, NOON - SOON)


def test_every_action_and_every_state_is_there() -> None:
    assert {works for _, works, _ in STATES.values()} == set(Action) - {Action.TELL, Action.REBASE}


# --- words that change nothing ----------------------------------------------------------------------------------------

NOTHING: dict[str, tuple[Session, Word]] = {
    "that the window opened": (WORKED, sessions.permitted),
    "the withdrawal of a window that has opened": (WORKED, partial(sessions.withdrawn, reason="no wind")),
    "the same round again": (WORKED, opened()),
    "an earlier round": (WORKED, opened(2, NEXT)),
    "the end of an earlier round": (WORKED, partial(sessions.finish, number=2)),
    "the end of this round again": (sessions.finish(WORKED, 3), partial(sessions.finish, number=3)),
    "an acceptance of an earlier round": (WORKED, partial(sessions.pushed, number=2)),
    "a base that is not this round's": (OPENED, partial(sessions.pulled, digest=NEXT, work=DONE)),
    "a step from a base that is not loaded": (OPENED, partial(sessions.worked, digest=BASE, work=DONE)),
    "another base that is gone": (OPENED, partial(sessions.base_gone, digest=NEXT)),
    "a later end of the window, said at once with an earlier one": (
        sessions.closing(WORKED, NOON, NOON - SOON),
        partial(sessions.closing, closes_at=NOON + SOON, said_at=NOON - SOON),
    ),
    "another reason to stop": (sessions.stop(WORKED, "first"), partial(sessions.stop, reason="second")),
    "the round is opened again after the push": (PUSHED, opened()),
}


@pytest.mark.parametrize(("state", "word"), NOTHING.values(), ids=NOTHING)
def test_a_word_that_changes_nothing(state: Session, word: Word) -> None:
    assert word(state) == state


def test_work_that_has_not_set_out_when_the_next_round_opens_is_pushed_first() -> None:
    """Late is not lost; and its gradient stands on its own base: as the new round's it would be a wrong one."""
    late = told(WORKED, opened(4, NEXT))
    assert (late.round, late.base_digest, next_action(late, NOON)) == (3, BASE, Action.PUSH)
    on = told(late, sessions.pushing, partial(sessions.pushed, number=3))
    assert (on.round, on.work, on.delivered, next_action(on, NOON)) == (4, Work(), True, Action.PULL)
    # Whether it still counted or was too late, the round that waits is begun, with what was said of it last.
    moved = told(late, opened(5, "c" * 64), sessions.pushing, partial(sessions.refused, number=3))
    assert (moved.round, moved.delivered, next_action(moved, NOON)) == (5, False, Action.PULL)
    assert next_action(sessions.stop(late, "told to"), NOON) is Action.PUSH
    assert next_action(sessions.stop(on, "told to"), NOON) is Action.LEAVE


def test_a_step_that_ends_after_the_next_round_opened_is_late_work() -> None:
    stepping = told(LOADED, sessions.stepping, opened(4, NEXT))
    late = sessions.worked(stepping, BASE, Work(1, 10, 2.4))
    assert (late.round, late.work.steps, next_action(late, NOON)) == (3, 1, Action.PUSH)
    # It made no update: there is nothing to push.
    vain = sessions.worked(stepping, BASE, Work())
    assert (vain.round, next_action(vain, NOON)) == (4, Action.PULL)


def test_a_round_that_waits_is_forgotten_with_the_membership() -> None:
    again = told(WORKED, opened(4, NEXT), sessions.membership_ended, partial(sessions.joined, attempt=2))
    assert (again.then, again.round, again.work) == (None, 3, DONE)
    late = told(again, opened(5, NEXT))
    assert next_action(late, NOON) is Action.PUSH
    assert told(late, sessions.pushing, partial(sessions.arrived, number=3)).round == 5


def test_a_base_that_arrives_after_the_next_round_opened_is_not_trained_from() -> None:
    late = sessions.pulled(told(OPENED, opened(4, NEXT)), BASE, DONE)
    assert (late.work, next_action(late, NOON)) == (Work(), Action.PULL)


def test_the_end_of_a_round_may_overtake_its_beginning() -> None:
    early = told(sessions.finish(JOINED, 3), opened(), partial(sessions.pulled, digest=BASE))
    assert early.finish
    assert next_action(sessions.worked(early, BASE, DONE), NOON) is Action.PUSH


def test_rounds_begin_anew_under_a_new_membership_alone() -> None:
    """A federation that was started afresh counts from 0: its sites hear so when they have joined it."""
    assert told(WORKED, opened(0, NEXT)).round == 3
    again = told(WORKED, sessions.membership_ended, partial(sessions.joined, attempt=1), opened(0, NEXT))
    assert (again.round, again.work, again.delivered) == (0, Work(), False)


@given(
    st.permutations([opened(), opened(), partial(sessions.finish, number=3), partial(sessions.finish, number=3)]),
    st.permutations(
        [
            partial(sessions.closing, closes_at=NOON + SOON, said_at=NOON),
            partial(sessions.closing, closes_at=NOON, said_at=NOON),
            partial(sessions.closing, closes_at=NOON + 3 * SOON, said_at=NOON - SOON),
            partial(sessions.stop, reason="told to"),
            partial(sessions.finish, number=2),
            partial(sessions.pushed, number=2),
            opened(4, NEXT),
            opened(4, NEXT),
        ]
    ),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_any_order_of_words_ends_in_the_same_state(first: list[Word], second: list[Word], dice: object) -> None:
    words = [*first, *second]
    getattr(dice, "shuffle")(words)  # noqa: B009
    expected = told(JOINED, *first, *second)
    assert told(JOINED, *words) == expected
    assert told(JOINED, *words, *words) == expected


@given(
    st.lists(
        st.sampled_from(
            [
                opened(),
                sessions.warmed,
                partial(sessions.finish, number=3),
                partial(sessions.closing, closes_at=NOON, said_at=NOON - SOON),
                partial(sessions.withdrawn, reason="no wind"),
                partial(sessions.stop, reason="told to"),
                partial(sessions.refused, number=3),
                partial(sessions.worked, digest="", work=DONE),
                sessions.membership_ended,
                sessions.gone,
            ]
        )
    )
)
@settings(deadline=None)
def test_nothing_is_joined_or_trained_before_the_window_is_said_to_be_open(words: list[Word]) -> None:
    session = told(Session(permitted=False), *words)
    assert next_action(session, NOON) in (Action.WARM, Action.WAIT, Action.LEAVE, Action.END)


# --- what was delivered -----------------------------------------------------------------------------------------------

DELIVERED: dict[str, tuple[list[Word], bool]] = {
    "accepted": ([partial(sessions.pushed, number=3)], True),
    "accepted, and the next round was open before": ([opened(4, NEXT), partial(sessions.pushed, number=3)], True),
    "accepted, and told after the membership ended": (
        [sessions.membership_ended, partial(sessions.joined, attempt=2), partial(sessions.pushed, number=3)],
        True,
    ),
    "accepted under the membership that ended": (
        [sessions.membership_ended, partial(sessions.joined, attempt=2), partial(sessions.arrived, number=3)],
        True,
    ),
    "accepted two rounds later": (
        [opened(4, NEXT), opened(5, "c" * 64), partial(sessions.pushed, number=3)],
        True,
    ),
    "refused": ([partial(sessions.refused, number=3)], False),
    "refused, and the next round was open before": ([opened(4, NEXT), partial(sessions.refused, number=3)], False),
    "not known, and not admitted any more": (
        [sessions.membership_ended, partial(sessions.refused_entry, reason="fenced")],
        False,
    ),
}


@pytest.mark.parametrize(("words", "delivered"), DELIVERED.values(), ids=DELIVERED)
def test_what_was_delivered(words: list[Word], delivered: bool) -> None:
    ended = told(PUSHING, *words)
    assert ended.delivered is delivered
    assert ended.pushing is None
    assert next_action(sessions.stop(ended, "told to"), NOON) is Action.LEAVE


def test_work_that_is_not_finite_is_lost_and_its_membership_with_it() -> None:
    again = told(sessions.finish(PUSHING, 3), sessions.unsound, partial(sessions.joined, attempt=2), opened())
    assert (again.attempt, again.loaded, again.work, again.pushing) == (2, "", Work(), None)
    # The end of the round was said to the membership before: this one is told anew.
    assert not again.finish
    assert not again.delivered


def test_a_round_says_how_far_the_federation_has_come() -> None:
    session = sessions.opened(JOINED, Opening(3, BASE, 64, 0, 4, tokens=7000, sites=3))
    assert (session.tokens, session.sites) == (7000, 3)
    assert (sessions.pulled(session, BASE).tokens, sessions.pulled(session, BASE).sites) == (7000, 3)


@pytest.mark.parametrize("first", ["refused", "opened"])
def test_what_is_refused_is_begun_afresh_when_the_round_opens_again(first: str) -> None:
    over = sessions.finish(PUSHING, 3)
    words: list[Word] = [partial(sessions.refused, number=3), opened()]
    again = told(over, *(words if first == "refused" else reversed(words)))
    assert (again.loaded, again.work, again.pushed, again.finish) == ("", Work(), False, False)
    assert not again.delivered


def test_the_lead_moves_the_moment_to_drain() -> None:
    closing = sessions.closing(replace(WORKED, lead=SOON), NOON, NOON - SOON)
    assert closing.stop_at == NOON - SOON
    assert sessions.paced(closing, 2 * SOON).stop_at == NOON - 2 * SOON


@pytest.mark.parametrize("moved", [-SOON, SOON])
def test_an_end_that_the_forecast_moved_is_the_one_that_was_said_last(moved: timedelta) -> None:
    first, second = (NOON, NOON - 3 * SOON), (NOON + moved, NOON - 2 * SOON)
    for words in ((first, second), (second, first)):
        session = WORKED
        for word in words:
            session = sessions.closing(session, *word)
        assert session.closes_at == NOON + moved
