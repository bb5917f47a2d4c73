"""Which processes a demo or a run is made of: a plan as a value. Pure: nothing here starts, listens or writes.

Durations of the plan are wall time, because people and processors live in it; services are told business time, so each
is multiplied by the replay's speed on its way into an environment.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from windfall.contracts.subjects import HUB
from windfall.servicekit.clock import ReplayClock
from windfall.servicekit.natsserver import ServerPlan

LOOPBACK: Final = "127.0.0.1"
_SILENT_THREADS: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""One thread each: three trainers and ten services share the cores of a laptop."""


@dataclass(frozen=True)
class Pace:
    """How a day is squeezed: wall durations, and the replay's speed."""

    speed: float = 960.0
    """Trace seconds per wall second: a day in 90 s."""
    head_start: timedelta = timedelta(seconds=0.25)
    """From the launch to the first instant of the trace: services start while the first hour is still dark."""
    round_length: timedelta = timedelta(seconds=3.5)
    straggler_grace: timedelta = timedelta(seconds=1.5)
    """How long after a round's end its last contributions are waited for."""
    drain: timedelta = timedelta(seconds=3)
    """How long a trainer may take to finish its step and push after its window closed."""
    warning: timedelta = timedelta(seconds=1.5)
    """How long before the expected end of a window its warning comes."""
    stale_after: timedelta = timedelta(seconds=10)

    def stretched(self, times: float) -> "Pace":
        """The same day over so many times as long: whatever lasts on the wall lasts longer with it."""
        return Pace(
            speed=self.speed / times,
            head_start=self.head_start * times,
            round_length=self.round_length * times,
            straggler_grace=self.straggler_grace * times,
            drain=self.drain * times,
            warning=self.warning * times,
            stale_after=self.stale_after * times,
        )

    def business(self, wall: timedelta) -> timedelta:
        """A wall duration in trace time."""
        return wall * self.speed


DAY: Final = Pace()
FAST: Final = Pace(head_start=timedelta(seconds=0.75), round_length=timedelta(seconds=2.5))
APP: Final = Pace(speed=480.0)
"""For somebody's app: its sites take seconds to load, which a window should outlast. It ends when the app does."""
FAST_HOURS: Final = (timedelta(hours=8, minutes=50), timedelta(hours=15, minutes=20))
"""The part of the day that ``--fast`` replays: dark at first, then one site after the other, all three at noon."""


@dataclass(frozen=True)
class FlowerApp:
    """Somebody's app that is run on the fleet, instead of a task of ours."""

    folder: Path
    """With its ``pyproject.toml``."""
    name: str
    config: str = ""
    """What is changed of its configuration: ``key=value`` pairs separated by blanks."""
    data: Path | None = None
    """Folder with the sites' data, in a folder for each or for all; none makes empty ones."""


@dataclass(frozen=True)
class Wish:
    """What the person asked for, after it was found to be possible."""

    folder: Path
    sites: tuple[str, ...]
    trace_file: Path
    trace_start: datetime
    trace_end: datetime
    pace: Pace = DAY
    seed: int = 1
    federation: str = "demo"
    open_below_g_per_kwh: float = 100.0
    close_above_g_per_kwh: float = 150.0
    close_grace: timedelta = timedelta(minutes=10)
    """In trace time: how long the signal must stay dirty, or be expected to, before a window closes."""
    minimum_window: timedelta = timedelta(minutes=30)
    """In trace time: a window that is expected to be shorter does not open."""
    forecast: bool = True
    """Whether sites see the ends of their windows coming; without, they drain when the power is already dirty."""
    task: str = "gpt-neox"
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    codec: str = "topk-ef"
    """In which contributions travel."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Any other of the coordinator's, without their prefix."""
    flower: FlowerApp | None = None
    """What is trained, when it is no task of ours."""
    typed: str = "windfall demo"
    """The command that grants the same wish in the run folder, from its own trace."""


