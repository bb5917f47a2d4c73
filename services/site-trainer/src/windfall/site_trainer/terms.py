"""What a trainer was started for."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from windfall.site_trainer.tuning import Owner


@dataclass(frozen=True)
class Terms:
    """One lease, and the site's own word about how to use it."""

    site: str
    federation: str
    window_id: UUID
    lease_token: int
    micro_batch: int
    drain_time: timedelta
    checkpoint_every: timedelta
    checkpoint: Path | None
    """Where unfinished work is kept; none keeps it nowhere."""
    opens_at: datetime | None = None
    """When the window is expected to open; none when it is open."""
    owner: Owner = field(default_factory=Owner)
    """What goes before the coordinator's word."""
