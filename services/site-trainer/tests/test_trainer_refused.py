"""What is refused or is not a number is lost or not sent, and the round goes on."""

from math import nan
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.trainer_field import BY_STEPS, BY_TIME, INT4, LARGE, MINUTE, NOON, PLAIN, TOKENS, TOPK, Field, Watched, play
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    RoundCompleted,
    RoundStarted,
    SiteDrained,
    SiteJoined,
    SiteLeft,
)
from windfall.federation_coordinator.federation import Policy
from windfall.lowcomm.rule import Rule
from windfall.site_trainer.engine import Skip, StepReport
from windfall.site_trainer.toy import ToyEngine


class Boasting(ToyEngine):
    """Says of its first round that it trained more than anybody can."""

    boasted = False

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        self._tokens_per_sample, self.boasted = (64 if self.boasted else 2**50), True
        super().load(base, tokens, sites)


@pytest.mark.parametrize("overlap", [False, True], ids=["waits", "overlaps"])
@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
def test_what_is_refused_is_lost_and_the_next_one_counts(policy: Policy, overlap: bool, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=lambda membership: Boasting(membership.layout.elements, seed=1), checkpoint=None)
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        (refused,) = field.events(ContributionRefused)
        assert (refused.reason, refused.round) == ("tokens", 0)
        assert not field.events(SiteDrained)[0].delivered
        assert [one.round for one in field.events(RoundCompleted)][:2] == [0, 1]

    play(story, Field(tmp_path, policy, overlap=overlap))


class Spoiled(Watched):
    """Its first pseudo-gradient is not a number."""

    spoiled = False

    def pseudo_gradient(self) -> Tensor:
        gradient = super().pseudo_gradient()
        if not self.spoiled:
            self.spoiled = True
            gradient[3] = nan
        return gradient


@pytest.mark.parametrize("overlap", [False, True], ids=["waits", "overlaps"])
@pytest.mark.parametrize("rule", [PLAIN, TOPK, INT4], ids=lambda rule: rule.codec.name)
@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
def test_what_is_not_a_number_is_not_sent_and_nobody_waits_for_it(
    policy: Policy, rule: Rule, overlap: bool, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Spoiled))
        other = await field.start("site-b")
        await field.until(RoundCompleted, 3)
        await field.drain(node, other)
        assert not field.events(ContributionRefused)
        assert [one.attempt for one in field.events(SiteJoined) if one.site == "site-a"] == [1, 2]
        # Nobody had to find out by its silence.
        assert {left.reason for left in field.events(SiteLeft)} == {"drained"}
        attempts = {one.attempt for one in field.events(ContributionAccepted) if one.site == "site-a"}
        assert attempts == {2}, "a new membership begins from a base that was loaded anew"
        delivered = {one.site: one.delivered for one in field.events(SiteDrained)}
        assert delivered["site-a"] is False
        assert delivered["site-b"] or overlap, "what it trained meanwhile may be lost"
        rounds = field.events(RoundCompleted)
        assert [one.round for one in rounds] == list(range(len(rounds)))
        assert rounds[0].at < NOON + 30 * MINUTE
        assert torch.isfinite(field.coordinator.store.load(field.coordinator.state.round)).all()
        field.check_replicas()

    play(story, Field(tmp_path, policy, LARGE, rule, overlap=overlap))


def test_alone_and_not_a_number_it_begins_afresh(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Spoiled))
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        assert not field.events(ContributionRefused)
        assert [one.round for one in field.events(RoundStarted)][:2] == [0, 0]
        assert field.counted == (node.steps - 5) * TOKENS

    play(story, Field(tmp_path, BY_STEPS))


class Troubled(Watched):
    """Every third step is a spike, and once memory was refused."""

    def step(self, micro_batch: int) -> StepReport:
        report = super().step(micro_batch)
        if self.progress.steps % 3 == 2:
            self._progress = self._progress.after(StepReport(0, 99.0, Skip.SPIKE, refused=1))
        return report


def test_spikes_and_refused_passes_are_said_with_the_contribution(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Troubled))
        await field.until(RoundCompleted)
        await field.drain(node)
        first = field.events(ContributionAccepted)[0]
        assert (first.steps, first.spikes, first.refused_passes, first.skipped) == (5, 2, 2, 0)

    play(story, Field(tmp_path, BY_STEPS))
