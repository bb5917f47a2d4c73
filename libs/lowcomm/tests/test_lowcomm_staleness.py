from math import exp

import pytest
import torch

from windfall.lowcomm.compressor import parse_compressor
from windfall.lowcomm.staleness import FACTORS, MOST_ROUNDS_LATE, Site, unsaid, weight

TOPK = parse_compressor("topk-ef")


@pytest.mark.parametrize("rounds_late", range(MOST_ROUNDS_LATE + 1))
def test_a_late_contribution_weighs_less(rounds_late: int) -> None:
    assert weight(1000, rounds_late) == pytest.approx(1000 * exp(-0.5 * rounds_late), rel=1e-15)


def test_one_in_time_weighs_its_tokens_and_the_weights_fall() -> None:
    assert weight(12345, 0) == 12345
    assert sorted(FACTORS, reverse=True) == list(FACTORS)


@pytest.mark.parametrize(
    ("tokens", "rounds_late", "complaint"),
    [
        (10, 5, "5 rounds late; at most 4 are taken"),
        (10, -2, "2 rounds ahead"),
        (0, 0, "positive number of tokens, not 0"),
        (float("nan"), 0, "positive number of tokens, not nan"),
    ],
    ids=str,
)
def test_what_cannot_be_weighed_is_refused(tokens: float, rounds_late: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        weight(tokens, rounds_late)


def test_error_feedback_lives_as_long_as_a_membership() -> None:
    held = Site("language", 3, (torch.ones(8),))
    assert unsaid(held, "language", 3, TOPK, 8) is held.unsaid
    fresh = {
        "never joined": unsaid(None, "language", 3, TOPK, 8),
        "rejoined": unsaid(held, "language", 4, TOPK, 8),
        "elsewhere": unsaid(held, "vision", 3, TOPK, 8),
    }
    for why, state in fresh.items():
        assert [each.tolist() for each in state] == [[0.0] * 8], why


def test_what_another_codec_or_model_left_is_not_taken() -> None:
    held = Site("language", 3, (torch.ones(8),))
    assert unsaid(held, "language", 3, parse_compressor("fp32"), 8) == ()
    assert unsaid(held, "language", 3, TOPK, 9)[0].tolist() == [0.0] * 9