@dataclass(frozen=True)
class Program:
    """One process: what it runs, with which environment, and how it is known to stand."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path
    """Its own folder: working directory and state."""
    log: Path
    after: str | None = None
    """The program that must stand before this one is started."""
    nice: int = 0
    """How far its processor time stands back (nice(2)); what it starts inherits it."""
    port: int | None = None
    """Stands when this loopback port accepts; otherwise when ``health.json`` in its folder leads to a ready service."""


@dataclass(frozen=True)
class Plan:
    """Everything that runs, in order of need: what trains first is started first."""

    wish: Wish
    clock: ReplayClock
    servers: tuple[ServerPlan, ...]
    programs: tuple[Program, ...]
    coordinator: str
    """``host:port`` of the Training service."""

    @property
    def hub_url(self) -> str:
        return next(server.url for server in self.servers if server.domain == HUB)

    def named(self, service: str) -> tuple[Program, ...]:
        """The programs of one service, over all sites."""
        return tuple(program for program in self.programs if program.name.partition("@")[0] == service)

    @property
    def traces(self) -> Path:
        """Folder where each service writes its spans."""
        return self.wish.folder / "traces"

    def data_of(self, site: str) -> Path:
        """Folder of a site's own data."""
        if self.wish.flower is not None and self.wish.flower.data is not None:
            own = self.wish.flower.data / site
            return own if own.is_dir() else self.wish.flower.data
        return self.wish.folder / "data" / site

    @property
    def held_out(self) -> Path:
        """Folder of the text that no site trains on."""
        return self.wish.folder / "data" / "held-out"

    def state_of(self, service: str, whom: str) -> Path:
        """State folder of one service."""
        return self.wish.folder / "state" / whom / service


def plan(wish: Wish, wall_start: datetime, ports: Iterator[int]) -> Plan:
    """The fleet for a wish.

    Args:
        wish: what is wanted.
        wall_start: wall instant of the first instant of the trace.
        ports: free loopback ports; the first becomes the hub's NATS.
    """
    hub, leaf = next(ports), next(ports)
    nats = wish.folder / "nats"
    servers = (
        ServerPlan(HUB, hub, nats / HUB / "jetstream", leaf_port=leaf),
        *(ServerPlan(site, next(ports), nats / site / "jetstream", hub_leaf_port=leaf) for site in wish.sites),
    )
    empty = Plan(
        wish=wish,
        clock=ReplayClock(wish.trace_start, wall_start, wish.pace.speed),
        servers=servers,
        programs=(),
        coordinator=f"{LOOPBACK}:{next(ports)}",
    )
    return Plan(
        wish=wish,
        clock=empty.clock,
        servers=servers,
        programs=tuple(_programs(empty)),
        coordinator=empty.coordinator,
    )


def _programs(plan: Plan) -> Iterator[Program]:
    coordinator = _coordinator(plan)
    yield coordinator
    site_servers = {server.domain: server for server in plan.servers}
    # A site's first window needs its watcher and provisioner; a profiler needs the other end of the link.
    for site in plan.wish.sites:
        yield _service(plan, "energy-watcher", site, site_servers[site], _watching(plan, site))
        yield _service(plan, "provisioner", site, site_servers[site], _provisioning(plan, site))
    for site in plan.wish.sites:
        yield _service(plan, "profiler", site, site_servers[site], _profiling(plan, site), coordinator.name)


def _coordinator(plan: Plan) -> Program:
    wish = plan.wish
    hub = next(server for server in plan.servers if server.domain == HUB)
    if wish.flower is not None:
        told = {
            "SITES": ",".join(wish.sites),
            "FEDERATION": wish.federation,
            "LISTEN": plan.coordinator,
            "FLOWER_APP": str(wish.flower.folder),
            "RUN_CONFIG": wish.flower.config,
        }
        return _service(plan, "federation-coordinator", HUB, hub, told, module="flower_adapter.coordinator")
    settings = {
        "SITES": ",".join(wish.sites),
        "FEDERATION": wish.federation,
        "LISTEN": plan.coordinator,
        "TASK": wish.task,
        "TASK_SETTINGS": json.dumps(dict(wish.task_settings)),
        "ROUND_LENGTH": _iso(wish.pace.business(wish.pace.round_length)),
        "STRAGGLER_GRACE": _iso(wish.pace.business(wish.pace.straggler_grace)),
        "CODEC": wish.codec,
        "SEED": str(wish.seed),
        "HELD_OUT_DIR": str(plan.held_out),
        **wish.settings,
    }
    return _service(plan, "federation-coordinator", HUB, hub, settings)


def _watching(plan: Plan, site: str) -> dict[str, str]:
    wish = plan.wish
    return {
        "SIGNAL": "replay",
        "TRACE_FILE": str(wish.trace_file),
        "TRACE_COLUMN": site,
        "OPEN_BELOW": f"{wish.open_below_g_per_kwh:g}",
        "CLOSE_ABOVE": f"{wish.close_above_g_per_kwh:g}",
        "DWELL": _iso(timedelta(0)),
        "GRACE": _iso(wish.close_grace),
        # A start takes seconds on the wall and hours in trace time: no window would pay that back.
        "LEARN": "false",
        "RIDE_THROUGH": _iso(wish.close_grace),
        "MINIMUM_WINDOW": _iso(wish.minimum_window),
        "CLOSING_LEAD": _iso(wish.pace.business(wish.pace.warning)),
        "STALE_AFTER": _iso(wish.pace.business(wish.pace.stale_after)),
        "LEDGER_FEDERATION": wish.federation,
        "LEDGER_SINCE": wish.trace_start.isoformat(),
        **({} if wish.forecast else {"FORECAST_HORIZON": _iso(timedelta(0))}),
    }


