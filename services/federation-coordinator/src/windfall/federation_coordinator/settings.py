"""What a coordinator is told."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from windfall.contracts.message import Name
from windfall.federation_coordinator.rounds import Policy
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.outer import parse_outer
from windfall.servicekit.settings import Settings, TlsSettings


def _split(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


def _outer(text: str) -> str:
    parse_outer(text)
    return text


def _codec(text: str) -> str:
    if text not in CODECS:
        raise ValueError(f"{text!r} is no codec; known are {', '.join(CODECS)}")
    return text


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
    codec: Annotated[str, AfterValidator(_codec)] = "bf16"
    """In which contributions travel up: ``bf16`` (half the bytes; OpenDiLoCo, arXiv 2407.07852, found 16 bits lossless)
    or ``fp32``."""
    outer: Annotated[str, AfterValidator(_outer)] = "nesterov:lr=0.7,momentum=0.9"
    round_length: timedelta | None = timedelta(minutes=10)
    """Business time after which a round ends."""
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
    def _boxed(self) -> Self:
        if self.round_length is None and self.round_steps is None:
            raise ValueError("a round needs WINDFALL_ROUND_LENGTH or WINDFALL_ROUND_STEPS")
        return self

    @property
    def policy(self) -> Policy:
        return Policy(self.round_length, self.round_steps, self.straggler_grace, self.micro_batch)
