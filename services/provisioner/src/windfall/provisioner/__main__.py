"""Starts the provisioner: ``python -m windfall.provisioner``."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from windfall.contracts.subjects import site_streams
from windfall.contracts.v1.capacity_pb2_grpc import add_CapacityServicer_to_server
from windfall.provisioner import app
from windfall.provisioner.backends import BACKENDS
from windfall.provisioner.capacity import Capacity
from windfall.provisioner.crashpoints import POINTS
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit import rpc
from windfall.servicekit.service import Stand, run

log = logging.getLogger(__name__)


@asynccontextmanager
async def attend(settings: ProvisionerSettings, stand: Stand) -> AsyncIterator[None]:
    backend = BACKENDS[settings.backend](settings)
    async with app.attend(settings, stand, backend, settings.node_environment(os.environ)) as provisioner:
        register = partial(add_CapacityServicer_to_server, Capacity(provisioner))
        server = await rpc.serve(settings.capacity_listen, [register])
        (settings.state_dir / "capacity.json").write_text(json.dumps({"port": server.port, "pid": os.getpid()}))
        log.info("serves capacity on port %d", server.port)
        try:
            yield
        finally:
            await server.stop()


if __name__ == "__main__":
    run(
        "provisioner",
        ProvisionerSettings,
        whom=lambda settings: settings.site,
        streams=lambda settings: site_streams(settings.site),
        attend=attend,
        crash_points=POINTS,
    )
