"""``make bench-spine``: what the spine costs, measured on real processes."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.bench import plain_grpc, rounds
from tests.bench.figures import Figure, percentile, report
from tests.bench.processes import cpu_s, resident
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port

SERVICES = {
    "energy_watcher": {"WINDFALL_SIGNAL": "static", "WINDFALL_STATIC_INTENSITY": "300"},
    "provisioner": {},
    "profiler": {},
}
IDLE_S = 20.0
SETTLE_S = 10.0
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SPEED = 960
"""Of the demo's replay: 16 trace minutes pass in a second."""
CYCLES = 11
OPEN, SHUT = timedelta(seconds=9) * SPEED, timedelta(seconds=7) * SPEED


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        figures = [
            *closing(place / "closing"),
            *overhead(place / "overhead"),
            *memory(place / "memory"),
            *idle(place / "idle"),
            first_step(place / "first"),
        ]
    report("spine", figures)


def closing(folder: Path) -> list[Figure]:
    """Windows that end unforeseen: from the signal's crossing to the last contribution on the coordinator's disk."""
    folder.mkdir()
    trace = folder / "trace.csv"
    write_trace(trace)
    summary = demo(folder / "run", "--trace", str(trace), "--no-forecast")
    waits = [float(each) for each in summary["close_to_last_contribution_s"]]
    return [
        Figure(
            "close to last contribution p99 s",
            percentile(waits, 0.99),
            "s",
            "under 2",
            {"median": percentile(waits, 0.5), "the close grace within it": 600 / SPEED, "published system": "35-60"},
            f"{len(waits)} windows of 3 sites without a forecast, 3 trainers on {os.cpu_count()} cores",
        )
    ]


def overhead(folder: Path) -> list[Figure]:
    """A round without training, beside the bytes of an fp32 model over bare gRPC streams."""
    folder.mkdir()
    seen = {}
    for codec in ("topk-ef", "int4-block", "bf16", "fp32"):
        (folder / codec).mkdir()
        seen[codec] = asyncio.run(rounds.run(folder / codec, "40 MB", sites=3, rounds=10, codec=codec))
    bare = asyncio.run(plain_grpc.run(seen["fp32"].model_bytes, sites=3, times=5))
    sparse = seen.pop("topk-ef")
    return [
        Figure(
            "round overhead 10M s",
            sparse.median_s,
            "s",
            "under 0.5",
            {
                **{codec: one.median_s for codec, one in seen.items()},
                "bare gRPC, fp32 both ways": bare,
                "KiB up a site": sparse.bytes_up / 1024,
                "KiB down a site": sparse.bytes_down / 1024,
            },
            "3 sites, model of 10 M parameters, topk-ef (the default), without encoding, one machine",
        )
    ]


def memory(folder: Path) -> list[Figure]:
    """What a coordinator holds at its peak beyond its idle size, against the model's size."""
    figures = []
    for sites in (3, 30):
        place = folder / str(sites)
        place.mkdir(parents=True)
        seen = asyncio.run(rounds.run(place, "40 MB", sites=sites, rounds=2, codec="fp32"))
        figures.append(
            Figure(
                f"coordinator memory x model {sites} sites",
                seen.memory_x_model,
                "x model",
                "under 3",
                {"idle MiB": seen.resident_before / 2**20, "peak MiB": seen.resident_peak / 2**20},
                f"model {seen.model_bytes / 2**20:.0f} MiB, fp32 contributions, all sites push at once",
            )
        )
    return figures


def idle(folder: Path) -> list[Figure]:
    """Each torch-free service on a real server with nothing to do."""
    seen = asyncio.run(_idle(folder))
    resident = {name: value[0] for name, value in seen.items()}
    cpu = {name: value[1] for name, value in seen.items()}
    return [
        Figure("service resident MiB", max(resident.values()), "MiB", "under 90", dict(resident), "largest of three"),
        Figure("service idle CPU %", max(cpu.values()), "% of a core", "under 2", dict(cpu), f"over {IDLE_S:.0f} s"),
    ]


async def _idle(folder: Path) -> dict[str, tuple[float, float]]:
    server = NatsServer(ServerPlan("site-a", free_port(), folder / "store"), folder)
    await server.start()
    processes = {}
    for name, settings in SERVICES.items():
        environment = {
            **os.environ,
            "WINDFALL_SITE": "site-a",
            "WINDFALL_NATS_URL": server.url,
            "WINDFALL_STATE_DIR": str(folder / name),
            "WINDFALL_LOG_LEVEL": "ERROR",
            **settings,
        }
        processes[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"windfall.{name}", env=environment
        )
    # Long enough for every start-up to be over; what is measured is a service that has nothing to do.
    await asyncio.sleep(SETTLE_S)
    before = {name: cpu_s(process.pid) for name, process in processes.items()}
    await asyncio.sleep(IDLE_S)
    seen = {
        name: (resident(process.pid) / 2**20, (cpu_s(process.pid) - before[name]) / IDLE_S * 100)
        for name, process in processes.items()
    }
    for process in processes.values():
        process.terminate()
        await process.wait()
    await server.stop()
    return seen


def first_step(folder: Path) -> Figure:
    """From the command to the first training step."""
    summary = demo(folder, "--fast")
    return Figure(
        "first training step s",
        float(summary["time_to_first_step_s"]),
        "s",
        "under 15",
        {"Flower 1.41, to a result of 3 toy rounds": "30", "NVFlare 2.9, the same": "24.7"},
        "windfall demo --fast, imports included",
    )


def demo(out: Path, *arguments: str) -> dict[str, Any]:
    """Run ``windfall demo`` and give its summary."""
    command = [sys.executable, "-m", "windfall.cli", "demo", "--plain", "--out", str(out), *arguments]
    print(f"running {' '.join(command[2:])} ...", flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def write_trace(path: Path) -> None:
    """Three sites whose windows come and go many times, one a third of a cycle after the other."""
    cycle = OPEN + SHUT
    lines = ["point_time,site-a,site-b,site-c"]
    for number in range(int(CYCLES * cycle / timedelta(minutes=5))):
        at = number * timedelta(minutes=5)
        open_now = [(at - cycle * site / 3 + SHUT) % cycle > SHUT for site in range(3)]
        values = ",".join("20" if each and at > cycle * site / 3 else "400" for site, each in enumerate(open_now))
        lines.append(f"{(BEGIN + at).isoformat()},{values}")
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
