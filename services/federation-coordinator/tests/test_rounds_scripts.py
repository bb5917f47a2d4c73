"""What a federation decides, as scripts and what follows from them."""

from datetime import timedelta
from itertools import pairwise
from uuid import UUID

import pytest

from tests.played_rounds import (
    BY_STEPS,
    BY_TIME,
    BY_TOKENS,
    CUT,
    LONE,
    NOON,
    PAIRS,
    SPARED,
    TURNS,
    WINDOW,
    WITHOUT,
    Play,
    check_story,
    contribution,
)
from windfall.contracts.events import NodeProfiled, RoundCompleted, RoundStarted
from windfall.federation_coordinator import membership, rounds
from windfall.federation_coordinator.choosing import settings_of
from windfall.federation_coordinator.federation import Fenced, NotMember, Phase, Policy
from windfall.federation_coordinator.taking_part import AGAIN

SCRIPTS: dict[str, tuple[Policy, str, str, Phase]] = {
    "one site, boxed by time": (
        BY_TIME,
        "join a; wait 19; wait 1; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "one site, boxed by steps": (
        BY_STEPS,
        "join a; wait 600; push a; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "many: the last contribution ends the round before its time": (
        BY_TIME,
        "join a; join b; join c; push b 1; push a 2; push c 3; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 0|b1 counts|a1 counts|c1 counts|merge"
        "|0 completed by a,b,c: 6|1 starts with a,b,c",
        Phase.RUNNING,
    ),
    "a site that joins in mid-round is waited for": (
        BY_TIME,
        "join a; wait 10; join b; wait 10; push a; push b",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "a site that joins while finishing is not waited for": (
        BY_TIME,
        "join a; wait 20; join b; push a; merged",
        "a1 joins 0|0 starts with a|finish a|b1 joins 1|a1 counts|merge|0 completed by a: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "but what it brings in time counts": (
        BY_TIME,
        "join a; wait 20; join b; push b 5; push a; merged",
        "a1 joins 0|0 starts with a|finish a|b1 joins 1|b1 counts|a1 counts|merge|0 completed by a,b: 15"
        "|1 starts with a,b",
        Phase.RUNNING,
    ),
    "a site that joins while merging opens the next round with the others": (
        BY_TIME,
        "join a; push a; join b; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|b1 joins 1|0 completed by a: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "all leave and nothing was brought: dark, and the same round again": (
        BY_TIME,
        "join a; join b; leave a; silent b; wait 60; join a",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 drained|b1 silent|a2 joins 0|0 starts with a",
        Phase.RUNNING,
    ),
    "all leave, but one contributed: merged without them": (
        BY_TIME,
        "join a; join b; push a; leave a; silent b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|a1 drained|b1 silent|merge|0 completed by a: 10",
        Phase.DARK,
    ),
    "a round that ended with nothing opens and ends again": (
        BY_TIME,
        "join a; wait 20; leave a; join a; wait 20; push a",
        "a1 joins 0|0 starts with a|finish a|a1 drained|a2 joins 0|0 starts with a|finish a|a2 counts|merge",
        Phase.MERGING,
    ),
    "a straggler is waited for until the deadline": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 4",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts",
        Phase.FINISHING,
    ),
    "and not longer": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|0 completed by a: 10"
        "|1 starts with a,b",
        Phase.RUNNING,
    ),
    "without any contribution the deadline waits for the first": (
        BY_TIME,
        "join a; join b; wait 60; push b; wait 0",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|b1 counts|merge",
        Phase.MERGING,
    ),
    "but keeps nobody waiting who has come meanwhile": (
        BY_TIME,
        "join a; wait 20; join b; wait 4; wait 1; push b; wait 20; wait 5; merged",
        "a1 joins 0|0 starts with a|finish a|b1 joins 1|0 starts with a,b|b1 counts|finish a|merge"
        "|0 completed by b: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "where too few have brought something, neither": (
        PAIRS,
        "join a; join b; wait 20; push a 5; join c; wait 5; push c 6; wait 20; wait 5; merged",
        "a1 joins 0|b1 joins 0|0 starts with a,b|finish a|finish b|a1 counts|c1 joins 1|0 starts with b,c|c1 counts"
        "|finish b|merge|0 completed by a,c: 11|1 starts with a,b,c",
        Phase.RUNNING,
    ),
    "the same contribution again changes nothing": (
        BY_TIME,
        "join a; join b; push a 3; push a 3; push b 4; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge|0 completed by a,b: 7|1 starts with a,b",
        Phase.RUNNING,
    ),
    "a restarted trainer replaces its attempt": (
        BY_TIME,
        "join a; join a; push a; merged",
        "a1 joins 0|0 starts with a|a1 replaced|a2 joins 0|a2 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "what the replaced attempt had contributed counts beside the new one's": (
        BY_TIME,
        "join a; join b; push a 1; join a; push a 2; push b 4; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|a1 replaced|a2 joins 0|a2 counts|b1 counts|merge"
        "|0 completed by a,a,b: 7|1 starts with a,b",
        Phase.RUNNING,
    ),
    "replaced while it alone was waited for: the round opens again": (
        BY_TIME,
        "join a; wait 20; join a",
        "a1 joins 0|0 starts with a|finish a|a1 replaced|a2 joins 1|0 starts with a",
        Phase.RUNNING,
    ),
    "replaced while it was the last one that was waited for: merged": (
        BY_TIME,
        "join a; join b; wait 20; push b; join a; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|b1 counts|a1 replaced|a2 joins 1|merge"
        "|0 completed by b: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "an older attempt cannot end the newer one's membership": (
        BY_TIME,
        "join a; join a; leave a@1; silent a@1",
        "a1 joins 0|0 starts with a|a1 replaced|a2 joins 0",
        Phase.RUNNING,
    ),
    "leaving twice is leaving once": (
        BY_TIME,
        "join a; leave a; leave a; silent a",
        "a1 joins 0|0 starts with a|a1 drained",
        Phase.DARK,
    ),
    "what is refused is not waited for": (
        BY_STEPS,
        "join a; join b; push b; refuse a; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|b1 counts|merge|0 completed by b: 10|1 starts with a,b",
        Phase.RUNNING,
    ),
    "all is refused: the round opens again": (
        BY_STEPS,
        "join a; join b; refuse a; refuse b",
        "a1 joins 0|0 starts with a|b1 joins 0|0 starts with a,b",
        Phase.RUNNING,
    ),
    "refused at first, it brings a better one in time": (
        BY_TIME,
        "join a; join b; refuse a; push a 4; push b 3; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge|0 completed by a,b: 7|1 starts with a,b",
        Phase.RUNNING,
    ),
    "a refusal after the contribution was accepted changes nothing": (
        BY_TIME,
        "join a; join b; push a; refuse a",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts",
        Phase.RUNNING,
    ),
    "a site that is alone trains on": (
        LONE,
        "join a; wait 59",
        "a1 joins 0|0 starts with a",
        Phase.RUNNING,
    ),
    "alone, it hands its model in now and then": (
        LONE,
        "join a; wait 60; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "company that comes before it has trained takes part at once": (
        LONE,
        "join a; join b; push a; push b",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "company that comes later begins with what it learnt": (
        LONE,
        "join a; trains a 40; join b; push a; merged; push b; push a",
        "a1 joins 0|0 starts with a|b1 joins 1|finish a|a1 counts|merge|0 completed by a: 10|1 starts with a,b"
        "|b1 counts|a1 counts|merge",
        Phase.MERGING,
    ),
    "alone again when the other has left": (
        LONE,
        "join a; join b; push a; push b; leave b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|b1 counts|merge|b1 drained|0 completed by a,b: 20"
        "|1 starts with a",
        Phase.RUNNING,
    ),
    "a box of tokens is full": (
        BY_TOKENS,
        "join a; join b; trains a 30; trains b 19; trains a 1",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b",
        Phase.FINISHING,
    ),
    "what has been contributed fills it as well": (
        BY_TOKENS,
        "join a; join b; push a 45; trains b 5",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|finish b",
        Phase.FINISHING,
    ),
    "a straggler that gets on is waited for": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 4; trains b 1; wait 4; trains b 1; wait 4; push b",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "but not for ever": (
        BY_TOKENS,
        "join a; join b; push a 50; trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4; "
        "trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4; trains b 1; wait 4",
        "a1 joins 0|0 starts with a|b1 joins 0|a1 counts|finish b|merge",
        Phase.MERGING,
    ),
    "who costs more than it brings is left out": (
        SPARED,
        "join a; join b; push a; merged; push a",
        "a1 joins 0|0 starts with a|b1 joins 1|a1 counts|merge|0 completed by a: 10|1 starts with a|a1 counts|merge",
        Phase.MERGING,
    ),
    "but not where nobody else is": (SPARED, "join b", "b1 joins 0|0 starts with b", Phase.RUNNING),
    "who is wanted in no round counts for nothing": (
        WITHOUT,
        "join a; join c; join b; push a; push b",
        "a1 joins 0|c1 joins 0|b1 joins 0|0 starts with a,b|a1 counts|b1 counts|merge",
        Phase.MERGING,
    ),
    "once half have taken their steps the others bring what they have": (
        CUT,
        "join a; join b; join c; push a; push b; push c",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 0|a1 counts|b1 counts|finish c|c1 counts|merge",
        Phase.MERGING,
    ),
    "too late for its round, it goes into the next": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; merged; late b 1 7; push a; push b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|0 completed by a: 10|1 starts with a,b"
        "|b1 counts|a1 counts|b1 counts|merge|1 completed by a,b,b: 27|2 starts with a,b",
        Phase.RUNNING,
    ),
    "while its round is merged it is late already": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; late b 1 7; merged; push a; push b; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|b1 counts|0 completed by a: 10"
        "|1 starts with a,b|a1 counts|b1 counts|merge|1 completed by a,b,b: 27|2 starts with a,b",
        Phase.RUNNING,
    ),
    "what came late counts even when nobody trains any more": (
        BY_TIME,
        "join a; join b; wait 20; push a; wait 5; merged; late b 1 7; leave a; leave b; stop; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|finish a|finish b|a1 counts|merge|0 completed by a: 10|1 starts with a,b"
        "|b1 counts|a1 drained|b1 drained|merge|1 completed by b: 7",
        Phase.FINISHED,
    ),
    "a quorum is waited for": (
        PAIRS,
        "join a; join b; push b",
        "a1 joins 0|b1 joins 0|0 starts with a,b|b1 counts",
        Phase.RUNNING,
    ),
    "and when it is lost, the next who comes makes it up": (
        PAIRS,
        "join a; join b; push a; leave b; join c; push c",
        "a1 joins 0|b1 joins 0|0 starts with a,b|a1 counts|b1 drained|c1 joins 0|c1 counts|merge",
        Phase.MERGING,
    ),
    "a round has as many sites as may, and they take turns": (
        TURNS,
        "join a; join b; join c; push a; push b; merged; push c; push a; merged",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 1|a1 counts|b1 counts|merge|0 completed by a,b: 20"
        "|1 starts with a,c|c1 counts|a1 counts|merge|1 completed by a,c: 20|2 starts with a,b",
        Phase.RUNNING,
    ),
    "who is in reserve takes the place of one who leaves": (
        TURNS,
        "join a; join b; join c; leave a; push b; push c",
        "a1 joins 0|0 starts with a|b1 joins 0|c1 joins 1|a1 drained|b1 counts|c1 counts|merge",
        Phase.MERGING,
    ),
    "a model that is discarded spends its number": (
        BY_TIME,
        "join a; push a; discarded; push a; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 discarded|1 starts with a|a1 counts|merge|1 completed by a: 10"
        "|2 starts with a",
        Phase.RUNNING,
    ),
    "told to stop in the dark": (BY_TIME, "stop", "", Phase.FINISHED),
    "told to stop while running: the round is finished first": (
        BY_TIME,
        "join a; stop; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10",
        Phase.FINISHED,
    ),
    "told to stop while running, and all leave with nothing": (
        BY_TIME,
        "join a; stop; leave a",
        "a1 joins 0|0 starts with a|finish a|a1 drained",
        Phase.FINISHED,
    ),
    "told to stop while finishing": (
        BY_TIME,
        "join a; wait 20; stop; push a; merged",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10",
        Phase.FINISHED,
    ),
    "told to stop while merging": (
        BY_TIME,
        "join a; push a; stop; merged",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 completed by a: 10",
        Phase.FINISHED,
    ),
    "paused while running: what was trained counts, and it goes on from there": (
        BY_TIME,
        "join a; wait 5; pause; push a; merged; wait 60; resume",
        "a1 joins 0|0 starts with a|finish a|a1 counts|merge|0 completed by a: 10|paused before 1|resumed before 1"
        "|1 starts with a",
        Phase.RUNNING,
    ),
    "paused, and all leave with nothing: the round opens again under its number": (
        BY_TIME,
        "join a; pause; leave a; join b; resume",
        "a1 joins 0|0 starts with a|finish a|a1 drained|paused before 0|b1 joins 0|resumed before 0|0 starts with b",
        Phase.RUNNING,
    ),
    "paused with too few contributions: they wait for more under the same number": (
        PAIRS,
        "join a; join b; push a; pause; leave b; join c; resume; push c",
        "a1 joins 0|b1 joins 0|0 starts with a,b|a1 counts|finish b|b1 drained|paused before 0|c1 joins 0"
        "|resumed before 0|0 starts with c|c1 counts|merge",
        Phase.MERGING,
    ),
    "paused while merging, and the model is discarded": (
        BY_TIME,
        "join a; push a; pause; discarded",
        "a1 joins 0|0 starts with a|a1 counts|merge|0 discarded|paused before 1",
        Phase.DARK,
    ),
    "resumed before the running round is over: no pause": (
        BY_TIME,
        "join a; pause; resume; push a; merged",
        "a1 joins 0|0 starts with a|finish a|resumed before 0|a1 counts|merge|0 completed by a: 10|1 starts with a",
        Phase.RUNNING,
    ),
    "paused and resumed twice": (
        BY_TIME,
        "pause; pause; join a; resume; resume; leave a; pause",
        "paused before 0|a1 joins 0|resumed before 0|0 starts with a|a1 drained|paused before 0",
        Phase.DARK,
    ),
    "to stop is stronger than to pause": (BY_TIME, "pause; stop; pause; resume", "paused before 0", Phase.FINISHED),
    "told to stop twice": (BY_TIME, "stop; stop; join a", "a1 joins 1", Phase.FINISHED),
}


