"""Where a link usually lies: what is news, what is not, and that the same measurements say the same."""

from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from windfall.profiler.band import KEEP, LEAST, SETTLED, SURE, Course, Turn, band, moved

VALUES = st.floats(0.001, 1e6)
MANY = st.lists(VALUES, min_size=LEAST, max_size=KEEP)


def gone(*values: float) -> tuple[Course, list[Turn]]:
    course, turns = Course(), []
    for value in values:
        course, turn = moved(course, value, "above")
        turns += [turn] if turn is not None else []
    return course, turns


USUAL = (10.0, 10.2, 9.8, 10.1, 9.9)


def test_too_few_measurements_have_no_band() -> None:
    assert band(USUAL[:-1]) is None
    assert gone(*USUAL[:-1], 1000.0)[1] == []


@given(MANY)
def test_a_band_is_finite_and_holds_its_median(values: list[float]) -> None:
    found = band(values)
    assert found is not None
    assert 0 <= found.low <= median(values) <= found.high < float("inf")


@given(MANY, st.randoms())
def test_a_band_is_the_same_whatever_the_order(values: list[float], chance: object) -> None:
    shuffled = list(values)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert band(values) == band(shuffled)


@given(MANY, st.sampled_from([0.5, 2.0, 1024.0]))
def test_a_band_grows_with_its_unit(values: list[float], scale: float) -> None:
    one, other = band(values), band([scale * value for value in values])
    assert one is not None and other is not None
    assert (other.low, other.high) == (scale * one.low, scale * one.high)


@given(MANY, st.floats(0, 100), st.floats(0, 100))
def test_a_larger_least_distance_never_narrows_a_band(values: list[float], least: float, more: float) -> None:
    narrow, wide = band(values, least), band(values, least + more)
    assert narrow is not None and wide is not None
    assert wide.low <= narrow.low and narrow.high <= wide.high


@given(st.lists(st.floats(9, 11), min_size=11, max_size=KEEP), st.floats(1e3, 1e6))
def test_a_minority_of_wild_values_does_not_move_it_far(values: list[float], wild: float) -> None:
    few = [wild] * (len(values) // 2 - 1)
    found = band([*values, *few])
    assert found is not None and 9 <= median([*values, *few]) <= 11


def test_one_is_chance_and_two_in_a_row_are_news() -> None:
    assert gone(*USUAL, 100.0, 10.0, 100.0, 10.0)[1] == []
    assert gone(*USUAL, *[100.0] * SURE)[1] == ["degraded"]
    assert gone(*USUAL, *[100.0] * 10)[1] == ["degraded"]


def test_it_recovers_as_surely_as_it_degraded() -> None:
    assert gone(*USUAL, 100.0, 100.0, 10.0, 100.0, 10.0)[1] == ["degraded"]
    assert gone(*USUAL, 100.0, 100.0, 10.0, 10.0)[1] == ["degraded", "recovered"]


def test_what_has_lasted_is_what_is_usual() -> None:
    course, turns = gone(*USUAL, *[100.0] * SETTLED)
    assert turns == ["degraded", "settled"]
    assert not course.degraded and not course.outside
    assert moved(course, 100.0, "above")[1] is None


def test_better_than_usual_is_no_news_and_is_learnt() -> None:
    assert gone(*USUAL, 0.1, 0.1, 0.1)[1] == []
    course = Course(recent=USUAL)
    for _ in range(SURE):
        course, turn = moved(course, 100.0, "below")
        assert turn is None
    assert moved(moved(course, 1.0, "below")[0], 1.0, "below")[1] == "degraded"


@given(st.lists(VALUES, max_size=200), st.sampled_from(["above", "below"]))
def test_a_course_is_bounded_and_its_turns_alternate(values: list[float], worse: str) -> None:
    course, turns = Course(), []
    for value in values:
        before = course
        course, turn = moved(course, value, worse)  # type: ignore[arg-type]
        assert (course, turn) == moved(before, value, worse)  # type: ignore[arg-type]
        assert len(course.recent) <= KEEP and len(course.outside) < SETTLED
        if turn == "degraded":
            assert not before.degraded and course.degraded
        if turn in ("recovered", "settled"):
            assert not course.degraded
        turns += [turn] if turn in ("degraded", "recovered") else []
