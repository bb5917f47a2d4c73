"""What a trainer is told, most of it by the provisioner that starts it."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from windfall.contracts.message import Instant, Name
from windfall.servicekit.settings import SiteSettings, TlsSettings
from windfall.site_trainer.engine import Device, Precision, Sharding


class TrainerSettings(SiteSettings, TlsSettings):
    """One trainer under one lease."""

    federation: Name = "demo"
    coordinator: str
    """``host:port`` of the federation-coordinator; several, separated by commas, where others stand by for it."""
    data_dir: Path
    """The site's own data. Neither it nor its name leaves the site."""
    window_id: UUID
    window_opens_at: Instant | None = None
    """When the window is expected to open: until it is said to be open, the trainer keeps warm. None when it is."""
    lease_token: int = Field(ge=1)
    """Fencing token of the lease under which this trainer was started."""
    seed: int = 0
    """Decides the order of the data."""
    torch_threads: int = Field(default=1, ge=1)
    device: Device = "auto"
    """Where to train: ``cpu``, ``cuda`` (AMD's as well), or ``auto`` for whichever is there."""
    processes: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """How many train together on this node, started by torchrun: ``auto`` for one per GPU, and one without a GPU. A
    step takes ``micro_batch`` samples for each."""
    sharding: Sharding = "ddp"
    """How several train together: ``ddp`` where each holds the model, ``fsdp`` (FSDP2) where it fits no single GPU."""
    precision: Precision | None = None
    """Of forward and backward pass, ``fp16`` with a gradient scale; weights, optimizer state and what travels are
    fp32. Unset follows the coordinator's word, ``fp32`` where it has none."""
    compile: bool = False
    """Compile the model with ``torch.compile``: minutes at the start, faster steps. Without a compiler on the node, the
    log says so and training goes on."""
    accumulation: int | None = Field(default=None, ge=1)
    """Parts into which a step's samples are cut at least; what does not fit into memory is cut smaller without being
    told. Unset follows the coordinator's word."""
    micro_batch: int = Field(default=8, ge=1)
    """Samples per step when the coordinator does not say."""
    drain_time: timedelta = timedelta(seconds=1)
    """Wall time reserved before a window's end for the last push; a slower one that was measured counts instead."""
    checkpoint_every: timedelta = timedelta(seconds=60)
    """Wall time between checkpoints of work that has not been pushed; they are written while training goes on."""
    site_policy: Path | None = None
    """What the site's owner allows, in TOML or JSON (docs/sovereignty.md): no coordinator can change it."""
    ready_file: Path | None = None
    """Written when the trainer is up, whether or not its window is open."""
    ready_fd: int | None = None
    """Inherited pipe that is closed at the same moment."""
