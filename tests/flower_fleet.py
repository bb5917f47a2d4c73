"""A Flower app on real processes: a hub and sites with real NATS servers, a coordinator, and sites under leases."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID, uuid5

from tests.wiring import RealWiring
from windfall.contracts.envelope import unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.servicekit.natsserver import free_port

FEDERATION = "flowers"
_WINDOWS = UUID("f1000000-0000-4000-8000-000000000000")

Process = asyncio.subprocess.Process


class FlowerFleet:
    """See the module. ``app`` is the folder of a Flower app; ``settings`` are more variables of the coordinator."""

    def __init__(
        self, folder: Path, app: Path, sites: tuple[str, ...], settings: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.sites = sites
        self.wiring = RealWiring(folder)
        self._app = app
        self._settings = dict(settings or {})
        self._address = f"127.0.0.1:{free_port()}"
        self._leases: dict[str, int] = {}
        self._running: list[Process] = []

    async def __aenter__(self) -> "FlowerFleet":
        self.folder.mkdir(exist_ok=True)
        await self.wiring.rise(self.sites)
        for site in self.sites:
            self.data(site).mkdir(parents=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._running:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self.wiring.lie_down()

    def data(self, site: str) -> Path:
        return self.folder / "data" / site

    @property
    def state(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    async def coordinator(self) -> Process:
        told = {"SITES": ",".join(self.sites), "LISTEN": self._address, "STATE_DIR": str(self.state), **self._settings}
        return await self._start("coordinator", HUB, told)

    async def site(self, site: str) -> Process:
        """Under a new lease, for a new window."""
        lease = self._leases[site] = self._leases.get(site, 0) + 1
        told = {
            "SITE": site,
            "COORDINATOR": self._address,
            "STATE_DIR": str(self.folder / site),
            "DATA_DIR": str(self.data(site)),
            "NODE_CONFIG": f"partition-id={self.sites.index(site)} num-partitions={len(self.sites)}",
            "WINDOW_ID": str(uuid5(_WINDOWS, f"{site}/{lease}")),
            "LEASE_TOKEN": str(lease),
        }
        return await self._start("site", site, told)

    async def said(self) -> list[Message]:
        """What the hub has heard, oldest first."""
        return [unseal(letter) for letter in await self.wiring.letters(HUB)]

    async def _start(self, module: str, domain: str, told: Mapping[str, str]) -> Process:
        (self.folder / module).mkdir(exist_ok=True)
        common = {"FEDERATION": FEDERATION, "FLOWER_APP": str(self._app), "NATS_URL": self.wiring.servers[domain].url}
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WINDFALL_")}
        environment |= {f"WINDFALL_{key}": value for key, value in {**common, **told}.items()}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        with (self.folder / f"{module}@{domain}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", f"windfall.flower_adapter.{module}"),
                cwd=self.folder / module,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self._running.append(process)
        return process


async def kill(process: Process) -> None:
    """``kill -9``."""
    process.send_signal(signal.SIGKILL)
    await process.wait()
