"""Several columns of a trace in one pass, and refusing what is not one."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.energy.column import Column
from windfall.energy.shipped import SYNTHETIC_SITES, synthetic_trace
from windfall.energy.signals import TraceError, parse_trace
from windfall.energy.traces import blocks, gather, heading

HEAD = "point_time,north,south,price"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(step: int, *cells: object) -> str:
    return f"{(NOON + step * timedelta(minutes=5)).isoformat()},{','.join(map(str, cells))}"


def whole(*lines: str, naive_is_utc: bool = False, intensities: tuple[str, ...] = ("north", "south")) -> list[Column]:
    return gather(blocks(lines, intensities, naive_is_utc=naive_is_utc))


def test_the_shipped_trace_is_what_the_other_reader_says() -> None:
    for site, column in zip(SYNTHETIC_SITES, gather(blocks(synthetic_trace(), SYNTHETIC_SITES)), strict=True):
        other = Column.of(parse_trace(synthetic_trace(), site))
        assert np.array_equal(column.times, other.times)
        assert np.array_equal(column.values, other.values)
        assert column.end == other.end


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 5000)), min_size=2, max_size=40), st.integers(1, 50))
def test_the_size_of_blocks_changes_nothing(values: list[tuple[float, float]], rows: int) -> None:
    lines = ["point_time,a,b", *(row(step, *pair) for step, pair in enumerate(values))]
    read = list(blocks(lines, ("b", "a"), rows=rows))
    assert [len(block.times) for block in read[:-1]] == [rows] * (len(read) - 1)
    b, a = gather(read)
    assert list(zip(a.values.tolist(), b.values.tolist(), strict=True)) == values


def test_rows_are_read_as_they_are_needed() -> None:
    given_out = 0

    def endless() -> Iterator[str]:
        nonlocal given_out
        yield "point_time,a"
        while True:
            yield row(given_out, 50)
            given_out += 1

    read = blocks(endless(), ("a",), rows=10)
    for number in (1, 2, 3):
        assert len(next(read).times) == 10
        assert given_out < 10 * number + 10


def test_the_time_is_in_the_first_column_where_none_is_called_point_time() -> None:
    assert heading(["oootime,a,b"]).columns == ("a", "b")
    assert heading(["a,point_time,b"]).columns == ("a", "b")
    (column,) = whole("oootime,a", row(0, 10), row(1, 20), intensities=("a",))
    assert column.values.tolist() == [10, 20]


def test_prices_may_be_negative_and_intensities_not() -> None:
    lines = [HEAD, row(0, 1, 2, -80.5), row(1, 1, 2, 12)]
    *_, price = gather(blocks(lines, ("north", "south"), ("price",)))
    assert price.values.tolist() == [-80.5, 12]
    with pytest.raises(TraceError, match=r"line 2, column price: '-80.5' is not from 0 to 5000 gCO2/kWh"):
        whole(*lines, intensities=("price",))


def test_what_is_not_asked_for_is_not_judged() -> None:
    north, south = whole(HEAD, row(0, 1, 2, "nothing"), row(1, 3, 4, ""))
    assert (north.values.tolist(), south.values.tolist()) == ([1, 3], [2, 4])


def test_offsets_are_honoured_through_a_change_of_daylight_saving() -> None:
    # Berlin, the last Sunday of October: 02:30 is there twice, an hour apart.
    (column,) = whole(
        "point_time,a",
        "2026-10-25T02:00:00+02:00,1",
        "2026-10-25T02:30:00+02:00,2",
        "2026-10-25T02:00:00+01:00,3",
        "2026-10-25T02:30:00+01:00,4",
        intensities=("a",),
    )
    assert column.step == 1800
    assert column.times[0] == datetime(2026, 10, 25, tzinfo=UTC).timestamp()
    with pytest.raises(TraceError, match="line 4, column point_time: '2026-10-25 02:00' is earlier than the row"):
        whole(
            "point_time,a",
            "2026-10-25 02:00,1",
            "2026-10-25 02:30,2",
            "2026-10-25 02:00,3",
            naive_is_utc=True,
            intensities=("a",),
        )


def test_naive_instants_are_utc_only_where_the_caller_says_so() -> None:
    lines = ("oootime,a", "2026-01-01 00:00:00,1", "2026-01-01 00:05:00,2")
    with pytest.raises(TraceError, match="line 2, column oootime: '2026-01-01 00:00:00' has no time zone"):
        whole(*lines, intensities=("a",))
    (block,) = blocks(lines, ("a",), naive_is_utc=True)
    assert block.naive
    assert block.times[0] == datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ((), "line 1: no column beside the time"),
        (("point_time",), "line 1: no column beside the time"),
        (("point_time,a,a", row(0, 1, 2)), "line 1: there are 2 columns 'a'"),
        (("point_time,west,south", row(0, 1, 2)), "no column 'north'; name one of these: west, south"),
        ((HEAD,), "0 rows with data"),
        ((HEAD, row(0, 1, 2, 3)), "1 rows with data"),
        ((HEAD, row(0, 1, 2)), "line 2: 3 fields where the heading has 4"),
        ((HEAD, row(0, 1, 2, 3), row(1, 1, 2, 3, 4)), "line 3: 5 fields"),
        ((HEAD, row(0, 1, "nan", 3)), "line 2, column south: 'nan' is not from 0 to 5000"),
        ((HEAD, row(0, 1, 2, 3), row(1, "inf", 2, 3)), "line 3, column north: 'inf' is not"),
        ((HEAD, row(0, -0.1, 2, 3)), "line 2, column north: '-0.1' is not"),
        ((HEAD, row(0, 1, 90000, 3)), "line 2, column south: '90000' is not"),
        ((HEAD, row(0, 1, "", 3)), "line 2, column south: '' holds nothing"),
        ((HEAD, row(0, 1, "much", 3)), "line 2, column south: 'much' is not a number"),
        ((HEAD, row(1, 1, 2, 3), row(0, 1, 2, 3)), "line 3, column point_time: .* is earlier than the row before"),
        ((HEAD, row(0, 1, 2, 3), row(0, 1, 2, 3)), "line 3, column point_time: .* is there twice"),
        ((HEAD, "noon,1,2,3"), "line 2, column point_time: 'noon' is not an instant"),
        ((HEAD, "2026-01-01T00:00:00,1,2,3"), "line 2, column point_time: .* has no time zone"),
    ],
)
def test_mistakes_are_told_by_line_and_column(lines: tuple[str, ...], said: str) -> None:
    with pytest.raises(TraceError, match=said):
        whole(*lines)


def test_zones_are_not_mixed() -> None:
    lines = ("point_time,a", "2026-01-01T00:00:00,1", "2026-01-01T00:05:00Z,2")
    with pytest.raises(TraceError, match=r"line 3, column point_time: .* has a time zone, unlike the rows before"):
        whole(*lines, naive_is_utc=True, intensities=("a",))


def test_the_first_mistake_is_told_wherever_blocks_end() -> None:
    lines = (HEAD, row(0, 1, 2, 3), row(1, -1, 2, 3), row(2, "x", 2, 3))
    with pytest.raises(TraceError, match="line 3, column north"):
        whole(*lines)


SOUND = (
    "0",
    "312.5",
    "-0",
    "1e2",
    "4.9E+3",
    " 7",
    "7 ",
    "\t8",
    "+5",
    ".5",
    "5.",
    "007",
    "1_0",
    "312.54999999999995",
    "١",
)
UNSOUND = ("", "x", "nan", "NaN", "Infinity", "1e999", "-1", "5000.1", "9" * 400, "true", "null", "[1]", "0x10", "1 2")
WRITTEN = st.sampled_from((*SOUND, *SOUND, '"5"', *UNSOUND))


@given(
    st.lists(st.tuples(WRITTEN, WRITTEN), min_size=2, max_size=8),
    st.sampled_from(["\n", "\r\n", ""]),
    st.integers(1, 4),
)
def test_many_rows_at_once_are_what_rows_one_by_one_are(cells: list[tuple[str, str]], end: str, rows: int) -> None:
    lines = ["point_time,a,b" + end, *(row(step, *pair) + end for step, pair in enumerate(cells))]
    # A time that is not in the first column is read row by row.
    turned = ["a,point_time,b" + end, *(f"{a},{row(step, b)}{end}" for step, (a, b) in enumerate(cells))]
    assert told(lines, rows) == told(turned, rows)


def told(lines: list[str], rows: int) -> object:
    try:
        return [(column.times.tolist(), column.values.tolist()) for column in gather(blocks(lines, "ab", rows=rows))]
    except TraceError as error:
        return str(error)


def test_a_blank_or_quoted_line_changes_nothing() -> None:
    lines = [HEAD, row(0, 1, 2, 3), "", row(1, '"3"', 4, '"5\n6"'), row(2, 5, 6, 7)]
    north, south = whole(*"\n".join(lines).splitlines(keepends=True))
    assert (north.values.tolist(), south.values.tolist()) == ([1, 3, 5], [2, 4, 6])
    with pytest.raises(TraceError, match="line 7, column north: 'x' is not a number"):
        whole(*"\n".join([*lines, row(3, "x", 1, 1)]).splitlines(keepends=True))
