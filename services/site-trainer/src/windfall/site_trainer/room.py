"""How a step's samples are cut into passes, and what follows when one does not fit into memory. Pure."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Room:
    """What is known to fit."""

    samples: int = 0
    """Samples of one pass, at most; 0 while nothing was refused."""

    def cut(self, samples: int, parts: int) -> tuple[int, ...]:
        """Sizes of a step's passes: at least ``parts`` of them where there are as many samples, as even as can be."""
        parts = max(parts, -(-samples // self.samples)) if self.samples else parts
        shares = [samples * part // parts for part in range(parts + 1)]
        return tuple(end - begin for begin, end in pairwise(shares) if end > begin)

    def without(self, refused: int) -> "Room":
        """After passes of ``refused`` samples did not fit: half as many.

        Raises:
            MemoryError: it was one sample.
        """
        if refused <= 1:
            raise MemoryError("one sample does not fit into memory")
        return Room(refused // 2)

    def and_(self, other: "Room") -> "Room":
        """What fits where both are known."""
        known = [each.samples for each in (self, other) if each.samples]
        return Room(min(known, default=0))
