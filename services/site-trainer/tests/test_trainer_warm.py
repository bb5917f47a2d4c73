"""Before the window opens a trainer keeps warm, and only its window's word lets it join."""

from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from tests.trainer_field import MINUTE, NOON, Field, Make, Node, play
from windfall.contracts.events import (
    SiteDrained,
    SiteJoined,
    TrainingStarted,
    WindowClosed,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB, site_streams
from windfall.servicekit.errors import Mistake
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.toy import toy_layout

SOON = NOON + 5 * MINUTE


def opens(token: int = 1) -> WindowOpened:
    window = UUID(int=token)
    return WindowOpened(
        id=uuid4(), at=NOON, site="site-a", window_id=window, intensity_g_per_kwh=20, expected_close_at=None
    )


def withdraws(token: int = 1) -> WindowWithdrawn:
    return WindowWithdrawn(id=uuid4(), at=NOON, site="site-a", window_id=UUID(int=token))


def closes(token: int = 1) -> WindowClosed:
    return WindowClosed(id=uuid4(), at=NOON, site="site-a", window_id=UUID(int=token), reason="dirty", crossed_at=NOON)


def still(node: Node) -> bool:
    """Nothing was asked of the coordinator and nothing trained."""
    return not node.link.calls and not node.steps


def test_it_keeps_warm_until_its_window_is_said_to_be_open(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(opens_at=SOON)
        await field.tell("site-a", opens(7))
        await field.tell("site-a", withdraws(7))
        await field.sleep(30 * MINUTE)
        assert node.trainer.session.warm
        assert still(node), "late is no reason: only the word is"
        await field.tell("site-a", opens())
        await field.until(TrainingStarted)
        assert field.clock.now() < NOON + 32 * MINUTE
        await field.drain(node)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_the_word_was_said_before_it_listened(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        field.domains["site-a"].declare(site_streams("site-a"))
        await field.tell("site-a", opens())
        node = await field.start(opens_at=SOON)
        await field.until(TrainingStarted)
        await field.drain(node)

    play(story, Field(tmp_path))


def test_the_word_was_heard_by_another_trainer_of_the_site(tmp_path: Path) -> None:
    """The one of the window before drains still; and one of our own lease died with the word in its hands."""

    async def story(field: Field) -> None:
        older = await field.start(token=1)
        await field.until(TrainingStarted)
        older.link.blocked = {"Push"}
        older.trainer.stop("its window closed")
        await field.sleep(MINUTE)
        warm = await field.start(token=2, opens_at=SOON)
        await field.sleep(MINUTE)
        assert still(warm)
        await field.tell("site-a", opens(2))
        await field.until(SiteJoined, 2)
        await warm.kill()
        again = await field.start(token=2, opens_at=SOON)
        await field.until(SiteJoined, 3)
        older.link.blocked = set()
        await field.drain(again)

    play(story, Field(tmp_path))


@pytest.mark.parametrize("word", [withdraws, closes, None], ids=["withdrawn", "closed", "told-to-stop"])
def test_a_window_that_does_not_come_ends_it_in_order(word: Callable[[], Message] | None, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(opens_at=SOON)
        await field.sleep(MINUTE)
        if word is None:
            node.trainer.stop("asked to end")
        else:
            await field.tell("site-a", word())
        await node.ended()
        (drained,) = await field.until(SiteDrained)
        assert drained.delivered
        assert still(node)
        assert not field.events(SiteJoined)
        assert node.stand.mistake is None

    play(story, Field(tmp_path))


def test_its_engine_is_there_before_the_window_opens_once_the_site_has_been_a_member(tmp_path: Path) -> None:
    made: list[tuple[int, int]] = []

    def counted(node: int, make: Make) -> Make:
        def count(membership: Membership) -> Engine:
            made.append((node, membership.layout.elements))
            return make(membership)

        return count

    async def story(field: Field) -> None:
        make = field.watched("site-a")
        for token in (1, 2):
            node = await field.start(token=token, make=counted(token, make), opens_at=SOON)
            await field.sleep(MINUTE)
            assert made == [(1, 64), (2, 64)][: 2 * token - 2]
            await field.tell("site-a", opens(token))
            await field.until(TrainingStarted, token)
            await field.drain(node)
        assert made == [(1, 64), (2, 64)]
        await field.kill_coordinator()
        field.layout, field.folder = toy_layout(32), tmp_path / "another"
        field.journals.pop(HUB)
        await field.start_coordinator()
        node = await field.start(token=3, make=counted(3, make), opens_at=SOON)
        await field.sleep(MINUTE)
        await field.tell("site-a", opens(3))
        await field.until(TrainingStarted, 3)
        assert made[2:] == [(3, 64), (3, 32)], "what is trained has changed since"
        await field.drain(node)

    play(story, Field(tmp_path))


def test_what_cannot_be_loaded_ahead_is_tried_again_by_who_joins(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start()
        await field.until(TrainingStarted)
        await field.drain(first)
        broken = [True]

        def make(membership: Membership) -> Engine:
            if broken.pop():
                raise Mistake("the data are not there yet", "Wait")
            return field.watched("site-a")(membership)

        broken.insert(0, False)
        node = await field.start(token=2, make=make, opens_at=SOON)
        await field.sleep(MINUTE)
        assert still(node)
        await field.tell("site-a", opens(2))
        await field.until(TrainingStarted, 2)
        await field.drain(node)

    play(story, Field(tmp_path))
