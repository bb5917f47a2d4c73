"""``make bench-telemetry``: what it costs to be seen.

Traced and untraced alternate, because the machine is not the same for a minute; each is a process of its own. Traced
means every span and every metric sent by OTLP to a collector on the same cores.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure, percentile, report
from tests.bench.hub import Hub
from tests.bench.processes import cpu_s, resident
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.testing.collector import Collector, collecting

PAIRS = 4
EVENTS = 2000
ALONE = 300
ROUNDS = 40
MODEL = "40 MB"
SETTLE_S = 8.0
IDLE_S = 30.0


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        figures = asyncio.run(_all(Path(folder)))
    report("telemetry", figures)


async def _all(folder: Path) -> list[Figure]:
    async with collecting() as collector:
        return [
            *await in_rounds(folder, collector),
            *await on_the_bus(folder, collector),
            *await idle(folder, collector),
        ]


async def in_rounds(folder: Path, collector: Collector) -> list[Figure]:
    """Rounds of three sites that do not train, so that telemetry has nothing to hide behind. Two fleets stand beside
    each other, one of them traced, and take turns round by round."""
    fleets = [await _child(folder, collector, traced, "rounds", MODEL, str(ROUNDS)) for traced in (False, True)]
    said = {fleet: await _line(fleet) for fleet in fleets}
    for number in range(ROUNDS + 1):
        for fleet in fleets if number % 2 else reversed(fleets):
            assert fleet.stdin is not None
            fleet.stdin.write(b"\n")
            said[fleet] = await _line(fleet)
    for fleet in fleets:
        await fleet.wait()
    untraced, traced = (json.loads(said[fleet]) for fleet in fleets)
    ratios = [one / other - 1 for one, other in zip(traced["seconds"], untraced["seconds"], strict=True)]
    return [
        Figure(
            "tracing overhead % of round",
            100 * statistics.median(ratios),
            "%",
            "under 2",
            {
                "lower quartile": 100 * percentile(ratios, 0.25),
                "upper quartile": 100 * percentile(ratios, 0.75),
                "untraced s": statistics.median(untraced["seconds"]),
                "CPU ms more": 1000 * (traced["cpu_s"] - untraced["cpu_s"]),
                "of CPU ms": 1000 * untraced["cpu_s"],
                "spans a round": len(collector.spans) / (ROUNDS + 1),
            },
            f"median of {ROUNDS} pairs of rounds in turn, 3 sites without training, model of {MODEL}, fp32 both ways",
        )
    ]


async def on_the_bus(folder: Path, collector: Collector) -> list[Figure]:
    """Journal, outbox, stream, handler."""
    place = folder / "bus"
    place.mkdir()
    seen: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for number, traced in enumerate(_alternately()):
        server = NatsServer(ServerPlan("hub", free_port(), place / f"store-{number}"), place)
        await server.start()
        try:
            child = await _child(folder, collector, traced, "bus", server.url, str(EVENTS), str(ALONE))
            seen[traced].append(json.loads(await _line(child)))
            await child.wait()
        finally:
            await server.stop()

    def figure(traced: bool, name: str) -> Figure:
        rates = [one["events"] / one["seconds"] for one in seen[traced]]
        waits = [wait for one in seen[traced] for wait in one["latencies_s"]]
        return Figure(
            name,
            statistics.median(rates),
            "1/s",
            "–",
            {
                "least": min(rates),
                "most": max(rates),
                "one alone, median ms": 1000 * percentile(waits, 0.5),
                "p99 ms": 1000 * percentile(waits, 0.99),
            },
            f"median of {PAIRS} times {EVENTS} events from the decision to the handler, one service each way",
        )

    return [figure(True, "events/s traced"), figure(False, "events/s untraced")]


async def idle(folder: Path, collector: Collector) -> list[Figure]:
    """The hub's services together with nobody there."""
    place = folder / "idle"
    place.mkdir()
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "WINDFALL_MINIMUM_SITES": "1"}
    async with Hub(place, told) as hub:
        await asyncio.sleep(SETTLE_S)
        assert hub.server.pid is not None
        pids = {"nats-server": hub.server.pid, "coordinator": hub.pid}
        before = {name: cpu_s(pid) for name, pid in pids.items()}
        await asyncio.sleep(IDLE_S)
        cpu = {name: 100 * (cpu_s(pid) - before[name]) / IDLE_S for name, pid in pids.items()}
        held = {name: resident(pid) / 2**20 for name, pid in pids.items()}
    return [
        Figure("hub idle MiB", sum(held.values()), "MiB", "under 400", dict(held), "resident, traced, no sites"),
        Figure("hub idle CPU %", sum(cpu.values()), "% of a core", "under 5", dict(cpu), f"over {IDLE_S:.0f} s"),
    ]


def _alternately() -> Sequence[bool]:
    # ABBA: what gets slower all the time is shared alike.
    return [traced for pair in range(PAIRS) for traced in ((True, False) if pair % 2 else (False, True))]


async def _child(folder: Path, collector: Collector, traced: bool, what: str, *told: str) -> Process:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment["PYTHONPATH"] = str(Path.cwd())
    if traced:
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.endpoint
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.bench.telemetry_{what}",
        *told,
        cwd=folder,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def _line(process: Process) -> bytes:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process of the benchmark ended with {await process.wait()}")
    return line


if __name__ == "__main__":
    main()
