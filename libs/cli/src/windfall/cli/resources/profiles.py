"""Profiles: what the newest node of each site is made of and can do. `windfall profile get` has every value."""

from dataclasses import dataclass
from datetime import datetime

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.events import NodeProfiled
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Profile:
    """In short."""

    name: str
    """The site."""
    node: str
    device: str
    matmul_gflops: float | None
    memory_gib: float
    """Of the host."""
    link_rtt_ms: float | None
    link_up_mb_per_s: float | None
    micro_batch: int
    """As recommended."""
    local_steps: int
    missing: int
    """Parts that could not be measured."""
    profiled_at: datetime


def fold(rows: Rows, message: Message) -> None:
    """Take one event in."""
    if isinstance(message, NodeProfiled):
        found, advice = message.measured, message.recommendation
        rows[message.site] = Profile(
            message.site,
            message.node,
            found.cpu_model if found.device in (None, "cpu") else _accelerators(message),
            found.matmul_gflops,
            found.memory_bytes / 2**30,
            found.link_rtt_ms,
            found.link_up_mb_per_s,
            advice.micro_batch,
            advice.local_steps,
            len(found.missing),
            message.at,
        )


def _accelerators(message: NodeProfiled) -> str:
    models = [one.model for one in message.hardware.accelerators] if message.hardware else []
    return ", ".join(f"{models.count(model)} × {model}" for model in dict.fromkeys(models)) or "an accelerator"


PROFILES = Resource(
    "profiles",
    "Profile",
    ("profile", "hardware"),
    Profile,
    (
        ("site", "name"),
        ("node", "node"),
        ("device", "device"),
        ("gflops", "matmul_gflops"),
        ("memory gib", "memory_gib"),
        ("batch", "micro_batch"),
        ("steps", "local_steps"),
        ("profiled", "profiled_at"),
    ),
    (("rtt ms", "link_rtt_ms"), ("up mb/s", "link_up_mb_per_s"), ("missing", "missing")),
    (NodeProfiled,),
    fold,
    newest=True,
    empty="no node was profiled yet: that happens when the first window of a site opens",
)
