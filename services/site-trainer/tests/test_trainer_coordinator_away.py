"""The coordinator is not there yet, or starts again in mid-round."""

from pathlib import Path

from tests.trainer_field import BY_TIME, MINUTE, NOON, TOKENS, Field, play
from windfall.contracts.events import (
    ContributionAccepted,
    RoundCompleted,
    RoundStarted,
    SiteDrained,
    SiteJoined,
    SiteLeft,
    TrainingStarted,
)


def test_it_joins_when_the_coordinator_comes(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        await field.kill_coordinator()
        node = await field.start()
        await field.sleep(10 * MINUTE)
        assert node.trainer.session.attempt is None
        await field.start_coordinator()
        await field.until(TrainingStarted)
        assert field.clock.now() < NOON + 13 * MINUTE
        await field.drain(node)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_told_to_stop_before_it_was_ever_admitted_it_has_nothing_to_lose(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        await field.kill_coordinator()
        node = await field.start()
        await field.sleep(MINUTE)
        await field.drain(node)
        (drained,) = field.events(SiteDrained)
        assert drained.delivered

    play(story, Field(tmp_path))


def test_the_coordinator_starts_again_in_mid_round_and_the_round_goes_on(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        await field.kill_coordinator()
        await field.sleep(2 * MINUTE)
        await field.start_coordinator()
        await field.until(RoundCompleted)
        await field.drain(node)
        assert (len(field.events(SiteJoined)), field.events(SiteLeft)[0].reason) == (1, "drained")
        assert [one.round for one in field.events(RoundStarted)] == [0, 1]
        assert field.events(ContributionAccepted)[0].tokens > 15 * TOKENS
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, BY_TIME))
