"""The window ends: the last contribution is there before it closes."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.trainer_field import MINUTE, NOON, Field, play
from windfall.contracts.events import ContributionAccepted, SiteLeft, WindowClosed, WindowClosing


@pytest.mark.parametrize("step", [timedelta(seconds=10), MINUTE, 7 * MINUTE], ids=["short", "a minute", "long"])
def test_its_last_contribution_is_there_before_the_window_closes(step: timedelta, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(31 * MINUTE)
        closes_at = field.clock.now() + 40 * MINUTE
        for window, at in ((UUID(int=9), NOON), (UUID(int=1), closes_at), (UUID(int=1), closes_at + MINUTE)):
            said = WindowClosing(id=uuid4(), at=field.clock.now(), site="site-a", window_id=window, closes_at=at)
            await field.tell("site-a", said)
        await node.ended()
        await field.sleep(MINUTE)
        (accepted,) = field.events(ContributionAccepted)
        assert accepted.partial
        assert accepted.at <= closes_at
        assert accepted.at > closes_at - 2 * MINUTE - 2.2 * step, "it trains as long as it can"
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, step=step))


def test_a_window_that_closes_at_once_still_gets_its_work_out(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        at = field.clock.now()
        closed = WindowClosed(
            id=uuid4(), at=at, site="site-a", window_id=UUID(int=1), reason="stale", crossed_at=at - MINUTE
        )
        await field.tell("site-a", closed)
        await node.ended()
        await field.sleep(MINUTE)
        field.check_each_step_counted_once()
        assert [left.reason for left in field.events(SiteLeft)] == ["drained"]

    play(story, Field(tmp_path))
