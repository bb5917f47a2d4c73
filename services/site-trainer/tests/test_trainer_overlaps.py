"""Training goes on while it synchronises."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.trainer_field import (
    BY_STEPS,
    MINUTE,
    NOON,
    PLAIN,
    SITES,
    SMALL,
    TOKENS,
    TOPK,
    Field,
    Waits,
    check_the_whole,
    play,
)
from windfall.contracts.events import ContributionAccepted, ContributionRefused, RoundCompleted, SiteDrained
from windfall.federation_coordinator.federation import Policy
from windfall.lowcomm.rule import Rule


def share_in_steps(tmp_path: Path, rule: Rule, lag: timedelta, overlap: bool) -> float:
    """Of two sites' time on a slow link, as measured over four hours."""

    async def story(field: Field) -> None:
        nodes = [await field.start(site) for site in SITES]
        for node in nodes:
            node.link.lag = lag
        await field.sleep(timedelta(hours=4))
        shares.append(field.steps * field.step / (2 * timedelta(hours=4)))
        await field.drain(*nodes)
        check_the_whole(field)
        field.check_replicas()
        assert not field.events(ContributionRefused)
        assert field.counted <= field.steps * TOKENS

    shares: list[float] = []
    play(story, Field(tmp_path, BY_STEPS, SMALL, rule, overlap=overlap))
    return shares[0]


@pytest.mark.parametrize("minutes", range(0, 16, 2))
def test_who_drains_gives_what_it_trained_meanwhile_to_the_next_round_or_says_that_it_is_lost(
    minutes: int, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        nodes = [await field.start(site) for site in SITES]
        for node in nodes:
            node.link.lag = 1.5 * MINUTE
        await field.until(RoundCompleted, 2)
        await field.sleep(minutes * MINUTE)
        await field.drain(nodes[0])
        counted = sum(one.steps for one in field.events(ContributionAccepted) if one.site == "site-a")
        assert field.events(SiteDrained)[0].delivered == (counted == nodes[0].steps)
        assert counted <= nodes[0].steps
        await field.until(RoundCompleted, len(field.events(RoundCompleted)) + 2)
        check_the_whole(field)
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, SMALL, TOPK, overlap=True))


def test_a_site_whose_engine_cannot_train_on_waits_beside_those_that_can(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        nodes = [await field.start("site-a", make=field.watched("site-a", Waits)), await field.start("site-b")]
        await field.until(RoundCompleted, 4)
        assert [node.trainer.session.overlap for node in nodes] == [False, True]
        await field.drain(*nodes)
        check_the_whole(field)
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, SMALL, TOPK, overlap=True))


def test_alone_it_trains_on_as_well(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        node.link.lag = 3 * MINUTE
        await field.until(RoundCompleted, 4)
        assert node.steps * field.step > 0.95 * (field.clock.now() - NOON - 3 * MINUTE)
        assert any(b"int8-block" in message for message in node.link.sent)
        await field.drain(node)
        check_the_whole(field)
        field.check_replicas()

    alone = Policy(20 * MINUTE, None, 5 * MINUTE, None, alone=30 * MINUTE, alone_codec="int8-block")
    play(story, Field(tmp_path, alone, SMALL, TOPK, overlap=True))


@pytest.mark.parametrize("rule", [PLAIN, TOPK], ids=lambda rule: rule.codec.name)
def test_a_slow_link_does_not_stop_training_where_synchronising_overlaps_with_it(tmp_path: Path, rule: Rule) -> None:
    waits, trains = (share_in_steps(tmp_path / str(overlap), rule, 3 * MINUTE, overlap) for overlap in (False, True))
    assert waits < 0.5
    assert trains > 0.95
    print(f"{rule.codec.name}: {waits:.3f} of the time in steps, {trains:.3f} with overlap")
