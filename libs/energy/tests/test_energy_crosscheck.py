"""Two sources of one truth: which of them counts."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import SignalKind
from windfall.energy.crosscheck import agree, checked
from windfall.energy.grammar import parse
from windfall.energy.judgement import judge
from windfall.energy.quotes import Quote
from windfall.energy.verdict import Verdict

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
RULE = parse("carbon < 100..150")
VALUES = st.floats(0, 5000)


def grams(value: float, kind: SignalKind = SignalKind.MARGINAL) -> Quote:
    return Quote(kind, NOON, value)


def verdict_of(quote: Quote) -> Verdict:
    return judge(RULE, {"carbon": quote}).verdict


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [(100, 125, True), (0, 25, True), (0, 25.1, False), (300, 400, True), (299, 400, False), (90, 90, True)],
)
def test_tolerance_is_a_share_or_a_distance(first: float, second: float, same: bool) -> None:
    assert agree(grams(first), grams(second)) is agree(grams(second), grams(first)) is same


@pytest.mark.parametrize(
    ("first", "second", "counts", "doubt"),
    [
        (90, None, 90, None),
        (90, 100, 90, None),
        (90, 130, 130, "90 gCO2/kWh while another source says 130"),
        (40, 400, 400, "40 gCO2/kWh while another source says 400"),
        (400, 40, 400, "40 gCO2/kWh while another source says 400"),
        (10, 90, 10, None),
        (400, 4000, 400, None),
        (140, 155, 140, None),
    ],
    ids=["alone", "near", "one-is-between", "first-too-good", "second-too-good", "both-clean", "both-dirty", "within"],
)
def test_which_one_counts(first: float, second: float | None, counts: float, doubt: str | None) -> None:
    found = checked(grams(first), None if second is None else grams(second), verdict_of)
    assert found.counts.value == counts
    assert (None if found.doubt is None else found.doubt.detail) == doubt
    assert found.doubt is None or found.doubt.reason == "disagrees"


@given(VALUES, VALUES)
def test_a_check_never_makes_a_site_run_that_would_not(first: float, second: float) -> None:
    found = checked(grams(first), grams(second), verdict_of)
    assert verdict_of(found.counts) <= verdict_of(grams(first))
    assert (found.doubt is not None) == (
        not agree(grams(first), grams(second)) and verdict_of(grams(first)) is not verdict_of(grams(second))
    )


def test_kinds_of_one_unit_may_check_each_other_and_no_others() -> None:
    assert agree(grams(90), grams(95, SignalKind.AVERAGE))
    with pytest.raises(ValueError, match="percentile cannot check gCO2/kWh; let a signal of the same unit do it"):
        agree(grams(90), grams(95, SignalKind.PERCENTILE))
