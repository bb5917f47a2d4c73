"""Looking ahead: readings that are expected, and what they mean for a window."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from windfall.energy.policy import Policy
from windfall.energy.signals import Reading, Trace, plausible


def perfect(trace: Trace, now: datetime, horizon: timedelta) -> tuple[Reading, ...]:
    """What a trace will say after ``now``, no further than the horizon."""
    return trace.between(now, now + horizon)


def expected_close(
    points_ahead: Iterable[Reading], policy: Policy, dirty_since: datetime | None = None
) -> datetime | None:
    """The first instant at which the forecast crosses the close threshold to stay there for the grace.

    Args:
        points_ahead: expected readings, oldest first; implausible ones are passed over.
        policy: the close threshold and the grace.
        dirty_since: when the signal crossed already, if it is above the threshold now.

    Returns:
        The crossing itself, not the end of its grace; none when the forecast sees no end of the window, or too little
        of it to be sure.
    """
    crossed = dirty_since
    for reading in points_ahead:
        if not plausible(reading.intensity_g_per_kwh):
            continue
        if reading.intensity_g_per_kwh <= policy.close_above_g_per_kwh:
            crossed = None
            continue
        crossed = crossed or reading.point_time
        if reading.point_time - crossed >= policy.grace:
            return crossed
    return None
