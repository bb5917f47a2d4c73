"""What the two halves of the door are told: the coordinator of a Flower app, and a site that runs its ClientApp."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

from pydantic import BeforeValidator, Field

from windfall.contracts.message import Instant, Name
from windfall.servicekit.settings import Settings, SiteSettings, TlsSettings


def _split(text: object) -> object:
    return tuple(part.strip() for part in text.split(",") if part.strip()) if isinstance(text, str) else text


class FlowerCoordinatorSettings(Settings, TlsSettings):
    """One run of a Flower app."""

    federation: Name = "demo"
    sites: Annotated[tuple[Name, ...], BeforeValidator(_split)] = ()
    """Sites whose events the hub sources; only they may join. Comma-separated."""
    listen: str = "127.0.0.1:0"
    """Where ``Messages`` is served."""
    insecure: bool = False
    """Serve beyond loopback without TLS. Say so only on a network that you own."""
    flower_app: Path
    """Folder of the app, with its ``pyproject.toml``."""
    run_config: str = ""
    """What this run changes of the app's configuration: ``key=value`` pairs separated by blanks."""
    silence: timedelta = timedelta(seconds=5)
    """Wall time without a sign of life after which a site counts as gone and its messages as failed."""
    max_message_bytes: int = Field(default=2 * 1024**3, ge=1)
    """The longest body of a message or a reply. A longer one is refused with the reason."""
    max_buffered_bytes: int = Field(default=8 * 1024**3, ge=1)
    """All replies to one batch together: stock strategies hold them in memory at once, sites × model. What is over it
    is refused with the reason, and the strategy goes on without."""
    max_replay_bytes: int = Field(default=64 * 1024**3, ge=0)
    """Replies that are kept on disk so that a restarted coordinator resumes the run. Over it the run goes on, and a
    restart begins it anew."""
    refuse_not_finite: bool = True
    """Refuse a reply to train whose arrays hold NaN or infinity: an average with one is one."""


class FlowerSiteSettings(SiteSettings, TlsSettings):
    """One ClientApp under one lease; most of it is told by the provisioner, as to a site-trainer."""

    federation: Name = "demo"
    coordinator: str
    """``host:port`` of the coordinator."""
    flower_app: Path
    """Folder of the site's own copy of the app: code never travels."""
    data_dir: Path
    """The site's own data; the app finds it as ``data-dir`` in its node's configuration."""
    node_config: str = ""
    """More of that configuration: ``partition-id=0 num-partitions=3``."""
    window_id: UUID
    window_opens_at: Instant | None = None
    """When the window is expected to open: until it is said to be open, the app is loaded and waits."""
    lease_token: int = Field(ge=1)
    """Fencing token of the lease under which this process was started."""
    drain_time: timedelta = timedelta(seconds=1)
    """Wall time before a window's end from which on nothing is begun, and what runs is asked to end."""
    finish_within: timedelta = timedelta(seconds=10)
    """Wall time that what runs then has to reply; after it an error is replied in its place and the site leaves."""
    max_message_bytes: int = Field(default=2 * 1024**3, ge=1)
    """The longest body of a message that is fetched."""
    ready_file: Path | None = None
    """Written when the app is loaded."""
    ready_fd: int | None = None
    """Inherited pipe that is closed at the same moment."""
