"""A few of the attacks of ``make bench-attacks``, two hours each: deterministic, and small enough for each change."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.bench.attacked_fleet import CANARY, Ending, after_hours
from tests.bench.attacks import ATTACKS
from windfall.lowcomm.rule import Rule

BY_NAME = {attack.name: attack for attack in ATTACKS}
BAND_NATS = 0.05


def ending(folder: Path, attack: str, merge: str, canary: float | None = CANARY) -> Ending:
    rule = Rule.parse("int8-block", "average", merge=merge)
    return after_hours(folder, BY_NAME[attack], rule, 1, canary=canary, lasts=timedelta(hours=2))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Ending:
    return ending(tmp_path_factory.mktemp("honest"), "nobody lies", "mean", None)


def test_a_loss_that_is_told_wrong_changes_not_a_bit(honest: Ending, tmp_path: Path) -> None:
    assert honest.rounds > 2 and not honest.refused
    assert ending(tmp_path, "a loss of 0 told", "mean", None) == honest


def test_claimed_tokens_move_no_robust_merge(honest: Ending, tmp_path: Path) -> None:
    found = ending(tmp_path, "claimed tokens × 1000, sign flip", "multi-krum:byzantine=2")
    assert found.loss < honest.loss + BAND_NATS


@pytest.mark.parametrize("attack", ["another's, said again", "its own first, said again"])
def test_what_was_said_before_does_not_count_again(honest: Ending, tmp_path: Path, attack: str) -> None:
    found = ending(tmp_path, attack, "mean", None)
    assert set(found.refused) == {"replay"} and found.refused["replay"] >= 2
    assert found.loss < honest.loss + BAND_NATS
