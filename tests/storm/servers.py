"""The API servers on which a storm may be let loose, and the history of what they took."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any, Final

from tests.storm.history import History, Log, Watched
from tests.storm.parts import ROOT, Part
from tests.storm.platforms import Platform, prepare
from windfall.provisioner.operator.marks import FEDERATION, SITE
from windfall.provisioner.operator.testing.installed import install
from windfall.servicekit.kube import Cluster, Connection
from windfall.servicekit.kube.kinds import (
    CONFIG_MAP,
    DAEMON_SET,
    JOB,
    PDB_BETA,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE,
    STATEFUL_SET,
)
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.testing.kube_api.double import LOG
from windfall.servicekit.testing.kube_played.persistence import persist

STARTER: Final = ROOT / ".." / "shared" / "kube" / "kube-up"
"""Starts a real control plane; it lies beside the checkout, or does not."""
_CONTROLLERS_S: Final = 3.0
"""Within which they have found their ports taken."""
_COLLECTS: Final = timedelta(minutes=17)
"""The real collector tries an object again after a pause that doubles up to 1,000 s while the server is away
(client-go's ``DefaultControllerRateLimiter``); usually it takes seconds."""
_WATCHED: Final = (
    *(SITE, FEDERATION, CONFIG_MAP, SECRET, SERVICE, PERSISTENT_VOLUME_CLAIM, PDB_BETA),
    *(JOB, STATEFUL_SET, DAEMON_SET, POD),
)


@dataclass(frozen=True)
class Served:
    """
    Args:
        part: the process that is killed.
        history: what has been written.
        still: after so long without a write it is quiet.
        collects: within which what has no owner is gone.
    """

    part: Part
    kubeconfig: Path
    history: History
    still: timedelta
    collects: timedelta


@asynccontextmanager
async def double(folder: Path, namespace: str, platform: Platform) -> AsyncIterator[Served]:
    """The double that ships, as a process with its log."""
    state = folder / "api"
    state.mkdir()
    module = "windfall.servicekit.testing.kube_api"
    command = (sys.executable, "-m", module, "--port", str(free_port()), "--state", str(state))
    part, first = Part("api", command, {}, folder / "api.log"), asyncio.Event()
    part.hears = lambda line: first.set()
    await part.start()
    try:
        await first.wait()
        async with Cluster.connect(Connection(state / "kubeconfig")) as cluster:
            await install(cluster)
            await prepare(cluster, namespace, platform)
        yield Served(part, state / "kubeconfig", Log(state / LOG), timedelta(seconds=8), timedelta(minutes=3))
    finally:
        await part.end()


@asynccontextmanager
async def real(folder: Path, namespace: str, platform: Platform) -> AsyncIterator[Served]:
    """kube-apiserver, whose etcd and controllers go on while it is away.

    Raises:
        RuntimeError: another control plane on this machine holds the ports of its controllers.
    """
    plane = _starter().ControlPlane(controllers=True)
    try:
        kubeconfig = plane.start()
        _, api, controllers = plane.processes
        await asyncio.sleep(_CONTROLLERS_S)
        if controllers.poll() is not None:
            raise RuntimeError("another control plane on this machine holds the ports of its controllers")
        _kill(api)
        part = Part("api", tuple(api.args), {}, folder / "api.log")
        await part.start()
        try:
            async with Cluster.connect(Connection(kubeconfig)) as cluster:
                await answers(cluster)
                await install(cluster)
                await prepare(cluster, namespace, platform)
                watched = Watched()
                watches = [
                    asyncio.create_task(watched.follow(cluster, kind, namespace))
                    for kind in (*_WATCHED, *platform.kinds)
                ]
                try:
                    # Its controllers come back by and by after it was away.
                    yield Served(part, kubeconfig, watched, timedelta(seconds=20), _COLLECTS)
                finally:
                    for watch in watches:
                        watch.cancel()
                    await asyncio.gather(*watches, return_exceptions=True)
        finally:
            await part.end()
    finally:
        plane.stop()


async def answers(cluster: Cluster) -> None:
    """Return once the server does."""
    await persist(cluster.version)


def _starter() -> Any:
    loader = SourceFileLoader("kube_up", os.fspath(STARTER))
    spec = spec_from_loader("kube_up", loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
