"""The provisioners of several sites in one process, which may be killed at any line: ``python -m tests.storm.worker``.

Each has a journal on disk, a connection to the bus and a backend of its own, as the service has them. On stdout it says
in JSON, one object a line: ``{"up": site}`` once it hears, ``{"adopted": site}`` once it has taken over what runs, and
``{"site", "live": [[lease id, state, window id], …]}`` whenever that changes.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from windfall.contracts.subjects import COMMANDS_STREAM, PREFIX, StreamSpec, hub_streams
from windfall.provisioner import machine_backends
from windfall.provisioner.app import Provisioner, attend
from windfall.provisioner.backend import Backend
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes import KubernetesBackend
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit import logs
from windfall.servicekit.clock import Clock, parse_clock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand

COMMANDS: Final = f"{PREFIX}.command.*.*.*"


def streams() -> tuple[StreamSpec, ...]:
    """One domain that all sites and the operator share, in place of a hub and its leaves."""
    by_name = {spec.name: spec for spec in hub_streams(())}
    orders = replace(by_name[COMMANDS_STREAM], subjects=(COMMANDS,))
    return tuple(
        {**by_name, COMMANDS_STREAM: orders, "ORDERS": orders}[name] for name in ("EVENTS", "COMMANDS", "DEAD")
    )


def service(site: str) -> str:
    """By which the bus knows a site's provisioner, where all sites share a domain."""
    return f"provisioner-{site}"


def tell(**said: Any) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


@asynccontextmanager
async def stood(site: str, config: dict[str, Any]) -> AsyncIterator[tuple[Stand, Provisioner]]:
    """One site's provisioner, as its composition root makes it."""
    folder = Path(config["folder"]) / site
    settings = ProvisionerSettings.model_validate(
        {"site": site, "state_dir": folder, "nats_url": config["nats"], **config["settings"]}
    )
    clock = parse_clock(settings.clock)
    journal = Journal(folder / "provisioner.sqlite", f"/windfall/provisioner/{site}")
    stand: Stand

    def fail(mistake: Mistake) -> None:
        stand.fail(mistake)

    bus = NatsBus(settings.nats_url, service(site), streams(), fail, lambda: stand.outbox.recheck())
    stand = Stand("provisioner", site, clock, journal, bus, Outbox(journal, bus))
    backend = _backend(site, settings, config, clock)
    try:
        async with attend(settings, stand, backend, settings.node_environment(os.environ)) as provisioner:
            yield stand, provisioner
    finally:
        await stand.lie_down()


def _backend(site: str, settings: ProvisionerSettings, config: dict[str, Any], clock: Clock) -> Backend:
    owner = site if site in config["owned"] else None
    if config["backends"][site] == "kubernetes":
        trainers = TrainerSettings.model_validate({**config["trainers"], "kube_owner": owner})
        return KubernetesBackend(site, trainers, settings.node_module, settings.grace, clock)
    environ = {
        "WINDFALL_KUBECONFIG": config["trainers"]["kubeconfig"],
        "WINDFALL_KUBE_NAMESPACE": config["trainers"]["kube_namespace"],
        **({"WINDFALL_KUBE_OWNER": owner} if owner else {}),
        **config["machines"][site],
    }
    make = {"cluster-api": machine_backends.cluster_api, "k0rdent": machine_backends.k0rdent}
    return make[config["backends"][site]](settings, environ)


async def _told(provisioner: Provisioner) -> None:
    while True:
        change = provisioner.change
        live = [[str(one.lease_id), one.state.value, str(one.window_id)] for one in provisioner.holdings.live]
        tell(site=provisioner.site, live=live)
        await change.wait()


async def _adopted(site: str, adoption: asyncio.Task[None]) -> None:
    await adoption
    tell(adopted=site)


async def _rise(stand: Stand) -> None:
    await stand.rise()
    tell(up=stand.whom)


async def run(config: dict[str, Any]) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    stands: list[Stand] = []
    async with AsyncExitStack() as stack:
        tasks = stack.enter_context(_Tasks())
        known: set[asyncio.Task[Any]] = set()
        for site in config["sites"]:
            stand, provisioner = await stack.enter_async_context(stood(site, config))
            stands.append(stand)
            (adoption,) = {task for task in asyncio.all_tasks() if task.get_name() == "adoption"} - known
            known.add(adoption)
            tasks.add(_adopted(site, adoption))
            tasks.add(_told(provisioner))
            tasks.add(_ended(stand, stopping))
        async with asyncio.TaskGroup() as rising:
            for stand in stands:
                rising.create_task(_rise(stand))
        await stopping.wait()
    mistakes = [(stand.whom, stand.mistake) for stand in stands if stand.mistake is not None]
    for whom, mistake in mistakes:
        logging.critical("the provisioner of %s would have ended: %s", whom, mistake)
    return 1 if mistakes else 0


async def _ended(stand: Stand, stopping: asyncio.Event) -> None:
    await stand.stopping.wait()
    stopping.set()


class _Tasks:
    """Cut when they are left."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def __enter__(self) -> "_Tasks":
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()


if __name__ == "__main__":
    logs.to_stderr("provisioner", os.environ)
    sys.exit(asyncio.run(run(json.loads(Path(sys.argv[1]).read_text()))))
