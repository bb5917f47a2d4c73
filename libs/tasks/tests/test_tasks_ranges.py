"""Ranges are sets: every operation gives what Python's own sets give."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.tasks.ranges import NONE, Ranges, common, first, minus, size, sound, union, within

SETS = st.sets(st.integers(0, 40))


def ranges_of(numbers: set[int]) -> Ranges:
    return union((each, each + 1) for each in numbers)


def numbers_in(ranges: Ranges) -> set[int]:
    return {number for begin, end in ranges for number in range(begin, end)}


@given(SETS, SETS, st.integers(0, 45))
def test_they_agree_with_sets(one: set[int], other: set[int], count: int) -> None:
    a, b = ranges_of(one), ranges_of(other)
    assert size(a) == len(one)
    for found, expected in (
        (a, one),
        (union(a, b), one | other),
        (minus(a, b), one - other),
        (common(a, b), one & other),
        (first(a, count), set(sorted(one)[:count])),
    ):
        assert numbers_in(found) == expected
        assert sound(found)
    assert within(a, b) == (one <= other)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=12))
def test_a_union_mends_whatever_it_is_given(given_ranges: list[tuple[int, int]]) -> None:
    found = union(given_ranges)
    assert sound(found)
    assert numbers_in(found) == numbers_in(tuple(given_ranges))


@pytest.mark.parametrize(
    "wrong", [((3, 3),), ((2, 1),), ((-1, 2),), ((0, 2), (2, 4)), ((4, 6), (0, 1)), ((0, 5), (3, 7))]
)
def test_what_is_not_in_order_or_touches_is_not_sound(wrong: Ranges) -> None:
    assert not sound(wrong)


def test_what_a_set_costs_does_not_depend_on_its_size() -> None:
    most = ((0, 10**18),)
    assert minus(most, ((7, 8),)) == ((0, 7), (8, 10**18))
    assert size(union(most, NONE)) == 10**18
