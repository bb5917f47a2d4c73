"""A second source checks the first: where they tell different stories, the darker one counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from windfall.energy.judgement import plain
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy.verdict import Verdict

TOLERANCE_SHARE: Final = 0.25
"""Of the larger of the two. Sources of one grid's mean intensity differ by the factors that they give to its fuels."""
TOLERANCE_ABS: Final = 25.0
"""In the unit of both: near zero every share is passed."""


@dataclass(frozen=True)
class Checked:
    """Which of two quotes counts, and why it may not be the first."""

    counts: Quote
    doubt: Unbelievable | None = None
    """``disagrees``, about the one that does not count."""


def agree(
    first: Quote, second: Quote, tolerance_share: float = TOLERANCE_SHARE, tolerance_abs: float = TOLERANCE_ABS
) -> bool:
    """Whether two quotes of one unit lie within either tolerance of each other.

    Raises:
        ValueError: their units differ, so that one says nothing about the other.
    """
    if first.unit != second.unit:
        raise ValueError(f"{second.unit} cannot check {first.unit}; let a signal of the same unit do it")
    distance = abs(first.value - second.value)
    return distance <= max(tolerance_abs, tolerance_share * max(abs(first.value), abs(second.value)))


def checked(
    first: Quote,
    second: Quote | None,
    verdict_of: Callable[[Quote], Verdict],
    tolerance_share: float = TOLERANCE_SHARE,
    tolerance_abs: float = TOLERANCE_ABS,
) -> Checked:
    """The quote that counts. Without a second one, or one that agrees or leads to the same verdict, it is the first.

    Args:
        first: the value that the rule reads.
        second: what checks it, if there is anything fresh.
        verdict_of: what the rule says if this quote is the truth.
        tolerance_share: share of the larger value by which they may differ.
        tolerance_abs: distance in their unit by which they may differ.

    Raises:
        ValueError: their units differ.
    """
    if second is None or agree(first, second, tolerance_share, tolerance_abs):
        return Checked(first)
    one, other = verdict_of(first), verdict_of(second)
    if one is other:
        return Checked(first)
    counts, doubted = (first, second) if one < other else (second, first)
    detail = f"{plain(doubted.value)} {doubted.unit} while another source says {plain(counts.value)}"
    return Checked(counts, Unbelievable("disagrees", detail, doubted.point_time))