@pytest.mark.parametrize(("policy", "script", "transcript", "phase"), SCRIPTS.values(), ids=SCRIPTS)
def test_script(policy: Policy, script: str, transcript: str, phase: Phase) -> None:
    play = Play(policy)
    play.perform(script)
    assert "|".join(play.lines) == transcript
    assert play.state.phase is phase
    check_story(play)


def test_a_lease_that_was_overtaken_is_fenced_and_changes_nothing() -> None:
    play = Play()
    play.perform("join a/3; leave a")
    with pytest.raises(Fenced, match="3 is newer"):
        play.join("a", token=2)
    play.join("a", token=3)
    assert play.state.members["a"].lease_token == 3


@pytest.mark.parametrize(
    ("script", "site", "attempt", "words"),
    [
        ("join a", "a", 1, ["opened"]),
        ("join a; push a; join a; join b", "b", 1, []),
        ("join a; wait 20", "a", 1, ["opened", "finish"]),
        ("join a; join b; push a", "a", 1, []),
        ("join a; join b; wait 20; push a", "a", 1, []),
        ("join a; join b; refuse a", "a", 1, []),
        ("join a; wait 20; join b", "b", 1, []),
        ("join a; push a", "a", 1, []),
        ("stop", "a", 1, ["stop"]),
        ("join a; stop; push a; merged", "a", 1, ["stop"]),
    ],
    ids=[
        "running",
        "merging, as a newcomer",
        "finishing",
        "contributed while running",
        "contributed while finishing",
        "refused",
        "joined while finishing",
        "merging",
        "finished, as a stranger",
        "finished",
    ],
)
def test_a_stream_that_opens_hears_where_the_federation_stands(
    script: str, site: str, attempt: int, words: list[str]
) -> None:
    play = Play()
    play.perform(script)
    assert [word.kind for word in membership.resume(play.state, site, attempt).tell] == words


