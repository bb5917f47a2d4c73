"""What an API server can do to those who rely on it."""

import random
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass
class Faults:
    """Switches, to be set at any moment. Chances are from 0 to 1, per request."""

    down: bool = False
    """Every connection is broken without an answer."""
    delay: timedelta = timedelta(0)
    """Before every answer."""
    throttled: float = 0.0
    """Answered with 429, and ``Retry-After`` if that is given."""
    retry_after_s: int | None = None
    failing: float = 0.0
    """Answered with 500; nothing was done."""
    deaf: float = 0.0
    """Done, and the connection broken before the answer."""
    gone: bool = False
    """No place in the history is known: every watch ends at once with the event that says 410."""
    unwatchable: bool = False
    """Every watch is refused with 403."""
    seed: int = 0
    cuts: int = field(default=0, init=False)
    """Grows when watches are to be cut."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def cut_watches(self) -> None:
        """Break every watch that is open now, in the middle of whatever it says."""
        self.cuts += 1

    def strikes(self, chance: float) -> bool:
        return chance > 0 and self._random.random() < chance
