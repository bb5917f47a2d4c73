"""Everything breaks at once, by seeds, and no step counts twice."""

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from torch import Tensor

from tests.trainer_field import (
    BY_STEPS,
    BY_TIME,
    INT4,
    MINUTE,
    PLAIN,
    SITES,
    SMALL,
    THREE,
    TOPK,
    Field,
    Watched,
    check_the_whole,
    play,
)
from windfall.contracts.events import ContributionAccepted, RoundCompleted
from windfall.federation_coordinator.federation import Policy
from windfall.lowcomm.rule import Rule
from windfall.site_trainer.engine import StepReport
from windfall.site_trainer.toy import toy_layout


@pytest.mark.parametrize("rule", [PLAIN, TOPK, INT4], ids=lambda rule: rule.codec.name)
@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
@pytest.mark.parametrize(
    ("seed", "overlap", "fragments"),
    [
        *((n, False, 1) for n in range(3)),
        *((n, True, 1) for n in range(4, 6)),
        (6, False, 3),
        (7, True, 3),
    ],
    ids=str,
)
def test_whatever_breaks_no_step_counts_twice_and_rounds_go_on(
    seed: int, overlap: bool, fragments: int, policy: Policy, rule: Rule, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    known: dict[int, frozenset[int]] = {0: frozenset()}
    """The steps behind a sum of tokens: each step has a number of tokens of its own."""

    class Traced(Watched):
        def step(self, micro_batch: int) -> StepReport:
            self._tokens_per_sample = dice.getrandbits(28)
            before = known[self.progress.tokens]
            report = super().step(micro_batch)
            known[self.progress.tokens] = before | {report.tokens}
            return report

        def tell(self, part: slice | None = None) -> None:
            self.away = known[self.progress.tokens]
            super().tell(part)

        def rebase(self, base: Tensor, counted: bool, tokens: int = 0, sites: int = 1) -> None:
            since = known[self.progress.tokens]
            super().rebase(base, counted, tokens, sites)
            known[self.progress.tokens] = since if counted else self.away | since

        def snapshot(self) -> Callable[[Path], None]:
            if self._told.tokens:
                known[self._told.tokens + self.progress.tokens] = self.away | known[self.progress.tokens]
            return super().snapshot()

    async def story(field: Field) -> None:
        tokens = Counter(SITES)
        alive = {site: await field.start(site, 1, field.watched(site, Traced)) for site in SITES}

        async def trouble(site: str) -> None:
            node = alive[site]
            if overlap or fragments > 1:
                node.link.lag = dice.uniform(0, 10) * MINUTE
            match dice.choice(["cut", "receipts", "kill", "takeover", "coordinator", "disk"]):
                case "cut":
                    node.link.cut()
                    await field.sleep(dice.uniform(0, 6) * MINUTE)
                    node.link.heal()
                case "receipts":
                    node.link.receipts_to_lose = dice.randint(1, 3)
                case "kill":
                    await node.kill()
                    tokens[site] += 1
                    alive[site] = await field.start(site, tokens[site], field.watched(site, Traced))
                case "takeover":
                    tokens[site] += 1
                    alive[site] = await field.start(site, tokens[site], field.watched(site, Traced))
                    await node.ended()
                case "coordinator":
                    await field.kill_coordinator()
                    await field.sleep(dice.uniform(0, 3) * MINUTE)
                    await field.start_coordinator()
                case "disk":
                    field.cut_once(node, dice.choice(["incoming", "write", "seal", "merge", "prune"]))

        for _ in range(20):
            await field.sleep(dice.expovariate(1 / 600) * timedelta(seconds=1))
            await trouble(dice.choice(SITES))
        before = len(field.events(RoundCompleted))
        await field.until(RoundCompleted, before + 3)
        await field.drain(*alive.values())
        check_the_whole(field)
        field.check_replicas()
        counted = [known[one.tokens] for one in field.events(ContributionAccepted)]
        assert sum(map(len, counted)) == len(frozenset().union(*counted)), "a step counts twice"

    layout = toy_layout(64) if rule is PLAIN else SMALL
    layout = THREE if fragments > 1 else layout
    play(story, Field(tmp_path, policy, layout, rule, overlap=overlap, fragments=fragments))
