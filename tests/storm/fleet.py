"""A fleet of real processes: bus, API server, operator and provisioners."""

import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.storm.parts import Part, Told
from tests.storm.plan import GRACE, PATIENCE, READY_WITHIN, Storm
from tests.storm.platforms import Platform
from tests.storm.servers import Served
from tests.storm.worker import streams
from windfall.contracts.subjects import HUB
from windfall.provisioner.operator.marks import FEDERATION, SITE
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.testing.fixtures import started_server

Serves = Callable[[Path, str, Platform], AbstractAsyncContextManager[Served]]

NAMESPACE: Final = "default"


@dataclass
class Fleet:
    """Everything that runs."""

    folder: Path
    server: NatsServer
    cluster: Cluster
    bus: NatsBus
    api: Part
    operator: Part
    workers: list[Part]
    told: list[Told]
    served: Served
    platform: Platform
    busy: set[str] = field(default_factory=set)
    """Parts that are being killed and started."""

    @property
    def parts(self) -> dict[str, Part]:
        return {part.name: part for part in (self.api, self.operator, *self.workers)}

    @property
    def live(self) -> dict[str, list[tuple[str, str, str]]]:
        return {site: held for told in self.told for site, held in told.live.items()}


@asynccontextmanager
async def fleet(folder: Path, plan: Storm, serves: Serves, platform: Platform) -> AsyncIterator[Fleet]:
    """Its processes are killed when it is left."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(started_server(folder / "nats", HUB))
        api = await stack.enter_async_context(serves(folder, NAMESPACE, platform))
        cluster = await stack.enter_async_context(Cluster.connect(Connection(api.kubeconfig)))
        for site in plan.sites:
            await cluster.create(SITE, _site(site, platform.of(site), fleet="f"))
        await cluster.create(FEDERATION, federation("f", plan.sites[:5]))
        bus = NatsBus(server.url, "storm", streams(), _raise)
        await bus.start()
        stack.push_async_callback(bus.stop)
        operator = _operator(folder, api.kubeconfig, server)
        told = [Told(sites=frozenset(plan.sites[number :: plan.size.workers])) for number in range(plan.size.workers)]
        workers = [
            _worker(folder, number, plan, server, api.kubeconfig, one, platform) for number, one in enumerate(told)
        ]
        for part in (operator, *workers):
            stack.push_async_callback(part.end)
            await part.start()
        yield Fleet(folder, server, cluster, bus, api.part, operator, workers, told, api, platform)


def _operator(folder: Path, kubeconfig: Path, server: NatsServer) -> Part:
    environ = {
        "WINDFALL_KUBECONFIG": str(kubeconfig),
        "WINDFALL_KUBE_NAMESPACE": NAMESPACE,
        "WINDFALL_STATE_DIR": str(folder / "operator"),
        "WINDFALL_NATS_URL": server.url,
        "WINDFALL_OPERATOR_LEASE": "2",
    }
    return Part("operator", (sys.executable, "-m", "windfall.provisioner.operator"), environ, folder / "operator.log")


def _worker(
    folder: Path, number: int, plan: Storm, server: NatsServer, kubeconfig: Path, told: Told, platform: Platform
) -> Part:
    config = folder / f"worker-{number}.json"
    seconds = {"grace": GRACE, "patience": PATIENCE, "ready_timeout": READY_WITHIN}
    config.write_text(
        json.dumps(
            {
                "folder": str(folder),
                "sites": sorted(told.sites),
                "owned": sorted(plan.owned),
                "nats": server.url,
                "backends": {site: platform.of(site) for site in told.sites},
                "machines": {site: platform.environment(site) for site in told.sites},
                "settings": {name: value.total_seconds() for name, value in seconds.items()} | {"attempts": 2},
                "trainers": {
                    "kubeconfig": str(kubeconfig),
                    "kube_namespace": NAMESPACE,
                    "kube_image": "trainer:1",
                },
            }
        )
    )
    part = Part(
        f"worker-{number}",
        (sys.executable, "-m", "tests.storm.worker", str(config)),
        {},
        folder / f"worker-{number}.log",
    )
    part.hears, told.works = told.hear, part.works
    return part


def _site(name: str, backend: str, **labels: str) -> Object:
    return {
        "apiVersion": SITE.api_version,
        "kind": SITE.kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "jurisdiction": "CA-QC",
            "signal": {"rule": "carbon < 100"},
            "backend": {"name": backend, "grace": f"PT{GRACE.total_seconds():.0f}S"},
        },
    }


def federation(name: str, sites: Sequence[str]) -> Object:
    """Its pools come and go with the windows of these sites; without any it has one that stays."""
    pools = [{"name": site, "site": site, "replicas": 1} for site in sites] or [{"name": "a", "replicas": 1}]
    return {
        "apiVersion": FEDERATION.api_version,
        "kind": FEDERATION.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "engine": "flower",
            "siteSelector": {"matchLabels": {"fleet": "f"}},
            "drainGrace": "PT1S",
            "flower": {
                "mode": "StatefulSet",
                "isolationMode": "subprocess",
                "insecure": True,
                "superlink": {"image": "flwr/superlink:1.41.0"},
                "supernodes": {"image": "flwr/supernode:1.41.0", "pools": pools},
            },
        },
    }


def _raise(mistake: Mistake) -> None:
    raise mistake
