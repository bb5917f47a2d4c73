"""What a site's rule says of its power at one instant."""

from enum import IntEnum


class Verdict(IntEnum):
    """Ordered, so that *and* is the minimum and *or* the maximum."""

    DIRTY = -1
    """Over the close threshold, or nobody knows."""
    BETWEEN = 0
    """Between the thresholds: what is open stays open, what is shut stays shut."""
    CLEAN = 1
    """Below the open threshold."""
