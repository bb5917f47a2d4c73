"""What a coordinator is told."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from windfall.contracts.message import Instant, Name
from windfall.energy.fleet import Told
from windfall.energy.goal import Goal
from windfall.federation_coordinator.rounds import Policy
from windfall.lowcomm.rule import Rule
from windfall.servicekit.settings import Settings, TlsSettings
from windfall.servicekit.standby import StandbySettings


def _split(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def _object(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error


_LONGEST_ROUND = timedelta(minutes=10)


class CoordinatorSettings(Settings, TlsSettings, StandbySettings):
    """One federation."""

    federation: Name = "demo"
    sites: Annotated[tuple[Name, ...], BeforeValidator(_split)] = ()
    """Sites whose events the hub sources; only they may join. Comma-separated."""
    listen: str = "127.0.0.1:0"
    """Where ``Training`` is served."""
    insecure: bool = False
    """Serve beyond loopback without TLS. Say so only on a network that you own."""
    task: str = "gpt-neox"
    task_settings: str = "{}"
    """JSON settings of the task."""
    seed: int = 0
    codec: str = "topk-ef"
    """In which contributions travel, with its settings: ``topk-ef`` (0.15 bit per parameter), ``dct-momentum``,
    ``q2-ef``, ``int4-block``, ``int8-block``, ``bf16`` or ``fp32``, as in ``topk-ef:keep=32``."""
    outer: str = ""
    """The outer optimizer: ``average`` or ``nesterov:lr=0.7,momentum=0.6``. Unset goes with the codec: ``average`` for
    the sparse ones, that Nesterov for the others."""
    clip: bool = False
    """Scale a contribution that is longer than the median one down to it."""
    merge: str = "mean"
    """How contributions become one: ``mean``; ``rda`` for radial-directional averaging of dense ones; or what liars
    cannot move at will: ``median``, ``trimmed-mean:share=0.2``, ``krum:byzantine=1``, ``multi-krum:byzantine=1``."""
    round_length: timedelta | None = None
    """Business time after which a round ends. Unset, and without ``round_steps``, rounds follow the links: a site takes
    so many local steps that synchronising costs it at most a twentieth of its training, and 10 minutes at most."""
    round_steps: int | None = Field(default=None, ge=1)
    """Local steps after which a site finishes its round."""
    straggler_grace: timedelta = timedelta(minutes=5)
    """How long after a round's end its last contributions are waited for."""
    silence: timedelta = timedelta(seconds=5)
    """Wall time without a heartbeat after which a site counts as gone."""
    micro_batch: int | None = Field(default=None, ge=1)
    """Samples per step at every site; unset follows each site's profile."""
    held_out_dir: Path | None = None
    """Held-out data on the hub, that no site trains on; unset evaluates nothing."""
    objective: Literal["fast", "carbon", "budget", "cost"] = "fast"
    """``fast`` plans nothing: every site uses each of its windows. ``carbon``: the work by the deadline, at least
    carbon. ``cost``: at least cost, by the sites' prices. ``budget``: as early as a budget of carbon allows."""
    work_tokens: int | None = Field(default=None, ge=1)
    """Tokens to train; then the federation finishes."""
    deadline: Instant | None = None
    """ISO 8601 with its zone."""
    budget_kg: float | None = Field(default=None, gt=0)
    """Of CO2, by the sites' ledgers."""
    replan: timedelta = Field(default=timedelta(minutes=15), gt=timedelta(0))
    """Business time between two plans; sooner when a forecast says something else."""
    plan_valid: timedelta | None = Field(default=None, gt=timedelta(0))
    """How long sites follow a plan without a newer one; unset: twice ``replan``."""
    tokens_per_hour: float | None = Field(default=None, gt=0)
    """What a site of speed 1 trains in an hour, until one has been measured. Unset, nothing is planned until then."""
    site_power: Annotated[dict[Name, Told], BeforeValidator(_object)] = Field(default_factory=dict)
    """JSON: ``{"site-a": {"training_kw": 2.0, "idle_kw": 0.4, "start_up_s": 240, "speed": 1.5}}``."""

    @model_validator(mode="after")
    def _ruled(self) -> Self:
        # Unknown names and values are said now.
        _ = self.rule
        return self

    @model_validator(mode="after")
    def _planned(self) -> Self:
        aims = {"WORK_TOKENS": self.work_tokens, "DEADLINE": self.deadline, "BUDGET_KG": self.budget_kg}
        if self.objective == "fast":
            if told := [f"WINDFALL_{name}" for name, value in aims.items() if value is not None]:
                raise ValueError(f"{', '.join(told)} without a plan; set WINDFALL_OBJECTIVE to carbon, budget or cost")
            return self
        needed = ("WORK_TOKENS", "BUDGET_KG" if self.objective == "budget" else "DEADLINE")
        if missing := [f"WINDFALL_{name}" for name in needed if aims[name] is None]:
            raise ValueError(f"WINDFALL_OBJECTIVE is {self.objective} and needs {' and '.join(missing)}")
        if self.plan_valid is not None and self.plan_valid <= self.replan:
            raise ValueError("WINDFALL_PLAN_VALID must be longer than WINDFALL_REPLAN, or plans end before the next")
        if strange := sorted(set(self.site_power) - set(self.sites)):
            raise ValueError(f"WINDFALL_SITE_POWER names {', '.join(strange)}, which WINDFALL_SITES does not")
        return self

    @property
    def goal(self) -> Goal | None:
        """What is planned for; none when nothing is."""
        if self.objective == "fast" or self.work_tokens is None:
            return None
        return Goal(
            federation=self.federation,
            objective=self.objective,
            work_tokens=self.work_tokens,
            deadline=self.deadline,
            budget_kg=self.budget_kg,
            valid=self.plan_valid or 2 * self.replan,
            tokens_per_hour=self.tokens_per_hour,
            told=self.site_power,
        )

    @property
    def rule(self) -> Rule:
        return Rule.parse(self.codec, self.outer, self.clip, self.merge)

    @property
    def policy(self) -> Policy:
        length = _LONGEST_ROUND if self.follows_links else self.round_length
        return Policy(length, self.round_steps, self.straggler_grace, self.micro_batch)

    @property
    def follows_links(self) -> bool:
        """Nobody said how long a round is."""
        return self.round_length is None and self.round_steps is None
