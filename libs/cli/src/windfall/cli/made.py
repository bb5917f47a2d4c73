"""Simulated sites that are made as they are asked for, and forgotten."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

from windfall.energy.simulate import SimulatedSite


@dataclass(frozen=True, eq=False)
class Made(Sequence[SimulatedSite]):
    """Sites by their names, each with its column read at each access."""

    names: tuple[str, ...]
    make: Callable[[int, str], SimulatedSite]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, place: int) -> SimulatedSite: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[SimulatedSite]: ...

    def __getitem__(self, place: int | slice) -> SimulatedSite | Sequence[SimulatedSite]:
        if isinstance(place, slice):
            return Made(self.names[place], self.make)
        # A negative place counts from the end, and so does its seed.
        at = range(len(self.names))[place]
        return self.make(at, self.names[at])
