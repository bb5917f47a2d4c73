"""What a coordinator is told."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from windfall.contracts.message import Name
from windfall.federation_coordinator.rounds import Policy
from windfall.lowcomm.rule import Rule
from windfall.servicekit.settings import Settings, TlsSettings


def _split(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


_LONGEST_ROUND = timedelta(minutes=10)


class CoordinatorSettings(Settings, TlsSettings):
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
    """``mean``, or ``rda`` for radial-directional averaging of dense contributions."""
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

    @model_validator(mode="after")
    def _ruled(self) -> Self:
        # Unknown names and values are said now.
        _ = self.rule
        return self

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
