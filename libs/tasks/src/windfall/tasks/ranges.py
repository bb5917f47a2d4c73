"""Sets of whole numbers as the few ranges that they are made of: what a set costs depends on its gaps, not its size.

A range is half-open, ``(begin, end)``. Ranges are in order, apart from each other, and none is empty.
"""

from collections.abc import Iterable
from itertools import pairwise
from typing import Final

Range = tuple[int, int]
Ranges = tuple[Range, ...]

NONE: Final[Ranges] = ()


def size(ranges: Ranges) -> int:
    """How many numbers there are."""
    return sum(end - begin for begin, end in ranges)


def sound(ranges: Iterable[Range]) -> bool:
    """Whether these are ranges as they are due: in order, apart, none empty, from 0 on."""
    given = tuple(ranges)
    apart = all(before[1] < after[0] for before, after in pairwise(given))
    return apart and all(0 <= begin < end for begin, end in given)


def union(*sets: Iterable[Range]) -> Ranges:
    """What is in any of them. Ranges may come in any order, overlap, touch or be empty."""
    merged: list[Range] = []
    for begin, end in sorted(each for ranges in sets for each in ranges):
        if begin >= end:
            continue
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return tuple(merged)


def minus(ranges: Ranges, others: Ranges) -> Ranges:
    """What is in the first and not in the second."""
    left: list[Range] = []
    at = 0
    for begin, end in ranges:
        while at < len(others) and others[at][1] <= begin:
            at += 1
        probe = at
        while probe < len(others) and others[probe][0] < end:
            if begin < others[probe][0]:
                left.append((begin, others[probe][0]))
            begin = max(begin, others[probe][1])
            probe += 1
        if begin < end:
            left.append((begin, end))
    return tuple(left)


def common(ranges: Ranges, others: Ranges) -> Ranges:
    """What is in both."""
    return minus(ranges, minus(ranges, others))


def within(ranges: Ranges, others: Ranges) -> bool:
    """Whether all of the first is in the second."""
    return not minus(ranges, others)


def first(ranges: Ranges, count: int) -> Ranges:
    """The lowest ``count`` numbers, or all when there are fewer."""
    taken: list[Range] = []
    for begin, end in ranges:
        if count <= 0:
            break
        taken.append((begin, min(end, begin + count)))
        count -= end - begin
    return tuple(taken)
