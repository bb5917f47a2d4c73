"""The composition root of a site that runs a ClientApp: ``python -m windfall.flower_adapter.site``.

The provisioner starts it in place of a site-trainer (``WINDFALL_NODE_MODULE``), under its name and with its settings.
Hears ``window.opened``, ``window.withdrawn``, ``window.closing``, ``window.closed``, ``command.site-trainer.stop``.
Says ``training.started``, ``site.drained``. Calls ``Messages`` of the coordinator.
"""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import NoReturn

from flwr.clientapp import ClientApp

from windfall.contracts.envelope import TRACEPARENT
from windfall.contracts.subjects import StreamSpec, site_streams
from windfall.flower_adapter import shim
from windfall.flower_adapter.app_folder import load, node_config, read_app
from windfall.flower_adapter.client_host import ClientHost, warm_up
from windfall.flower_adapter.link import NodeLink
from windfall.flower_adapter.node import Node, Terms
from windfall.flower_adapter.settings import FlowerSiteSettings
from windfall.servicekit.errors import Mistake
from windfall.servicekit.rpc import connect
from windfall.servicekit.service import Stand, run
from windfall.servicekit.telemetry import span


@asynccontextmanager
async def attend(settings: FlowerSiteSettings, stand: Stand) -> AsyncIterator[None]:
    shim.check_version()
    shim.log_as_we_do()
    if not settings.data_dir.is_dir():
        raise Mistake(f"there is no data folder {settings.data_dir}", "Set WINDFALL_DATA_DIR to the site's data")
    app = read_app(settings.flower_app)
    client_app: ClientApp = load(app, app.client, ClientApp)
    warm_up()
    told = {"data-dir": str(settings.data_dir.resolve()), **node_config(settings.node_config)}
    terms = Terms(
        settings.site,
        settings.federation,
        settings.window_id,
        settings.lease_token,
        app.name,
        settings.drain_time,
        settings.finish_within,
        settings.window_opens_at,
    )
    link = NodeLink(
        connect(settings.coordinator, settings.tls), settings.federation, settings.site, settings.max_message_bytes
    )
    node = Node(stand, terms, link, ClientHost(client_app, told, settings.state_dir))
    # The window's trace goes on here: the provisioner hands it over in the environment, as one process to another.
    with span(
        "train", parent={TRACEPARENT: os.environ.get("TRACEPARENT", "")}, attributes={"windfall.site": terms.site}
    ):
        node.attend()
        _say_ready(settings)
        try:
            yield
        finally:
            node.stop("asked to end")
            if stand.mistake is None:
                await node.finished.wait()
            await link.close()


def _say_ready(settings: FlowerSiteSettings) -> None:
    if settings.ready_file is not None:
        settings.ready_file.touch()
    if settings.ready_fd is not None:
        os.close(settings.ready_fd)


def streams(settings: FlowerSiteSettings) -> Sequence[StreamSpec]:
    return site_streams(settings.site)


def main() -> NoReturn:
    run("site-trainer", FlowerSiteSettings, lambda settings: settings.site, streams, attend)


if __name__ == "__main__":
    main()
