"""What a federation promises over any sequence of inputs."""

from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.played_rounds import (
    BY_STEPS,
    BY_TIME,
    BY_TOKENS,
    CUT,
    LONE,
    ONCE,
    PAIRS,
    SPARED,
    TURNS,
    WITHOUT,
    Act,
    Play,
    act,
    check_story,
    contribution,
    refused,
    waited_for,
)
from windfall.contracts.events import ContributionAccepted, ContributionRefused, RoundCompleted
from windfall.contracts.message import Message
from windfall.federation_coordinator import membership, rounds
from windfall.federation_coordinator.federation import Federation, Phase, Policy, Word

POLICIES = [
    SPARED,
    WITHOUT,
    CUT,
    BY_TIME,
    BY_STEPS,
    BY_TOKENS,
    LONE,
    PAIRS,
    TURNS,
    replace(PAIRS, maximum=2),
    ONCE,
    replace(PAIRS, once=True),
    replace(LONE, maximum=1),
]
ACTS = st.tuples(
    st.sampled_from(
        [*(act for act in get_args(Act) if act != "stop"), "push", "push", "join", "merged", "tick", "resume"]
    ),
    st.sampled_from("abc"),
    st.integers(1, 1000),
)


def check_promises(play: Play, before: Federation) -> None:
    state, policy = play.state, play.policy
    assert state.round - before.round in (0, 1)
    keys = [one.key for one in (*state.contributions, *state.late)]
    assert len(set(keys)) == len(keys)
    quorum = len({one.site for one in state.contributions}) >= policy.minimum
    if state.phase in (Phase.RUNNING, Phase.FINISHING):
        assert waited_for(state) or not quorum, "the round waits for nobody: it is stuck"
        training = [one for one in state.members.values() if one.since <= state.round]
        assert policy.maximum is None or len(training) <= policy.maximum
        assert policy.maximum is None or len(training) == min(policy.maximum, len(state.members)) or refused(play)
    if state.phase is Phase.MERGING:
        assert state.contributions
        assert all(0 <= one.rounds_late <= 4 for one in state.contributions)
        assert {one.base_round % state.fragments for one in state.contributions} == {state.round % state.fragments}
    if state.phase is Phase.DARK:
        assert len(state.members.keys() - policy.excluded) < policy.minimum or state.paused
        assert state.resting == state.paused, "who is paused and rests has said so"
    assert not (state.paused and state.phase is Phase.RUNNING), "no round runs while it is paused"
    if state.lone and state.phase is Phase.RUNNING:
        assert len(waited_for(state)) <= 1
        assert all(membership.steps_of(state, site, policy) == 0 for site in state.members)
    if policy.length is not None and state.phase is Phase.RUNNING and waited_for(state):
        assert state.ends_at is not None
        assert rounds.next_instant(state, policy) == state.ends_at
    unwanted = policy.excluded | policy.left_out.keys()
    newcomers = {site for site, one in state.members.items() if one.since > state.round} - unwanted
    if state.phase is Phase.FINISHING and (quorum or (newcomers and not policy.once and not state.stopping)):
        due = rounds.next_instant(state, policy, play.progresses)
        assert due is not None, "nobody waits for ever for those who stand still"
        after, _ = rounds.tick(state, due, policy, play.progresses)
        assert after.phase is not Phase.FINISHING


def of(said: Iterable[Message], kind: type[Message]) -> list[Message]:
    return [message for message in said if isinstance(message, kind)]


def run_out(play: Play) -> None:
    """Everybody who is waited for contributes or leaves: the round must move on."""
    while play.state.phase in (Phase.RUNNING, Phase.FINISHING) and waited_for(play.state):
        before, waiting = play.state, waited_for(play.state)
        for number, site in enumerate(waiting):
            if number % 2:
                play.leave(site, "silent")
            else:
                play.push(site)
        moved = (play.state.phase, play.state.round, play.state.openings)
        # Who was in reserve may have taken the place of one who left.
        still = set(waited_for(play.state)) & set(waiting)
        assert moved != (before.phase, before.round, before.openings) or not still
        if play.state.phase is Phase.RUNNING:
            break


