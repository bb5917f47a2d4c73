"""A forecast worth telling the hub: one that says something else than the last that was told, at most once an hour."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from windfall.contracts.events import SignalForecast, SignalKind
from windfall.contracts.message import derived_id
from windfall.energy.thresholds import Valued

EVERY: Final = timedelta(hours=1)
MOST_VALUES: Final = 900
CHANGED_SHARE: Final = 0.05
"""Of the largest value: a forecast that moved by less anywhere is the same one."""
FURTHER: Final = timedelta(hours=6)
"""A forecast that reaches further by so much is another one, whatever it says of the hours before."""


def bulletin(
    site: str, kind: SignalKind, present: float, ahead: Sequence[Valued], now: datetime, last: SignalForecast | None
) -> SignalForecast | None:
    """What to tell of a forecast; none when it is no news yet.

    Args:
        site: whose power.
        kind: of the signal.
        present: the value that holds at ``now``.
        ahead: what is expected after it, oldest first.
        now: from when the values count.
        last: what was told before.
    """
    points = [point for point in ahead if point.point_time > now]
    if not points or (last is not None and timedelta(0) <= now - last.issued_at < EVERY):
        return None
    step = _step([now, *(point.point_time for point in points)])
    count = min(MOST_VALUES, (points[-1].point_time - now) // step + 1)
    values, held, place = list[float](), present, 0
    for index in range(count):
        while place < len(points) and points[place].point_time <= now + index * step:
            held, place = points[place].value, place + 1
        values.append(round(held, 3))
    told = SignalForecast(
        id=derived_id(f"{kind}/{now.astimezone(UTC).isoformat()}", SignalForecast.topic, site),
        at=now,
        site=site,
        kind=kind,
        issued_at=now,
        step_s=step.total_seconds(),
        values=tuple(values),
    )
    return told if last is None or _differs(told, last) else None


def _step(instants: Sequence[datetime]) -> timedelta:
    """The shortest distance of the forecast's own points, in whole multiples that fit into the message."""
    own = [later - earlier for earlier, later in pairwise(instants[1:])] or [instants[1] - instants[0]]
    step = max(min(own), timedelta(seconds=1))
    return step * max(1, -(-(instants[-1] - instants[0]) // (step * (MOST_VALUES - 1))))


def _differs(told: SignalForecast, last: SignalForecast) -> bool:
    if _end(told) - _end(last) >= FURTHER or last.issued_at > told.issued_at:
        return True
    bound = CHANGED_SHARE * max(abs(value) for value in (*told.values, *last.values))
    for index, value in enumerate(told.values):
        place = int((told.issued_at - last.issued_at).total_seconds() + index * told.step_s) // max(1, int(last.step_s))
        if place < len(last.values) and abs(value - last.values[place]) > bound:
            return True
    return False


def _end(told: SignalForecast) -> datetime:
    return told.issued_at + timedelta(seconds=told.step_s) * len(told.values)
