"""Killed, and started again from its checkpoint: its work counts once."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.trainer_field import BY_STEPS, MINUTE, TOKENS, Field, Watched, play
from windfall.contracts.events import ContributionAccepted, ContributionRefused, RoundCompleted


def test_killed_with_work_that_was_not_sent_the_next_one_sends_it(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start(token=1)
        await field.sleep(6 * MINUTE)
        await first.kill()
        assert first.steps >= 4
        second = await field.start(token=2)
        await field.sleep(3 * MINUTE)
        await field.drain(second)
        (accepted,) = field.events(ContributionAccepted)
        assert accepted.tokens == (first.steps + second.steps) * TOKENS
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_killed_while_it_could_not_push_the_next_one_asks_first_and_then_sends_it(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start(token=1)
        first.link.blocked = {"Push"}
        await field.sleep(10 * MINUTE)
        await first.kill()
        second = await field.start(token=2)
        # The question whether its work counts already does not get through at first.
        second.link.blocked = {"Progress"}
        await field.sleep(MINUTE)
        second.link.blocked = set()
        (accepted,) = await field.until(ContributionAccepted)
        assert (accepted.attempt, accepted.tokens, second.steps) == (2, 5 * TOKENS, 0)
        await field.drain(second)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, BY_STEPS))


@pytest.mark.parametrize("receipt", ["came", "was lost"])
def test_killed_after_its_work_was_accepted_the_next_one_begins_afresh(receipt: str, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        # Another member keeps the round open.
        await field.stay("site-b")
        first = await field.start(token=1)
        first.link.receipts_to_lose = 1000 if receipt == "was lost" else 0
        await field.until(ContributionAccepted)
        await first.kill()
        second = await field.start(token=2)
        await field.until(ContributionAccepted, 2)
        assert [one.tokens for one in field.events(ContributionAccepted)] == [5 * TOKENS, 5 * TOKENS]
        assert {one.round for one in field.events(ContributionAccepted)} == {0}
        await field.drain(second)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, BY_STEPS))


def test_a_checkpoint_of_an_earlier_round_is_not_sent_as_this_ones(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start(token=1)
        await field.until(RoundCompleted, 2)
        await first.kill()
        second = await field.start(token=2)
        await field.sleep(10 * MINUTE)
        await field.drain(second)
        rounds = field.events(RoundCompleted)
        accepted = field.events(ContributionAccepted)
        assert sum(one.tokens for one in rounds) == sum(one.tokens for one in accepted) <= field.steps * TOKENS
        assert not field.events(ContributionRefused)

    play(story, Field(tmp_path, BY_STEPS))


def test_optimizer_and_cursor_outlive_a_lease_that_ended_between_rounds(tmp_path: Path) -> None:
    saved: list[str] = []

    class Saving(Watched):
        def save(self, path: Path) -> None:
            saved.append(path.name)
            super().save(path)

    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Saving), checkpoint_every=timedelta(days=1))
        await field.until(RoundCompleted)
        # The next round is open, and nothing is loaded of it yet.
        await field.drain(node)
        assert saved == ["checkpoint"]

    play(story, Field(tmp_path, BY_STEPS))