@pytest.mark.parametrize("script", ["join b", "join a; leave a", "join a; join a"], ids=["never", "left", "replaced"])
def test_a_stream_of_an_ended_membership_is_told_to_join_again(script: str) -> None:
    play = Play()
    play.perform(script)
    with pytest.raises(NotMember):
        membership.resume(play.state, "a", 1)


def test_a_receipt_outlives_its_round() -> None:
    play = Play()
    play.perform("join a; join b; push a; push b; merged; push b; leave a; merged; join b; push b; merged")
    assert play.state.round == 3
    assert [rounds.accepted(play.state, number, "a", 1) for number in range(4)] == [True, False, False, False]
    assert rounds.accepted(play.state, 2, "b", 2)
    assert not rounds.accepted(play.state, 0, "a", 2)
    assert not rounds.accepted(play.state, 0, "c", 1)


def test_the_round_completed_weighs_the_loss_by_tokens() -> None:
    play = Play()
    play.perform("join a; join b")
    for site, tokens, loss in (("a", 30, 1.0), ("b", 10, 3.0)):
        brought = contribution(site, 1, tokens).model_copy(update={"loss_nats": loss})
        play.take(rounds.accept(play.state, brought, play.now, play.policy))
    play.merged()
    completed = next(message for message in play.said if isinstance(message, RoundCompleted))
    assert (completed.loss_nats, completed.bytes_up, completed.bytes_down) == (1.5, 200, 7)
    assert completed.model_digest == play.state.base_digest


