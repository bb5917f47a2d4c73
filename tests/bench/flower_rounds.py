"""Rounds of one stock Flower app, a FedAvg over three sites, on our transport and on Flower's own.

Every part is a process, on loopback, without TLS. The app is one folder (``tests/flower_apps/adding``): its strategy
notes when each round begins and when its replies are there, its ClientApp adds a constant, so that what comes up is
another body than what went down.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.processes import peak_resident
from tests.flower_fleet import FlowerFleet
from windfall.servicekit.natsserver import free_port

APP: Final = Path(__file__).parents[1] / "flower_apps" / "adding"
SITES: Final = ("site-a", "site-b", "site-c")
_WARM_ROUNDS: Final = 1
"""Of each run, that are not counted: threads and connections come up in them."""
_QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Rounds:
    """Seconds of each counted round: from its beginning to the next one's, and until its replies were there."""

    whole_s: tuple[float, ...]
    replies_s: tuple[float, ...]
    coordinator_rss_mb: float = float("nan")
    cpu_s: float = float("nan")
    """Processor time of a round, of the coordinator and all sites together, median."""

    @property
    def median_s(self) -> float:
        return median(self.whole_s)


async def ours(folder: Path, rounds: int, elements: int, evaluate: bool) -> Rounds:
    """On our transport."""
    told = {"RUN_CONFIG": _config(rounds, elements, evaluate), "SILENCE": "30"}
    async with FlowerFleet(folder, APP, SITES, told) as fleet:
        coordinator = await fleet.coordinator()
        sites = [await fleet.site(site) for site in SITES]
        for site in sites:
            if await site.wait():
                raise RuntimeError(f"a site broke; its log lies in {folder}")
        peak = peak_resident(coordinator.pid) / 1e6
        coordinator.send_signal(signal.SIGTERM)
        await coordinator.wait()
        spent = [[float(line) for line in (fleet.data(site) / "cpu").read_text().split()] for site in SITES]
        return _read(fleet.folder / "coordinator" / "rounds.json", peak, spent)


async def flowers(folder: Path, rounds: int, elements: int, evaluate: bool) -> Rounds:
    """On Flower's SuperLink and SuperNodes, as its documentation starts them."""
    port, home = free_port(), folder / "home"
    home.mkdir(parents=True)
    (home / "config.toml").write_text(f'[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n')
    # Flower's programs start each other by name.
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **_QUIET, "FLWR_HOME": str(home), "PATH": programs}
    app = shutil.copytree(APP, folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    address = f"127.0.0.1:{port}"
    processes = [
        await _start(folder, environment, "flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))
    ]
    try:
        await _answers(port)
        for index, site in enumerate(SITES):
            (folder / site).mkdir()
            node = f'partition-id={index} data-dir="{folder / site}"'
            told = ("--superlink", address, "--port", str(free_port()), "--node-config", node)
            processes.append(await _start(folder, environment, "flower-supernode", "--insecure", *told))
        config = _config(rounds, elements, evaluate)
        submitted = await _start(folder, environment, "flwr", "run", str(app), "bench", "-c", config)
        if await submitted.wait():
            raise RuntimeError(f"flwr run broke; its log lies in {folder}")
        while not (found := list(folder.rglob("rounds.json"))):  # noqa: ASYNC110 - a strange process's file
            await asyncio.sleep(0.5)
        return _read(found[0], float("nan"), [])
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _config(rounds: int, elements: int, evaluate: bool) -> str:
    share = 1.0 if evaluate else 0.0
    return f"num-server-rounds={rounds} elements={elements} min-nodes=3 fraction-evaluate={share}"


def _read(path: Path, peak_mb: float, spent: list[list[float]]) -> Rounds:
    times = json.loads(path.read_text())
    begun, answered = times["begun"], times["answered"]
    ends = [*begun[1:], times["ended"]]
    whole = tuple(end - begin for begin, end in zip(begun, ends, strict=True))
    replies = tuple(there - begin for begin, there in zip(begun, answered, strict=True))
    cpu = sum(median(after - before for before, after in pairwise(one)) for one in [times["cpu"], *spent])
    return Rounds(whole[_WARM_ROUNDS:], replies[_WARM_ROUNDS:], peak_mb, cpu if spent else float("nan"))


async def _start(folder: Path, environment: Mapping[str, str], *argv: str) -> asyncio.subprocess.Process:
    with (folder / "flower.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / argv[0]),
            *argv[1:],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            process_group=0,
        )


async def _answers(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.2)
            else:
                writer.close()
                return
