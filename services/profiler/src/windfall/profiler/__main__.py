"""Starts the profiler: ``python -m windfall.profiler``."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from windfall.contracts.subjects import site_streams
from windfall.contracts.v1.link_probe_pb2_grpc import add_LinkProbeServicer_to_server
from windfall.profiler import app
from windfall.profiler.hw.telemetry import counters, watch
from windfall.profiler.links import Cadence
from windfall.profiler.probe import KNOWN
from windfall.profiler.publication.files import to_files
from windfall.profiler.recommendation import Goals
from windfall.profiler.settings import ProfilerSettings
from windfall.servicekit import rpc
from windfall.servicekit.link_probe import LinkProbeServicer
from windfall.servicekit.service import Stand, run

log = logging.getLogger(__name__)


@asynccontextmanager
async def attend(settings: ProfilerSettings, stand: Stand) -> AsyncIterator[None]:
    servicers = [partial(add_LinkProbeServicer_to_server, LinkProbeServicer())]
    server = await rpc.serve(settings.listen, servicers, settings.tls, insecure=settings.insecure)
    log.info("answers link probes on port %d", server.port)
    publish = to_files(settings.state_dir, settings.features_dir)
    cadence = Cadence(
        settings.link_every, settings.bandwidth_every, settings.link_hourly_bytes, 2 * settings.link_bytes
    )
    goals = Goals(settings.target_round, step_samples=settings.step_samples, wishes=settings.recommend)
    app.attend(stand, KNOWN[settings.probe](settings), goals, publish, cadence)
    if settings.probe == "node":
        watch(settings.site, counters(settings.gpu_exporter))
    try:
        yield
    finally:
        await server.stop()


if __name__ == "__main__":
    run(
        "profiler",
        ProfilerSettings,
        lambda settings: settings.site,
        lambda settings: site_streams(settings.site),
        attend,
    )
