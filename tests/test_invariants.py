"""The checker itself: what a damaged disk may cost, and what it may not."""

from datetime import UTC, datetime

import pytest

from tests import invariants
from windfall.contracts.events import CheckpointDamaged, ContributionAccepted, RoundCompleted
from windfall.contracts.message import Message, derived_id

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def accepted(number: int, site: str, tokens: int = 10) -> ContributionAccepted:
    return ContributionAccepted(
        id=derived_id(f"{number}/{site}", "a", site),
        at=MIDNIGHT,
        site=site,
        federation="story",
        round=number,
        attempt=1,
        tokens=tokens,
        steps=1,
        loss_nats=1.0,
        bytes_up=1,
        partial=False,
    )


def completed(number: int, base: str, model: str, sites: tuple[str, ...], total: int) -> RoundCompleted:
    return RoundCompleted(
        id=derived_id(str(number), "r", "story"),
        at=MIDNIGHT,
        federation="story",
        round=number,
        contributors=sites,
        tokens=10 * len(sites),
        tokens_total=total,
        steps=1,
        loss_nats=1.0,
        bytes_up=1,
        bytes_down=1,
        base_digest=base * 64,
        model_digest=model * 64,
    )


def damaged(number: int, remedy: str, base: str, site: str | None = None) -> CheckpointDamaged:
    return CheckpointDamaged.model_validate(
        {
            "id": derived_id(f"{number}/{remedy}", "d", "story"),
            "at": MIDNIGHT,
            "federation": "story",
            "round": number,
            "part": "base",
            "remedy": remedy,
            "contributor": site,
            "base_digest": base * 64,
            "rounds_lost": 1,
            "tokens_lost": 10,
            "detail": "a bit flipped",
        }
    )


FIRST: list[Message] = [accepted(0, "a"), completed(0, "0", "1", ("a",), 10), accepted(1, "a")]


def test_a_round_that_is_lost_with_its_model_is_no_gap_when_it_is_said() -> None:
    after = [accepted(2, "a"), completed(2, "0", "2", ("a",), 10)]
    invariants.check_rounds([*FIRST, damaged(1, "fell-back", "0"), *after])
    with pytest.raises(AssertionError, match="round 2 is told where 1 is due"):
        invariants.check_rounds([*FIRST, *after])
    with pytest.raises(AssertionError, match="forks"):
        invariants.check_rounds(
            [*FIRST, damaged(1, "fell-back", "0"), accepted(2, "a"), completed(2, "1", "2", ("a",), 10)]
        )


def test_what_was_left_out_does_not_count_unless_it_came_again() -> None:
    both = [*FIRST, accepted(1, "b")]
    invariants.check_rounds([*both, damaged(1, "left-out", "1", "b"), completed(1, "1", "2", ("a",), 20)])
    invariants.check_rounds([*both, damaged(1, "left-out", "1", "b"), completed(1, "1", "2", ("a", "b"), 30)])
    with pytest.raises(AssertionError):
        invariants.check_rounds([*both, completed(1, "1", "2", ("a",), 20)])
