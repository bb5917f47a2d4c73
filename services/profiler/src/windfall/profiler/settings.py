"""What the profiler is told."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from windfall.contracts.message import Name
from windfall.profiler.recommendation import Wishes
from windfall.servicekit.link_probe import PROBE_CAP_BYTES
from windfall.servicekit.settings import SiteSettings, TlsSettings

REFERENCE: Final = "reference"

Target = Annotated[str, StringConstraints(pattern=r"^\S+:\d{1,5}$")]
"""``host:port``."""
Url = Annotated[str, StringConstraints(pattern=r"^https?://\S+$")]


def _object(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error


class ProfilerSettings(SiteSettings, TlsSettings):
    """The profiler of one site."""

    coordinator: Target | None = None
    """``host:port`` of the federation-coordinator; without one the link is not measured."""
    probe: Literal["node", "fixed"] = "node"
    """What is measured: the node that this process runs on, or constants (a rehearsal)."""
    bench: Literal["full", "training"] = "full"
    """What the benchmark measures: all that the node's devices can do, or what a recommendation needs."""
    bench_budget: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0), le=timedelta(minutes=10))
    """Wall time that the compute benchmark may measure for, loading of torch not counted."""
    bench_task: str | None = None
    """Name in ``windfall.tasks`` of the task whose step is measured, or ``reference`` for the benchmark's own model.
    Unset: what the site's trainer is told to train, as soon as it says so; the reference model until then."""
    bench_task_settings: str = "{}"
    """JSON object, as the coordinator has it; with ``bench_task``."""
    bench_data_dir: Path | None = None
    """The site's data that the task is measured on; unset measures the reference model."""
    link_bytes: int = Field(default=4 * 1024 * 1024, ge=1, le=PROBE_CAP_BYTES)
    """Bytes that each direction of a link measurement may move."""
    target_round: timedelta = Field(default=timedelta(seconds=30), gt=timedelta(0))
    """Wall time that the recommended local steps should fill."""
    step_samples: int | None = Field(default=None, ge=1)
    """Samples that a recommended step should see, in as many micro-batches as that takes; unset is one."""
    recommend: Annotated[Wishes, BeforeValidator(_object)] = Wishes()
    """JSON: what to recommend whatever was measured: ``micro_batch``, ``gradient_accumulation``, ``local_steps``,
    ``precision`` (``fp32``, ``bf16``)."""
    discovery_timeout: timedelta = Field(default=timedelta(seconds=20), gt=timedelta(0), le=timedelta(minutes=5))
    """Wall time for each source that says what the node is made of. NVIDIA's driver takes seconds for every GPU when
    nothing keeps it loaded."""
    features_dir: Path | None = None
    """Folder of Node Feature Discovery's local source (``features.d``); with it, the node's labels are kept there."""
    gpu_exporter: Url | None = None
    """Where NVIDIA's dcgm-exporter shows its metrics. With it, telemetry takes the GPUs' counters from there and leaves
    their driver alone."""
    link_every: timedelta = Field(default=timedelta(seconds=20), ge=timedelta(seconds=1))
    """Wall time between two looks at how long the link is, while a window is open: a few echoes each."""
    bandwidth_every: timedelta = Field(default=timedelta(minutes=15), ge=timedelta(minutes=1))
    """Wall time between two looks at how wide it is, while a window is open."""
    link_hourly_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """What measurements of links may move in an hour of wall time, asked for or not; that of a node that has come up
    moves what it must. 0 leaves echoes out, too."""
    peers: Annotated[dict[Name, Target], BeforeValidator(_object)] = Field(default_factory=dict)
    """JSON: ``{"site-b": "host:port"}``: where the profilers of other sites answer probes. Whoever asks to have the way
    to one measured says its name alone."""
    insecure: bool = False
    """Answer probes beyond loopback without TLS. Say so only on a network that you own."""
    listen: Target = "127.0.0.1:0"
    """``host:port`` where this end of the link answers probes; port 0 takes a free one."""
