"""Who follows which rule, when a federation has enough, and which model is the best."""

from dataclasses import replace
from datetime import timedelta
from math import exp, nan
from uuid import UUID

import pytest

from tests.played_rounds import BY_TIME, NOON, ONCE, Play, contribution, waited_for
from windfall.contracts.events import ContributionRefused, EnergyRecorded, SiteLeft
from windfall.federation_coordinator import ending, membership, quality, rounds
from windfall.federation_coordinator.federation import Best, Decision, Ends, Federation, Phase


def test_another_rule_ends_every_membership_and_what_was_accepted_counts() -> None:
    play = Play()
    play.take(membership.ruled(play.state, "topk-ef", play.now, play.policy))
    play.join("site-a")
    play.join("site-b")
    play.push("site-a")
    play.take(membership.ruled(play.state, "topk-ef", play.now, play.policy))
    assert sorted(play.state.members) == ["site-a", "site-b"]
    play.take(membership.ruled(play.state, "int4-block", play.now, play.policy))
    assert not play.state.members
    assert [left.reason for left in play.said if isinstance(left, SiteLeft)] == ["replaced", "replaced"]
    assert (play.state.phase, play.merges) == (Phase.MERGING, 1)
    play.join("site-b")
    assert play.state.attempts["site-b"] == 2


def test_where_each_is_a_vote_a_site_that_joins_again_has_no_second_one() -> None:
    play = Play(ONCE)
    for site in "abc":
        play.join(site)
    play.push("a", 10)
    play.join("a")
    # It is not waited for, and trains from the next round on.
    assert sorted(waited_for(play.state)) == ["b", "c"]
    play.push("b", 10)
    play.push("c", 10)
    assert play.state.phase is Phase.MERGING
    assert [one.site for one in play.state.contributions] == ["a", "b", "c"]
    play.merged()
    assert sorted(waited_for(play.state)) == ["a", "b", "c"]
    weighed = Play(BY_TIME)
    weighed.join("a")
    weighed.join("b")
    weighed.push("a", 10)
    weighed.join("a")
    assert sorted(waited_for(weighed.state)) == ["a", "b"]


def test_late_it_weighs_less_by_every_outer_step() -> None:
    play = Play()
    play.perform("join a; join b; wait 20; push a; wait 5; merged; late b 1 100; push a; push b; merged")
    weights = {one.rounds_late: one.weight for one in (contribution("b", 1, 100, 0),)}
    assert weights == {0: 100}
    assert contribution("b", 1, 100).model_copy(update={"rounds_late": 2}).weight == pytest.approx(100 * exp(-1))


@pytest.mark.parametrize(
    ("ends", "script", "because"),
    [
        (Ends(tokens=20), "join a; push a 10; merged; push a 10; merged", "20 tokens are trained"),
        (Ends(at=NOON + timedelta(minutes=30)), "join a; wait 20; push a; merged; wait 10; push a; merged", "deadline"),
        (Ends(at=NOON + timedelta(minutes=30)), "wait 30", "deadline"),
    ],
    ids=["tokens", "deadline while it runs", "deadline in the dark"],
)
def test_a_federation_has_enough(ends: Ends, script: str, because: str) -> None:
    play = Play(replace(BY_TIME, ends=ends))
    play.perform(script)
    assert play.state.phase is Phase.FINISHED
    assert because in play.state.stopped_because


def score(play: Play, loss: float) -> None:
    model = Best(round=play.state.round, digest=play.state.base_digest, loss_nats=loss)
    best = quality.is_best(play.state, loss)
    play.take(quality.evaluated(play.state, model, best, play.now, play.policy))


def test_a_federation_has_enough_when_the_model_is_good_or_the_budget_spent() -> None:
    play = Play(replace(BY_TIME, ends=Ends(loss=1.5)))
    play.perform("join a; push a; merged")
    score(play, 1.6)
    assert play.state.phase is Phase.RUNNING
    play.perform("push a; merged")
    score(play, 1.5)
    assert play.state.phase is Phase.FINISHING
    play.perform("push a; merged")
    assert play.state.phase is Phase.FINISHED

    play = Play(replace(BY_TIME, ends=Ends(emissions_kg=2.0)))
    play.perform("join a; push a; merged")
    for _ in range(2):
        play.take((ending.emitted(play.state, emitted(1.0)), Decision()))
    play.tick()
    assert play.state.phase is Phase.FINISHING
    assert "2.000 kg" in play.state.stopped_because


def test_the_best_model_is_remembered_and_gone_back_to() -> None:
    play = Play()
    play.perform("join a; push a; merged")
    score(play, 1.5)
    best = play.state.base_digest
    play.perform("push a; merged")
    score(play, 1.7)
    assert play.state.best == Best(round=1, digest=best, loss_nats=1.5)
    play.perform("join b; push a 33")
    play.take(quality.rolled_back(play.state, play.now, play.policy))
    assert (play.state.round, play.state.base_digest, play.state.phase) == (3, best, Phase.RUNNING)
    assert play.lines[-2:] == ["2 discarded", "3 starts with a,b"]
    # What was trained from the models that are gone does not count: their bases are forgotten.
    assert rounds.standing(play.state, 2, play.policy) is None
    refused = [one for one in play.said if isinstance(one, ContributionRefused)]
    assert [(one.site, one.round, one.reason) for one in refused] == [("a", 2, "canary")]


@pytest.mark.parametrize(
    ("before", "loss", "kept"),
    [
        (None, 9.0, True),
        (2.0, 2.2, True),
        (2.0, 2.21, False),
        (2.0, nan, False),
        (-2.0, -1.8, True),
        (-2.0, -1.7, False),
    ],
)
def test_the_canary_gate(before: float | None, loss: float, kept: bool) -> None:
    state = Federation(name="demo", base_digest="0" * 64, loss_nats=before)
    assert (quality.worsens(state, loss, replace(BY_TIME, canary=0.1)) == "") is kept
    assert quality.worsens(state, loss, BY_TIME) == ""


def emitted(kg: float) -> EnergyRecorded:
    return EnergyRecorded(
        id=UUID(int=1),
        at=NOON,
        site="a",
        sequence=1,
        window_id=None,
        state="training",
        start=NOON,
        end=NOON + timedelta(hours=1),
        energy_kwh=1,
        emissions_kg=kg,
        clean_energy_kwh=1,
        method="modelled",
        entry_hash="0" * 64,
    )
