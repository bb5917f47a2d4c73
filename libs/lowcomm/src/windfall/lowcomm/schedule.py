"""When a round ends."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True)
class Box:
    """What a round is boxed by: time, local steps, or both, whichever is used up first.

    Raises:
        ValueError: neither is given, or one is not positive.
    """

    duration: timedelta | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.duration is None and self.steps is None:
            raise ValueError("a round is boxed by a duration, by local steps, or by both")
        if self.duration is not None and self.duration <= timedelta():
            raise ValueError(f"a round's duration must be positive, not {self.duration}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"a round has at least one local step, not {self.steps}")

    def ends_at(self, start: datetime) -> datetime | None:
        """The instant at which the round ends at the latest; none when it is boxed by steps alone."""
        return None if self.duration is None else start + self.duration
