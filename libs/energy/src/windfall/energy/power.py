"""What a site draws in each state."""

import math
from dataclasses import astuple, dataclass
from enum import StrEnum
from functools import cached_property
from typing import Final


class SiteState(StrEnum):
    """What a site's node does, as far as its power is concerned."""

    OFF = "off"
    PROVISIONING = "provisioning"
    IDLE = "idle"
    TRAINING = "training"
    DRAINING = "draining"


@dataclass(frozen=True)
class PowerModel:
    """Power of one site in kW. The defaults are the published ones for 4 × A100: exalsius, curtail-llm notebook.

    Raises:
        ValueError: a power that is negative or not finite.
    """

    idle_kw: float = 0.468
    training_kw: float = 2.024
    provisioning_kw: float = 0.468
    draining_kw: float = 2.024

    def __post_init__(self) -> None:
        if not all(math.isfinite(kw) and kw >= 0.0 for kw in astuple(self)):
            raise ValueError(f"{self} has a power that is negative or not finite; give kW from 0 on")

    def kw(self, state: SiteState) -> float:
        """Power in a state, in kW."""
        return self._by_state[state]

    @cached_property
    def _by_state(self) -> dict[SiteState, float]:
        return {
            SiteState.OFF: 0.0,
            SiteState.PROVISIONING: self.provisioning_kw,
            SiteState.IDLE: self.idle_kw,
            SiteState.TRAINING: self.training_kw,
            SiteState.DRAINING: self.draining_kw,
        }


PUBLISHED: Final = PowerModel()
"""4 × A100."""
