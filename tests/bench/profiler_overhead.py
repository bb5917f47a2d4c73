"""``overhead while training %``: what a training loses to the profiler beside it, all that it does meanwhile.

A real profiler process with a window open looks at its link and shows the node's counters to a collector, both several
times as often as it does by itself. It is stopped and goes on in turns (SIGSTOP, SIGCONT), off, on, on, off, while a
process with threads that do not spin trains: a machine that gets slower or faster meanwhile is so for both. What counts
is the median of the turns' ratios, with its interval.
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final
from uuid import uuid4

from tests.bench.figures import Figure
from tests.bench.profiler_training import text, trained
from windfall.cli.events import publish
from windfall.cli.server import declared
from windfall.contracts.events import WindowOpened
from windfall.contracts.v1.link_probe_pb2_grpc import add_LinkProbeServicer_to_server
from windfall.profiler.measurement.estimates import interval
from windfall.servicekit.link_probe import LinkProbeServicer
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.rpc import serve
from windfall.servicekit.testing.collector import collecting

SITE: Final = "bench"
TURNS: Final = 40
STRETCH_S: Final = 2.5
EVERY_S: Final = 5
"""Between two looks at the link, and two readings of the counters: 4 and 12 times as often as by itself."""
ORDER: Final = (False, True, True, False)
MICRO_BATCH: Final = 8
GOAL: Final = 2.0


@dataclass(frozen=True)
class Stretch:
    """Of one training, with the profiler at work or stopped."""

    on: bool
    begin_s: float
    end_s: float


async def figures() -> list[Figure]:
    """One figure."""
    cores = len(os.sched_getaffinity(0))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = stack.enter_context(text())
        profiler = await _profiling(stack, folder)
        lasts_s = len(ORDER) * TURNS * STRETCH_S
        training = asyncio.ensure_future(asyncio.to_thread(trained, data, cores, MICRO_BATCH, lasts_s + 2 * STRETCH_S))
        # It loads torch first.
        await asyncio.sleep(STRETCH_S)
        stretches, used_s = await _turns(profiler)
        ends_s = await training
    lost = [100 * (1 - ratio) for ratio in ratios(stretches, ends_s)]
    found = interval(lost, median)
    on_s = sum(one.end_s - one.begin_s for one in stretches if one.on)
    beside: dict[str, float | str] = {
        "interval": f"{found.low:.2f} to {found.high:.2f}" if found else "of too few turns",
        "processor time of the profiler, % of all cores": 100 * used_s / (on_s * cores),
    }
    conditions = (
        f"{len(lost)} turns of {len(ORDER)} × {STRETCH_S:g} s (off, on, on, off); the link and the counters every "
        f"{EVERY_S} s; {cores} cores, load {os.getloadavg()[0]:.1f}"
    )
    return [Figure("overhead while training %", median(lost), "%", f"under {GOAL:g}", beside, conditions)]


def ratios(stretches: Sequence[Stretch], ends_s: Sequence[float]) -> list[float]:
    """Steps with the profiler at work over those without, of each turn that was trained through.

    Args:
        ends_s: when steps ended, on the machine's monotonic clock.
    """
    found = []
    for begin in range(0, len(stretches), len(ORDER)):
        turn = stretches[begin : begin + len(ORDER)]
        if turn[0].begin_s < ends_s[0] or turn[-1].end_s > ends_s[-1]:
            continue
        rates = {on: [rate(one, ends_s) for one in turn if one.on == on] for on in (True, False)}
        found.append(sum(rates[True]) / sum(rates[False]))
    return found


def rate(stretch: Stretch, ends_s: Sequence[float]) -> float:
    """Steps in a second, those counted in part that lie across an edge."""
    done = 0.0
    for before, after in pairwise(ends_s):
        within = min(after, stretch.end_s) - max(before, stretch.begin_s)
        done += max(0.0, within) / (after - before)
    return done / (stretch.end_s - stretch.begin_s)


async def _profiling(stack: AsyncExitStack, folder: Path) -> asyncio.subprocess.Process:
    """A profiler that stands, with its bus, the other end of its link, a collector, and an open window."""
    server = NatsServer(ServerPlan(SITE, free_port(), folder / "store"), folder / "nats")
    await server.start()
    stack.push_async_callback(server.stop)
    await declared([server.plan])
    hub = await serve("127.0.0.1:0", [partial(add_LinkProbeServicer_to_server, LinkProbeServicer())])
    stack.push_async_callback(hub.stop)
    collector = await stack.enter_async_context(collecting())
    told = {
        "WINDFALL_SITE": SITE,
        "WINDFALL_NATS_URL": server.url,
        "WINDFALL_STATE_DIR": str(folder / "state"),
        "WINDFALL_COORDINATOR": f"127.0.0.1:{hub.port}",
        "WINDFALL_LINK_EVERY": f"{EVERY_S}",
        "WINDFALL_LOG_LEVEL": "WARNING",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": f"{1000 * EVERY_S}",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "windfall.profiler", env={**os.environ, **told}
    )
    stack.push_async_callback(_ended, process)
    opened = WindowOpened(
        id=uuid4(),
        at=datetime.now(UTC),
        site=SITE,
        window_id=uuid4(),
        intensity_g_per_kwh=1.0,
        expected_close_at=None,
    )
    await publish(server.url, opened)
    # It stands, and has looked at everything once.
    await asyncio.sleep(3 * EVERY_S)
    return process


async def _turns(process: asyncio.subprocess.Process) -> tuple[list[Stretch], float]:
    """Every stretch, and the processor time that the profiler and its children took in them."""
    stretches, used_s = [], 0.0
    for on in ORDER * TURNS:
        process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)
        before_s, begin_s = _used_s(process.pid), time.monotonic()
        await asyncio.sleep(STRETCH_S)
        stretches.append(Stretch(on, begin_s, time.monotonic()))
        used_s += _used_s(process.pid) - before_s
    return stretches, used_s


async def _ended(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    await process.wait()


def _used_s(pid: int) -> float:
    """Of the process and its children that have ended (proc(5), stat)."""
    with closing(Path(f"/proc/{pid}/stat").open()) as stat:
        fields = stat.read().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
