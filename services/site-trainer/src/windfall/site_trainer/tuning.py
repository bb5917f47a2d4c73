"""How an engine passes through a step's samples: the owner's word, or else the coordinator's, or else plainly. Pure."""

from dataclasses import dataclass
from typing import Final, get_args

from windfall.contracts.events import Precision as Advised
from windfall.site_trainer.engine import Precision
from windfall.site_trainer.session import Session

MOST_PARTS: Final = 4096
"""Passes that a coordinator may ask for."""
_KNOWN: Final = get_args(Advised)


@dataclass(frozen=True)
class Owner:
    """What the site's owner says; none leaves it to the coordinator."""

    accumulation: int | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class Tuning:
    """What holds for the next step."""

    accumulation: int = 1
    precision: Precision = "fp32"


def tuned(owner: Owner, session: Session) -> Tuning:
    """What a step of this session is to be made of. What is not known to this version is as good as not said."""
    precision: Precision = "bf16" if session.precision == "bf16" else "fp32"
    return Tuning(
        owner.accumulation or min(MOST_PARTS, session.accumulation) or 1,
        owner.precision or (precision if session.precision in _KNOWN else "fp32"),
    )
