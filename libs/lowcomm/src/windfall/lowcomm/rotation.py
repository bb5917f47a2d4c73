"""Fragments that take turns, a round each: round r synchronises fragment r mod P, and all others stay as they are.

It is the schedule of ``windfall.lowcomm.fragments`` with a round for a step: every fragment is told once in P rounds,
and has an outer state of its own, of which the model's are slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from windfall.lowcomm import outer as outers
from windfall.lowcomm.fragments import CHUNK, Fragments
from windfall.lowcomm.later import torch
from windfall.lowcomm.layout import Split
from windfall.lowcomm.outer import Outer
from windfall.lowcomm.rule import Rule
from windfall.lowcomm.sparse import Contribution

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rotation:
    """``count`` fragments of ``model``; one is the whole model in every round.

    The outer optimizer's state is that of the model, but that every fragment counts its own turns: each counter is a
    vector with an element per fragment.

    Raises:
        ValueError: there are more fragments than chunks.
    """

    model: Split
    count: int = 1

    def __post_init__(self) -> None:
        most = self.most(self.model)
        if not 1 <= self.count <= most:
            raise ValueError(f"{self.model.trained} elements make 1 to {most} fragments, not {self.count}")

    @staticmethod
    def most(model: Split) -> int:
        """Fragments that a model makes at most."""
        return max(1, -(-model.trained // CHUNK))

    @cached_property
    def _plan(self) -> Fragments:
        return Fragments(self.model, self.count, self.count, 1)

    def turn(self, round_number: int) -> int:
        """Which fragment a round synchronises, counted from 0."""
        return round_number % self.count

    def part(self, round_number: int) -> slice:
        """Where it lies in the flat vector."""
        return self._plan.part(self.turn(round_number))

    def split(self, round_number: int) -> Split:
        """It, as a vector of its own."""
        return self.model if self.count == 1 else self._plan.split(self.turn(round_number))

    @property
    def most_elements(self) -> int:
        """Of the longest fragment: what a round moves at most."""
        parts = (self.part(turn) for turn in range(self.count))
        return max(int(part.stop - part.start) for part in parts)

    def followed(self, rule: Rule) -> bool:
        """Whether a site that holds the base is better off with what the others said than with a new model: of a
        fragment also where codecs say as much as the model itself."""
        return rule.followed or self.count > 1

    def sizes(self, outer: Outer) -> tuple[int, ...]:
        """Elements of each vector of the outer optimizer's state."""
        return (self.model.trained,) * outer.slots + (self.count,) * outer.counters

    def init(self, outer: Outer) -> outers.State:
        """The outer optimizer's state before the first round."""
        return tuple(torch.zeros(size) for size in self.sizes(outer))

    def step(
        self, rule: Rule, states: Sequence[Tensor], base: Tensor, merged: Sequence[Contribution], round_number: int
    ) -> tuple[outers.State, Tensor]:
        """The outer step of a round, from what was merged of its fragment; see ``Rule.step``."""
        part, split = self.part(round_number), self.split(round_number)
        if self.count == 1:
            return rule.step(tuple(states), base, merged, split)
        places = [self._place(slot, rule.outer, round_number) for slot in range(len(states))]
        own = tuple(state[place] for state, place in zip(states, places, strict=True))
        after, moved = rule.step(own, base[part], merged, split)
        return tuple(map(_with, states, places, after)), _with(base, part, moved)

    def _place(self, slot: int, outer: Outer, round_number: int) -> slice:
        turn, begin = self.turn(round_number), self.part(round_number).start
        if slot >= outer.slots:
            return slice(turn, turn + 1)
        return slice(begin, begin + self.split(round_number).trained)


def rotation(elements: Split | Rotation) -> Rotation:
    """A model that is synchronised whole is the one fragment of its rotation."""
    return elements if isinstance(elements, Rotation) else Rotation(elements)


def _with(vector: Tensor, place: slice, values: Tensor) -> Tensor:
    changed = vector.clone()
    changed[place] = values
    return changed
