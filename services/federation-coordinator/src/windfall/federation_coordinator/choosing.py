"""What each site trains with: the operator's word, or else the owner's, or else what its profile recommends. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.events import Chooser, Chosen, Precision, Recommendation, TrainingValue


class ForSite(BaseModel):
    """What an operator wants of one site; a value that is none follows from advice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    micro_batch: int | None = Field(default=None, ge=1, le=65_536)
    """Samples of one pass."""
    gradient_accumulation: int | None = Field(default=None, ge=1, le=4096)
    """Passes in a step."""
    precision: Precision | None = None
    local_steps: int | None = Field(default=None, ge=1)
    takes_part: bool | None = None
    """True: it is never left out of a round for what it costs. False: it always is."""


@dataclass(frozen=True)
class ForAll:
    """What an operator wants of every site."""

    step_samples: int | None = None
    """In as many passes as suit the site."""
    gradient_accumulation: int | None = None
    precision: Precision | None = None
    sites: Mapping[str, ForSite] = field(default_factory=dict)
    """What is wanted of single sites; it goes before the rest."""


@dataclass(frozen=True)
class Settings:
    """With what a site trains; 0 and empty are left to its trainer."""

    samples: int = 0
    """Of a step."""
    accumulation: int = 0
    """Passes into which they are cut at least."""
    precision: Precision | None = None


_NOTHING: Final = ForSite()


def settings_of(site: str, told: ForAll, advised: Recommendation | None) -> Settings:
    """What a site is told with the next round.

    Args:
        advised: what its profile recommends; none while there is none.
    """
    own = told.sites.get(site, _NOTHING)
    size = own.micro_batch or (advised.micro_batch if advised is not None else 0)
    passes = own.gradient_accumulation or told.gradient_accumulation
    if told.step_samples is not None and own.micro_batch is None:
        # As many passes as keep each at what suits the site.
        fitting = -(-told.step_samples // size) if size else 0
        settings = Settings(told.step_samples, passes or fitting)
    else:
        passes = passes or (advised.gradient_accumulation if advised is not None else 1)
        settings = Settings(size * passes, passes if size or passes > 1 else 0)
    precision = own.precision or told.precision or (advised.precision if advised is not None else None)
    return Settings(settings.samples, settings.accumulation, precision)


def choices(site: str, told: ForAll, advised: Recommendation | None) -> dict[TrainingValue, Chosen]:
    """The same in words: what was advised, what is used and by whose word."""
    own, used = told.sites.get(site, _NOTHING), settings_of(site, told, advised)
    passes = max(1, used.accumulation)
    by_operator = {
        "micro_batch": own.micro_batch is not None or told.step_samples is not None,
        "gradient_accumulation": own.gradient_accumulation is not None
        or told.gradient_accumulation is not None
        or (told.step_samples is not None and own.micro_batch is None),
        "precision": own.precision is not None or told.precision is not None,
    }
    recommended = (
        {}
        if advised is None
        else {
            "micro_batch": str(advised.micro_batch),
            "gradient_accumulation": str(advised.gradient_accumulation),
            "precision": advised.precision or "",
        }
    )
    values = {
        "micro_batch": str(-(-used.samples // passes)) if used.samples else "",
        "gradient_accumulation": str(used.accumulation) if used.accumulation else "",
        "precision": used.precision or "",
    }
    found: dict[TrainingValue, Chosen] = {}
    names: tuple[TrainingValue, ...] = ("micro_batch", "gradient_accumulation", "precision")
    for name in names:
        by: Chooser = "operator" if by_operator[name] else "default"
        if by == "default" and recommended.get(name):
            by = "owner" if advised is not None and name in advised.told else "advice"
        found[name] = Chosen(advised=recommended.get(name, ""), used=values[name], by=by)
    return found
