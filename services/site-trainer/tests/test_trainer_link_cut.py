"""The link is cut: what was on its way is neither lost nor counted twice."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.trainer_field import BY_STEPS, BY_TIME, MINUTE, TOKENS, Field, play
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    RoundCompleted,
    SiteDrained,
    SiteJoined,
    SiteLeft,
)
from windfall.lowcomm.wire import HEADER_BYTES


def test_a_push_that_is_cut_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windfall.site_trainer.bulk.CHUNK_BYTES", 64)  # of the toy's 256

    async def story(field: Field) -> None:
        node = await field.start()
        field.cut_once(node, "write")
        await field.until(ContributionAccepted)
        assert field.written == HEADER_BYTES + field.layout.nbytes, "what had arrived was not sent again"
        assert node.link.calls["Push"] == 2
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


@pytest.mark.parametrize("work", ["incoming", "seal", "merge"])
def test_a_cut_in_the_last_moment_neither_loses_nor_doubles(work: str, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        field.cut_once(node, work)
        await field.until(RoundCompleted, 3)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_the_receipt_is_lost_and_the_next_round_opens_meanwhile(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        node.link.receipts_to_lose = 1
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_the_receipt_is_lost_and_so_is_the_membership(tmp_path: Path) -> None:
    """The same work under a new attempt would count twice: it is not sent again, and the round still moves on."""

    async def story(field: Field) -> None:
        stay = await field.stay("site-b")
        node = await field.start()
        node.link.receipts_to_lose = 1
        await field.until(ContributionAccepted)
        node.link.cut()
        await field.until(SiteLeft)
        node.link.blocked = {"Progress", "Push"}
        node.link.heal()
        # It is a member again before it can ask what became of its contribution.
        await field.until(SiteJoined, 3)
        node.link.blocked = set()
        await field.until(ContributionAccepted, 2)
        assert [(one.attempt, one.tokens) for one in field.events(ContributionAccepted)] == [
            (1, 5 * TOKENS),
            (2, 5 * TOKENS),
        ]
        stay.cancel()
        await field.until(RoundCompleted)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_dropped_as_silent_it_joins_again_and_its_work_counts(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        node.link.cut()
        await field.sleep(10 * MINUTE)
        (left,) = field.events(SiteLeft)
        assert left.reason == "silent"
        node.link.heal()
        await field.until(ContributionAccepted)
        (accepted,) = field.events(ContributionAccepted)
        assert (accepted.attempt, accepted.tokens) == (2, node.steps * TOKENS)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_TIME))


def test_dropped_without_hearing_it_its_push_says_so_and_counts_under_the_next_attempt(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(MINUTE)
        node.link.blocked = {"Heartbeat"}
        node.link.cut()
        await field.until(SiteLeft)
        node.link.heal()
        await field.until(ContributionAccepted)
        node.link.blocked = set()
        (accepted,) = field.events(ContributionAccepted)
        assert (accepted.attempt, accepted.tokens) == (2, 5 * TOKENS)
        assert [(one.attempt, one.reason) for one in field.events(ContributionRefused)] == [(1, "member")]
        await field.drain(node)
        assert field.counted == node.steps * TOKENS
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_cut_off_while_it_drains_it_waits_for_the_link_and_delivers(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        node.link.cut()
        node.trainer.stop("asked to")
        await field.sleep(10 * MINUTE)
        assert not node.trainer.finished.is_set()
        node.link.heal()
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path))


def test_a_coordinator_that_is_away_is_asked_less_and_less_often_and_met_at_once(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        node.link.cut()
        node.trainer.stop("asked to")
        before = sum(node.link.calls[name] for name in ("Push", "Progress"))
        await field.sleep(10 * MINUTE)
        assert sum(node.link.calls[name] for name in ("Push", "Progress")) - before < 310
        healed = field.clock.now()
        node.link.heal()
        (accepted,) = await field.until(ContributionAccepted)
        assert accepted.at - healed < timedelta(milliseconds=300)
        await field.drain(node)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))