def test_who_is_left_out_takes_part_now_and_then_and_it_is_said_why() -> None:
    play = Play(SPARED)
    play.perform("join a; join b")
    for _ in range(2 * AGAIN + 3):
        for site in ("a", "b"):
            if rounds.waited_for(play.state, play.state.members[site]):
                play.push(site)
        play.merged()
    started = [message for message in play.said if isinstance(message, RoundStarted)][1:]
    took_part = [one.round for one in started if "b" in one.members]
    assert [after - before for before, after in pairwise(took_part)] == [AGAIN + 1]
    assert all(("b" in one.members) != (one.left_out == SPARED.left_out) for one in started)


def test_a_profile_decides_the_micro_batch() -> None:
    event = NodeProfiled.model_validate(
        {
            "id": UUID(int=2),
            "at": NOON,
            "site": "a",
            "window_id": WINDOW,
            "lease_token": 1,
            "node": "n",
            "measured": {"fingerprint": "f", "cpu_model": "m", "cpu_cores": 1, "memory_bytes": 1},
            "recommendation": {"micro_batch": 16, "local_steps": 1, "because": "it fits"},
        }
    )
    state = membership.profiled(Play().state, event)
    assert state.recommended["a"].micro_batch == 16
    assert settings_of("a", Policy(None, None, timedelta(), None).for_all, state.recommended["a"]).samples == 16
