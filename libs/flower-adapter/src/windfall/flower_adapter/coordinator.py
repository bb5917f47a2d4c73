"""The composition root of a Flower app's coordinator: ``python -m windfall.flower_adapter.coordinator``.

It stands in for the federation-coordinator, under its name: the same events, commands and settings where they mean the
same. Hears ``command.federation-coordinator.stop``. Says ``site.joined``, ``round.started``, ``contribution.accepted``,
``contribution.refused``, ``round.completed``, ``round.evaluated``, ``site.left``, ``federation.finished``. Serves
``Messages`` and ``LinkProbe``.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import NoReturn

from flwr.serverapp import ServerApp

from windfall.contracts.subjects import StreamSpec, hub_streams
from windfall.contracts.v1.link_probe_pb2_grpc import add_LinkProbeServicer_to_server
from windfall.flower_adapter import shim
from windfall.flower_adapter.app_folder import load, read_app, run_config
from windfall.flower_adapter.blobs import Blobs
from windfall.flower_adapter.messages import MessagesService
from windfall.flower_adapter.office import Office
from windfall.flower_adapter.reception import Caps, Reception
from windfall.flower_adapter.server_host import ServerHost
from windfall.flower_adapter.settings import FlowerCoordinatorSettings
from windfall.flower_adapter.values import Exchange
from windfall.flower_adapter.wire import register
from windfall.servicekit.link_probe import LinkProbeServicer
from windfall.servicekit.rpc import serve
from windfall.servicekit.service import Stand, run


@asynccontextmanager
async def attend(settings: FlowerCoordinatorSettings, stand: Stand) -> AsyncIterator[None]:
    shim.check_version()
    shim.log_as_we_do()
    app = read_app(settings.flower_app)
    config = run_config(app, settings.run_config)
    office = Office(
        stand,
        Blobs(settings.state_dir / "bodies"),
        Exchange(federation=settings.federation, run_id=_run_id(settings.federation, app.name)),
        settings.sites,
        settings.silence,
        settings.max_replay_bytes,
        config,
    )
    caps = Caps(settings.max_message_bytes, settings.max_buffered_bytes, settings.refuse_not_finite)
    service = MessagesService(office, Reception(office, caps), app.name, settings.sites)
    office.attend()
    server = await serve(
        settings.listen,
        [
            partial(register, service),
            partial(add_LinkProbeServicer_to_server, LinkProbeServicer()),
        ],
        settings.tls,
        insecure=settings.insecure,
    )
    try:
        server_app: ServerApp = load(app, app.server, ServerApp)
        model_file = settings.state_dir / "models" / "final.safetensors"
        host = ServerHost(office, server_app, app, config, settings.max_message_bytes, model_file)
        stand.spawn(host.run(), "server-app")
        yield
    finally:
        await office.rest()
        await server.stop()


def _run_id(federation: str, app: str) -> int:
    """A positive number of 62 bits, the same after a restart."""
    return 1 + int.from_bytes(hashlib.sha256(f"{federation}/{app}".encode()).digest()[:8], "big") % 2**62


def streams(settings: FlowerCoordinatorSettings) -> Sequence[StreamSpec]:
    return hub_streams(settings.sites)


def main() -> NoReturn:
    run("federation-coordinator", FlowerCoordinatorSettings, lambda settings: settings.federation, streams, attend)


if __name__ == "__main__":
    main()
