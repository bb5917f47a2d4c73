"""What a site does next, for what it knows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from windfall.flower_adapter import session as sessions
from windfall.flower_adapter.session import Action, Session, next_action

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SOON = NOW + timedelta(seconds=10)
UP = Session(attempt=1, lead=timedelta(seconds=2), patience=timedelta(seconds=3))


@pytest.mark.parametrize(
    ("session", "at", "action"),
    [
        (Session(), NOW, Action.JOIN),
        (Session(permitted=False), NOW, Action.WAIT),
        (sessions.stop(Session(permitted=False), "withdrawn", NOW), NOW, Action.LEAVE),
        (UP, NOW, Action.WAIT),
        (sessions.announced(UP, "m"), NOW, Action.RUN),
        (replace(UP, running="m", waiting=("n",)), NOW, Action.WAIT),
        (replace(UP, owed="m", waiting=("n",)), NOW, Action.REPLY),
        (replace(UP, attempt=None, owed="m"), NOW, Action.JOIN),
        (sessions.closing(sessions.announced(UP, "m"), SOON, NOW), NOW, Action.RUN),
        (sessions.closing(sessions.announced(UP, "m"), SOON, NOW), SOON - timedelta(seconds=2), Action.DECLINE),
        (sessions.closing(replace(UP, running="m"), SOON, NOW), SOON, Action.WAIT),
        (sessions.closing(replace(UP, running="m"), SOON, NOW), SOON + timedelta(seconds=1), Action.ABANDON),
        (sessions.stop(replace(UP, running="m"), "asked", NOW), NOW + timedelta(seconds=3), Action.ABANDON),
        (sessions.stop(replace(UP, owed="m"), "asked", NOW), NOW, Action.REPLY),
        (sessions.stop(replace(UP, attempt=None, owed="m"), "asked", NOW), NOW, Action.JOIN),
        (sessions.stop(UP, "asked", NOW), NOW, Action.LEAVE),
        (sessions.gone(UP), NOW, Action.END),
    ],
)
def test_the_one_thing_to_do(session: Session, at: datetime, action: Action) -> None:
    assert next_action(session, at) is action


def test_a_message_is_run_once_however_often_it_is_announced() -> None:
    session = sessions.announced(sessions.announced(UP, "m"), "m")
    assert session.waiting == ("m",)
    session = sessions.announced(sessions.began(session), "m")
    session = sessions.announced(sessions.ran(session, "m"), "m")
    session = sessions.announced(sessions.replied(session, "m"), "m")
    assert (session.waiting, session.running, session.owed) == ((), "", "")


def test_what_could_not_be_fetched_waits_before_all_others() -> None:
    session = sessions.began(sessions.announced(sessions.announced(UP, "m"), "n"))
    assert sessions.again(session, "m").waiting == ("m", "n")


def test_a_reply_that_was_given_up_is_of_no_use_and_the_site_says_so() -> None:
    session = sessions.abandoned(sessions.began(sessions.announced(UP, "m")))
    assert sessions.ran(session, "m").owed == ""
    assert not sessions.gone(session).delivered
    assert sessions.gone(UP).delivered


def test_the_last_word_on_the_windows_end_counts() -> None:
    session = sessions.closing(UP, SOON, NOW)
    assert sessions.closing(session, NOW, NOW - timedelta(seconds=1)) == session
    later = sessions.closing(session, SOON + timedelta(hours=1), NOW + timedelta(seconds=1))
    assert sessions.wakes_at(later, NOW) == SOON + timedelta(hours=1) - timedelta(seconds=2)
