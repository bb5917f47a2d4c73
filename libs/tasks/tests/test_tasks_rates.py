from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from windfall.tasks.rates import Constant, Cosine, Rate, RateLine, WarmupStableDecay, parse_rate


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    total = draw(st.floats(1, 1e15))
    warmup = draw(st.floats(0, total, exclude_max=True))
    if draw(st.booleans()):
        return Cosine(total, warmup, draw(st.floats(0, 1)))
    decay = (total - warmup) * draw(st.floats(0.01, 1))
    return WarmupStableDecay(total, decay, warmup)


@given(rates(), st.integers(0, 10**16))
def test_a_rate_is_a_share_before_and_after_its_end(rate: Rate, tokens: int) -> None:
    assert 0 <= rate(tokens) <= 1


@given(rates(), st.integers(0, 10**15), st.integers(0, 10**15))
def test_after_the_warmup_a_rate_never_grows(rate: Rate, tokens: int, more: int) -> None:
    assert isinstance(rate, Cosine | WarmupStableDecay)
    start = tokens + int(rate.warmup) + 1
    assert rate(start + more) <= rate(start)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("constant", {0: 1, 10**12: 1}),
        ("cosine:total=1000", {0: 1, 500: 0.5, 1000: 0, 5000: 0}),
        ("cosine:warmup=100,total=1100,floor=0.1", {0: 0, 50: 0.5, 100: 1, 600: 0.55, 1100: 0.1, 10**9: 0.1}),
        ("wsd: warmup = 100, total = 1000, decay = 400", {0: 0, 25: 0.25, 100: 1, 600: 1, 700: 0.5, 1000: 0, 1001: 0}),
    ],
    ids=["constant", "cosine", "cosine with a floor", "wsd"],
)
def test_rates_at_chosen_points(line: str, expected: dict[int, float]) -> None:
    rate = parse_rate(line)
    assert {tokens: rate(tokens) for tokens in expected} == pytest.approx(expected)


def test_a_line_is_a_frozen_value() -> None:
    rate = parse_rate("cosine:total=6e6,warmup=1e5")
    assert rate == Cosine(total=6e6, warmup=1e5)
    assert parse_rate("constant") == Constant()
    with pytest.raises(FrozenInstanceError):
        rate.total = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("linear", "unknown rate 'linear'; known are constant, cosine, wsd"),
        ("", "unknown rate ''"),
        ("constant:total=1", "setting 'total' is unknown; known are none"),
        ("cosine", "setting 'total' is missing"),
        ("cosine:total=1,total=2", "setting 'total' is given twice"),
        ("cosine:total=many", "total is a number, not 'many'"),
        ("cosine:total=nan", "warmup is at least 0 and less than total"),
        ("cosine:total=inf", "warmup is at least 0 and less than total"),
        ("cosine:total=5,warmup=5", "warmup is at least 0 and less than total, both finite, not 5 of 5"),
        ("cosine:total=5,warmup=-1", "warmup is at least 0"),
        ("cosine:total=5,floor=1.5", r"floor is a share in \[0, 1\], not 1.5"),
        ("wsd:total=5,decay=4,warmup=2", "decay is above 0 and at most 3, total less warmup, not 4"),
        ("wsd:total=5,decay=0", "decay is above 0"),
    ],
)
def test_a_wrong_line_is_refused_in_one_line(line: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        parse_rate(line)
    assert "\n" not in str(caught.value)


def test_settings_refuse_a_wrong_line_when_they_are_read() -> None:
    class Settings(BaseModel):
        rate: RateLine = "constant"

    assert Settings(rate="cosine:total=10").rate == "cosine:total=10"
    with pytest.raises(ValidationError, match="unknown rate 'linear'"):
        Settings(rate="linear")
