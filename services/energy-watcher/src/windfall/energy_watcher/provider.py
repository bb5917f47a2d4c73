"""The port to whoever publishes a signal."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from windfall.contracts.events import SignalKind
from windfall.energy.quotes import Quote


class Provider(Protocol):
    """One signal of one region. All that it gives is believable (``quotes.believed``) and of its kind.

    Every method raises ``Transient`` when there is no answer now (with ``retry_after`` where the other side said one),
    ``Unbelievable`` when the answer is there and cannot be true, and ``Mistake`` when asking again will not help: a
    wrong credential, a region that is not covered. Messages never hold a credential.
    """

    kind: SignalKind
    region: str

    async def current(self, now: datetime) -> Quote:
        """The latest value that is known at ``now``; its ``point_time`` is not after ``now``."""

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        """What was published later than ``after`` (none: as far back as goes), up to and with ``now``, oldest first.

        A provider that keeps no history gives its current value, or nothing when that is not news.
        """

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        """What is expected after ``now``, oldest first, no further than the horizon. Empty when there is none."""

    def next_at(self, now: datetime) -> datetime | None:
        """When the next value is due; none leaves it to the poll interval."""

    def ended(self, now: datetime) -> bool:
        """Whether there will never be another value."""

    async def close(self) -> None:
        """Let go of connections."""