@settings(deadline=None)
@given(st.sampled_from(POLICIES), st.lists(ACTS, max_size=60), st.booleans(), st.sampled_from([1, 1, 2, 3]))
def test_whatever_comes(policy: Policy, acts: list[tuple[Act, str, int]], stops: bool, fragments: int) -> None:
    play = Play(policy, state=Federation(name="demo", base_digest="0" * 64, fragments=fragments))
    for number, (kind, site, amount) in enumerate(acts):
        before = play.state
        play.acts.add(kind)
        act(play, "stop" if stops and number == len(acts) // 2 else kind, site, amount)
        check_promises(play, before)
        # What is journaled comes back as it was.
        assert Federation.model_validate_json(play.state.model_dump_json()) == play.state
    run_out(play)
    check_story(play)


def after_two_of_three_fragments() -> Play:
    play = Play(state=Federation(name="demo", base_digest="0" * 64, fragments=3))
    for site in "ab":
        play.join(site)
    for _ in range(2):
        play.push("a")
        play.push("b")
        play.merged()
    return play


def test_what_is_late_waits_for_the_turn_of_its_fragment() -> None:
    play = after_two_of_three_fragments()
    assert (play.state.round, play.state.phase) == (2, Phase.RUNNING)
    late = contribution("b", 7, 100, 0)
    play.take(rounds.accept(play.state, late, play.now, play.policy))
    (said,) = [one for one in of(play.said, ContributionAccepted) if one.attempt == 7]  # type: ignore[attr-defined]
    # It counts in round 3, the next of fragment 0, as one outer step late.
    assert (said.round, said.rounds_late) == (3, 3)  # type: ignore[attr-defined]
    play.push("a")
    play.push("b")
    assert play.state.late == (late,)
    play.merged()
    play.push("a")
    play.push("b")
    assert not play.state.late
    assert [one.rounds_late for one in play.state.contributions] == [0, 0, 1]
    play.merged()
    # Four outer steps of its fragment are the most, however many rounds that is.
    oldest = play.state.round - 1
    for number in range(oldest, -1, -1):
        assert rounds.standing(play.state, number, play.policy) == "late"
    while play.state.round < 14:
        play.push("a")
        play.push("b")
        play.merged()
    assert [rounds.standing(play.state, number, play.policy) for number in (0, 1, 2, 3)] == [None, None, "late", "late"]


def test_what_is_late_when_the_federation_ends_and_is_of_another_fragment_is_refused_and_said() -> None:
    play = after_two_of_three_fragments()
    for number in (0, 1):
        play.take(rounds.accept(play.state, contribution("b", 7, 100, number), play.now, play.policy))
    play.push("a")
    play.push("b")
    play.stop()
    play.merged()
    # Round 3 merges what is late for fragment 0, and round 4 what is late for fragment 1.
    assert play.state.phase is Phase.MERGING
    play.merged()
    play.merged()
    assert play.state.phase is Phase.FINISHED and not of(play.said, ContributionRefused)

    play = Play(state=Federation(name="demo", base_digest="0" * 64, fragments=3))
    play.join("a")
    for _ in range(2):
        play.push("a")
        play.merged()
    play.take(rounds.accept(play.state, contribution("b", 7, 100, 1), play.now, play.policy))
    play.push("a")
    play.stop()
    play.merged()
    assert play.state.phase is Phase.FINISHED and not play.state.late
    (refused,) = of(play.said, ContributionRefused)
    assert (refused.round, refused.reason) == (1, "round")  # type: ignore[attr-defined]


@settings(deadline=None)
@given(st.permutations("abcd"))
def test_the_order_of_arrival_changes_no_fact_of_the_round(order: list[str]) -> None:
    play = Play()
    for site in "abcd":
        play.join(site)
    for site in order:
        play.push(site, tokens=ord(site))
    play.merged()
    completed = next(message for message in play.said if isinstance(message, RoundCompleted))
    assert (completed.contributors, completed.tokens) == (("a", "b", "c", "d"), sum(map(ord, "abcd")))


def test_words_are_for_members() -> None:
    play = Play()
    play.perform("join a; wait 20; join b; push a")
    _, decision = rounds.merged(play.state, "1" * 64, 0, play.now, play.policy)
    assert decision.tell == (Word("a", "opened"), Word("b", "opened"))
