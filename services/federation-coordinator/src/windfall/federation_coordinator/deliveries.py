"""How fast sites get from a round's opening to a contribution that counts: what decides who waits for whom.

Steps per second of the whole way: training, but also what a download, an encoding and an upload take. Steps that follow
these speeds bring all sites to the round's end together, whatever it is that slows one down, and each round corrects
the one before. Nothing of it outlives the process: it is measured again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

NEWEST: Final = 0.5
"""Weight of the newest round: chance evens out."""
CHANGED: Final = 1.3
"""So many times faster or slower than before is another speed, and no chance: it counts at once."""


@dataclass(frozen=True)
class _Told:
    attempt: int
    round: int
    at_s: float
    cold: bool
    """It is the first that this membership hears of: the site loads and compiles what it will not load again."""


class Deliveries:
    """The speeds of all sites. Instants are seconds of one clock of which only differences count."""

    def __init__(self) -> None:
        self._told: dict[str, _Told] = {}
        self._speeds: dict[str, float] = {}

    @property
    def speeds(self) -> Mapping[str, float]:
        """Steps per second of each site that has delivered a whole round of its membership, the first apart."""
        return self._speeds

    def opened(self, site: str, attempt: int, number: int, now_s: float) -> None:
        """A member is told that a round is open; told again, it trains on."""
        before = self._told.get(site)
        if before is not None and (before.attempt, before.round) == (attempt, number):
            return
        cold = before is None or before.attempt != attempt
        if cold:
            # It may train on another node now.
            self._speeds.pop(site, None)
        self._told[site] = _Told(attempt, number, now_s, cold)

    def delivered(self, site: str, attempt: int, number: int, steps: int, now_s: float) -> None:
        """Its contribution counts."""
        told = self._told.get(site)
        if told is None or (told.attempt, told.round) != (attempt, number) or told.cold:
            return
        if steps > 0 and now_s > told.at_s:
            speed = steps / (now_s - told.at_s)
            before = self._speeds.get(site, speed)
            changed = not before / CHANGED <= speed <= before * CHANGED
            self._speeds[site] = speed if changed else NEWEST * speed + (1 - NEWEST) * before
