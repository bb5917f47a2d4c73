from datetime import UTC, datetime, timedelta

import pytest

from windfall.lowcomm.schedule import Box

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("box", "ends_at"),
    [
        (Box(duration=timedelta(minutes=10)), START + timedelta(minutes=10)),
        (Box(duration=timedelta(minutes=10), steps=5), START + timedelta(minutes=10)),
        (Box(steps=5), None),
    ],
    ids=["time", "both", "steps"],
)
def test_a_round_ends(box: Box, ends_at: datetime | None) -> None:
    assert box.ends_at(START) == ends_at


@pytest.mark.parametrize(
    ("duration", "steps"),
    [(None, None), (timedelta(), None), (timedelta(seconds=-1), 5), (None, 0)],
    ids=["neither", "no time", "negative time", "no steps"],
)
def test_a_box_that_never_or_at_once_ends_is_refused(duration: timedelta | None, steps: int | None) -> None:
    with pytest.raises(ValueError, match="round"):
        Box(duration, steps)
