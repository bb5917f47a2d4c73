"""What a codec left unsaid waits for its turn; a rule that changed is learnt by joining again."""

from pathlib import Path
from typing import cast

import pytest

from tests.trainer_field import BY_STEPS, INT4, LARGE, MINUTE, TOPK, Field, Watched, play
from windfall.contracts.events import ContributionAccepted, ContributionRefused, RoundCompleted, SiteJoined, SiteLeft
from windfall.lowcomm.rule import Rule
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine


@pytest.mark.parametrize("codec", ["topk-ef", "q2-ef", "dct-momentum"])
def test_what_was_left_unsaid_is_said_later_but_not_under_a_new_membership(codec: str, tmp_path: Path) -> None:
    rule, elements = Rule.parse(codec), LARGE.split
    engines: list[Watched] = []

    async def story(field: Field) -> None:
        def make(membership: Membership) -> Engine:
            engines.append(cast(Watched, field.watched("site-a")(membership)))
            return engines[-1]

        node = await field.start(make=make)
        await field.until(RoundCompleted, 3)
        # It keeps its work over the cut, and says it under its next attempt.
        node.link.cut()
        await field.until(SiteLeft)
        node.link.heal()
        await field.until(RoundCompleted, 6)
        await field.drain(node)
        wire = b"".join(node.link.sent)
        (engine,) = engines
        accepted = field.events(ContributionAccepted)
        assert {one.attempt for one in accepted} == {1, 2}
        assert len(accepted) == len(engine.gradients) >= 6
        state, attempt, kept = rule.codec.init(elements.trained), 1, 0
        for one, gradient in zip(accepted, engine.gradients, strict=True):
            afresh = rule.codec.init(elements.trained)
            state, attempt = (state, attempt) if one.attempt == attempt else (afresh, one.attempt)
            _, forgetful = rule.encode(afresh, gradient, elements, base=one.round, tokens=one.tokens, steps=one.steps)
            state, said = rule.encode(state, gradient, elements, base=one.round, tokens=one.tokens, steps=one.steps)
            assert said in wire
            kept += said != forgetful
        assert kept == len(accepted) - 2, "in each membership but its first contribution"

    play(story, Field(tmp_path, BY_STEPS, LARGE, rule))


CHANGES: dict[str, tuple[Rule, Rule]] = {
    "fp32 to topk-ef": (Rule.parse("fp32", "average"), TOPK),
    "topk-ef to fp32": (TOPK, Rule.parse("fp32", "average")),
    "int4-block to topk-ef": (INT4, TOPK),
    "topk-ef to int4-block": (TOPK, Rule.parse("int4-block", "average")),
    "topk-ef keeps less": (TOPK, Rule.parse("topk-ef:keep=32")),
    "a smaller outer step": (TOPK, Rule.parse("topk-ef", "average:lr=0.5")),
}


@pytest.mark.parametrize("moment", ["Pull", "Push", ""], ids=["before it pulls", "before it pushes", "while it trains"])
@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_rule_that_changed_between_two_lives_of_the_coordinator_is_learnt_by_joining_again(
    before: Rule, after: Rule, moment: str, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.until(RoundCompleted, 2)
        node.link.blocked = {moment}
        await field.sleep(7 * MINUTE if moment else 2 * MINUTE)
        await field.kill_coordinator()
        field.rule = after
        await field.start_coordinator()
        node.link.blocked = set()
        done = len(field.events(RoundCompleted))
        await field.until(RoundCompleted, done + 4)
        await field.drain(node)
        field.check_replicas()
        assert {one.reason for one in field.events(ContributionRefused)} <= {"codec", "member"}
        # Even another setting of the same codec ends a membership: replicas never follow two rules.
        assert [one.attempt for one in field.events(SiteJoined)] == [1, 2]
        rounds = field.events(RoundCompleted)
        assert [one.round for one in rounds] == list(range(len(rounds)))

    play(story, Field(tmp_path, BY_STEPS, LARGE, before))
