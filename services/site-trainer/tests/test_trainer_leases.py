"""Which lease may train: fenced, newer and older ones."""

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from tests.trainer_field import MINUTE, TOKENS, Field, play
from windfall.contracts.commands import StopTraining
from windfall.contracts.events import SiteDrained, SiteJoined, SiteLeft


def test_a_fenced_lease_drains_in_peace(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        newer = await field.start(token=2)
        await field.until(SiteJoined)
        older = await field.start(token=1, checkpoint=None)
        await older.ended()
        assert older.stand.mistake is None
        await field.sleep(MINUTE)
        (drained,) = field.events(SiteDrained)
        assert (drained.lease_token, drained.delivered) == (1, True)
        await field.drain(newer)
        assert len(field.events(SiteJoined)) == 1
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_the_newer_lease_takes_over_and_the_older_one_says_that_work_was_lost(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        older = await field.start(token=1, checkpoint=None)
        await field.sleep(5 * MINUTE)
        newer = await field.start(token=2, checkpoint=None)
        await older.ended()
        await field.sleep(3 * MINUTE)
        (drained,) = field.events(SiteDrained)
        assert (drained.lease_token, drained.delivered) == (1, False)
        await field.drain(newer)
        assert field.counted == newer.steps * TOKENS
        assert [left.reason for left in field.events(SiteLeft)] == ["replaced", "drained"]

    play(story, Field(tmp_path))


def test_an_order_for_an_older_lease_is_not_for_this_trainer(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(token=3)
        await field.sleep(2 * MINUTE)
        for token in (2, 3):
            assert not node.trainer.session.stopping
            order = StopTraining(id=uuid4(), at=field.clock.now(), site="site-a", lease_token=token, reason="asked to")
            await field.tell("site-a", order)
            await field.sleep(timedelta(seconds=1))
        assert node.trainer.session.stopping
        await node.ended()

    play(story, Field(tmp_path))