def _provisioning(plan: Plan, site: str) -> dict[str, str]:
    wish = plan.wish
    return {
        "BACKEND": "process",
        "GRACE": _iso(wish.pace.business(wish.pace.drain)),
        "ON_STOP": "release",
        "TRAINER_COORDINATOR": plan.coordinator,
        "TRAINER_FEDERATION": wish.federation,
        "TRAINER_DATA_DIR": str(plan.data_of(site)),
        "TRAINER_SEED": str(wish.seed),
        "TRAINER_TRACES_FILE": str(plan.traces / f"site-trainer@{site}.jsonl"),
        "TRAINER_TORCH_THREADS": "1",
        "TRAINER_DRAIN_TIME": _iso(timedelta(seconds=0.5)),
        **_hosting(plan, site),
    }


def _hosting(plan: Plan, site: str) -> dict[str, str]:
    """What a provisioner is told beside it when its nodes run a Flower app."""
    wish = plan.wish
    if wish.flower is None:
        return {}
    return {
        "NODE_MODULE": "windfall.flower_adapter.site",
        "TRAINER_FLOWER_APP": str(wish.flower.folder),
        "TRAINER_NODE_CONFIG": f"partition-id={wish.sites.index(site)} num-partitions={len(wish.sites)}",
        # The provisioner waits for as long; a moment of it is for the reply.
        "TRAINER_FINISH_WITHIN": _iso(wish.pace.drain * 0.7),
    }


def _profiling(plan: Plan, site: str) -> dict[str, str]:
    # What is measured competes with what trains, on a laptop: short benchmarks, and little over the link.
    return {
        "COORDINATOR": plan.coordinator,
        "BENCH": "training",
        "BENCH_BUDGET": _iso(timedelta(seconds=0.5)),
        "BENCH_DATA_DIR": str(plan.data_of(site)),
        "LINK_BYTES": str(1024 * 1024),
        "TARGET_ROUND": _iso(plan.wish.pace.round_length),
    }


def _service(
    plan: Plan,
    service: str,
    whom: str,
    server: ServerPlan,
    settings: Mapping[str, str],
    after: str | None = None,
    module: str | None = None,
) -> Program:
    name = f"{service}@{whom}"
    folder = plan.state_of(service, whom)
    told = {
        "NATS_URL": server.url,
        "STATE_DIR": str(folder),
        "CLOCK": str(plan.clock),
        "HEALTH_PORT": "0",
        "TRACES_FILE": str(plan.traces / f"{name}.jsonl"),
        **({} if whom == HUB else {"SITE": whom}),
        **settings,
    }
    return Program(
        name=name,
        argv=(sys.executable, "-m", f"windfall.{module or service.replace('-', '_')}"),
        environ={**_SILENT_THREADS, **{f"WINDFALL_{key}": value for key, value in told.items()}},
        folder=folder,
        log=plan.wish.folder / "logs" / f"{name}.log",
        after=after,
        # Everybody waits for the coordinator, and nobody for what is measured.
        nice={"federation-coordinator": 0, "profiler": 10}.get(service, 5),
    )


def server_program(server: ServerPlan, config: Path, binary: Path, folder: Path) -> Program:
    """A NATS server as one more process of the fleet."""
    return Program(
        name=f"nats@{server.domain}",
        argv=(str(binary), "-c", str(config)),
        environ={},
        folder=config.parent,
        log=folder / "logs" / f"nats@{server.domain}.log",
        port=server.port,
    )


def in_words(plan: Plan) -> Sequence[str]:
    """What would start, for a person: one line per process."""
    servers = [f"nats@{server.domain:24} {server.url}" for server in plan.servers]
    return [*servers, *(f"{program.name:29} {' '.join(program.argv[1:])}" for program in plan.programs)]


def told(plan: Plan) -> Mapping[str, Mapping[str, str]]:
    """Every setting of every process, by the process's name; ``RUN`` is the run folder."""
    folder = str(plan.wish.folder)
    return {
        program.name: {name: value.replace(folder, "RUN") for name, value in sorted(program.environ.items())}
        for program in plan.programs
    }


def _iso(duration: timedelta) -> str:
    """ISO 8601, in seconds: what settings read."""
    seconds = f"{duration.total_seconds():f}"
    return f"PT{seconds.rstrip('0').rstrip('.')}S"
