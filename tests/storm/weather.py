"""Lets a storm loose on a fleet of real processes, waits until it has settled, and says what does not hold."""

import asyncio
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final
from uuid import UUID

import nats

from tests.storm import history, leases
from tests.storm.parts import Part, Told
from tests.storm.plan import GRACE, PATIENCE, READY_WITHIN, Blow, Harm, Kill, Leave, Said, Size, Storm, ends, storm
from tests.storm.servers import Served, answers, double
from tests.storm.worker import service, streams
from windfall.contracts.envelope import MESSAGE_ID, Letter, seal
from windfall.contracts.subjects import HUB
from windfall.provisioner.manifests.labels import LEASE, WINDOW
from windfall.provisioner.operator.marks import FEDERATION, SITE
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Absent, Cluster, Conflict, Connection, Object
from windfall.servicekit.kube.kinds import POD
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.testing.fixtures import started_server
from windfall.servicekit.testing.kube_played import Course, Kubelet, played
from windfall.servicekit.testing.kube_played.persistence import persist

Serves = Callable[[Path, str], AbstractAsyncContextManager[Served]]

NAMESPACE: Final = "default"
_SETTLES: Final = timedelta(minutes=3)
_PROBE: Final = "zz-probe"


@dataclass
class Outcome:
    """What came of a storm."""

    storm: Storm
    kills: Counter[str] = field(default_factory=Counter)
    ends: leases.Ends = field(default_factory=leases.Ends)
    faults: list[str] = field(default_factory=list)
    """What should hold and does not."""
    sentences: int = 0
    """That were given to the bus, copies included."""
    changes: int = 0
    orphans: int = 0
    rewritten: int = 0
    """Changes to objects that were as they should be: writes without a difference, and writes in the quiet."""
    took: timedelta = timedelta(0)


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
    busy: set[str] = field(default_factory=set)
    """Parts that are being killed and started."""

    @property
    def parts(self) -> dict[str, Part]:
        return {part.name: part for part in (self.api, self.operator, *self.workers)}

    @property
    def live(self) -> dict[str, list[tuple[str, str, str]]]:
        return {site: held for told in self.told for site, held in told.live.items()}


async def weather(folder: Path, seed: int, size: Size, say: Callable[[str], None], serves: Serves = double) -> Outcome:
    """Needs two cores for some ``size.lasts`` and a minute.

    Args:
        serves: the API server.
        say: told what is going on.
    """
    names = storm(seed, size, datetime.now(UTC))
    courses: dict[str, Storm] = {"now": names}
    async with fleet(folder, names, serves) as all_:
        kubelet = Kubelet(lambda pod: _course(courses["now"], pod))
        async with played(all_.served.kubeconfig, kubelet):
            await until("the workers are up", lambda: _up(all_))
            began = datetime.now(UTC)
            now = courses["now"] = storm(seed, size, began)
            outcome = Outcome(now, sentences=sum(isinstance(blow, Said) for blow in now.blows))
            say(f"seed {seed}: the storm has begun, {len(now.blows)} blows in {size.lasts.total_seconds():.0f} s")
            await _blow(all_, now, began)
            await _quiet(all_, outcome, say)
            await _end(all_, outcome, say)
        outcome.took = datetime.now(UTC) - began
    return outcome


# --- a fleet ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def fleet(folder: Path, plan: Storm, serves: Serves) -> AsyncIterator[Fleet]:
    """Its processes are killed when it is left."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(started_server(folder / "nats", HUB))
        api = await stack.enter_async_context(serves(folder, NAMESPACE))
        cluster = await stack.enter_async_context(Cluster.connect(Connection(api.kubeconfig)))
        for site in plan.sites:
            await cluster.create(SITE, _site(site, fleet="f"))
        await cluster.create(FEDERATION, _federation("f", plan.sites[:5]))
        bus = NatsBus(server.url, "storm", streams(), _raise)
        await bus.start()
        stack.push_async_callback(bus.stop)
        operator = _operator(folder, api.kubeconfig, server)
        told = [Told(sites=frozenset(plan.sites[number :: plan.size.workers])) for number in range(plan.size.workers)]
        workers = [_worker(folder, number, plan, server, api.kubeconfig, one) for number, one in enumerate(told)]
        for part in (operator, *workers):
            stack.push_async_callback(part.end)
            await part.start()
        yield Fleet(folder, server, cluster, bus, api.part, operator, workers, told, api)


def _operator(folder: Path, kubeconfig: Path, server: NatsServer) -> Part:
    environ = {
        "WINDFALL_KUBECONFIG": str(kubeconfig),
        "WINDFALL_KUBE_NAMESPACE": NAMESPACE,
        "WINDFALL_STATE_DIR": str(folder / "operator"),
        "WINDFALL_NATS_URL": server.url,
        "WINDFALL_OPERATOR_LEASE": "2",
    }
    return Part("operator", (sys.executable, "-m", "windfall.provisioner.operator"), environ, folder / "operator.log")


def _worker(folder: Path, number: int, plan: Storm, server: NatsServer, kubeconfig: Path, told: Told) -> Part:
    config = folder / f"worker-{number}.json"
    seconds = {"grace": GRACE, "patience": PATIENCE, "ready_timeout": READY_WITHIN}
    config.write_text(
        json.dumps(
            {
                "folder": str(folder),
                "sites": sorted(told.sites),
                "owned": sorted(plan.owned),
                "nats": server.url,
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


def _site(name: str, **labels: str) -> Object:
    return {
        "apiVersion": SITE.api_version,
        "kind": SITE.kind,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {
            "jurisdiction": "CA-QC",
            "signal": {"rule": "carbon < 100"},
            "backend": {"name": "kubernetes", "grace": f"PT{GRACE.total_seconds():.0f}S"},
        },
    }


def _federation(name: str, sites: Sequence[str]) -> Object:
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


def _course(plan: Storm, pod: Object) -> Course:
    window = (pod["metadata"].get("labels") or {}).get(WINDOW)
    return Course() if window is None else plan.course(UUID(window))


def _raise(mistake: Mistake) -> None:
    raise mistake


# --- the storm --------------------------------------------------------------------------------------------------------


async def _blow(all_: Fleet, plan: Storm, began: datetime) -> None:
    async with asyncio.TaskGroup() as tasks:
        for blow in plan.blows:
            await asyncio.sleep(max(0.0, (began + blow.at - datetime.now(UTC)).total_seconds()))
            tasks.create_task(_fall(all_, blow))


async def _fall(all_: Fleet, blow: Blow) -> None:
    match blow:
        case Said():
            await all_.bus.publish(_letter(blow))
        case Kill() if blow.what not in all_.busy:
            all_.busy.add(blow.what)
            await _kill(all_, blow.what, blow.down)
            all_.busy.discard(blow.what)
        case Harm():
            await persist(lambda: _harm(all_, blow))
        case Leave():
            await persist(lambda: all_.cluster.delete(SITE, blow.site, NAMESPACE))


def _letter(said: Said) -> Letter:
    letter = seal(said.message, "/windfall/storm")
    if not said.copy:
        return letter
    # Under another id of its own the stream does not see that it has it: the provisioner has to.
    return Letter(letter.subject, {**letter.headers, MESSAGE_ID: f"{said.message.id}/{said.copy}"}, letter.body)


async def _kill(all_: Fleet, what: str, down: timedelta) -> None:
    part = all_.parts[what]
    await part.kill()
    for told, worker in zip(all_.told, all_.workers, strict=True):
        if worker is part:
            told.forget()
    if part is all_.api:
        # Before its next life compacts it.
        all_.served.history.read()
    await asyncio.sleep(down.total_seconds())
    await part.start()
    if part is all_.api:
        await answers(all_.cluster)
        part.works()


async def _harm(all_: Fleet, harm: Harm) -> None:
    cluster = all_.cluster
    pods = (await cluster.list(POD, NAMESPACE, labels=LEASE)).items
    if not pods:
        return
    metadata = pods[round(harm.chance * (len(pods) - 1))]["metadata"]
    name = metadata["name"]
    # Whoever was faster has done it harm enough, and what is going takes no finalizer.
    with suppress(Absent, Conflict, Mistake):
        if harm.how == "hold":
            held = {"metadata": {"uid": metadata["uid"], "finalizers": ["example.org/held"]}}
            await cluster.patch(POD, name, NAMESPACE, held)
            await asyncio.sleep(2)
            free = {"metadata": {"uid": metadata["uid"], "finalizers": None}}
            await persist(lambda: cluster.patch(POD, name, NAMESPACE, free))
        else:
            grace = timedelta(0) if harm.how == "kill" else None
            await cluster.delete(POD, name, NAMESPACE, uid=metadata["uid"], grace=grace)


# --- afterwards -------------------------------------------------------------------------------------------------------


async def until(what: str, true: Callable[[], Awaitable[str]], within: timedelta = _SETTLES) -> None:
    """Wait until nothing is missing.

    Args:
        true: gives what is missing; an empty word for nothing.

    Raises:
        AssertionError: it takes too long.
    """
    missing = ""
    try:
        async with asyncio.timeout(within.total_seconds()):
            while missing := await true():  # noqa: ASYNC110 - other processes set no event
                await asyncio.sleep(0.2)
    except TimeoutError as error:
        raise AssertionError(f"not so within {within.total_seconds():.0f} s: {what}; {missing}") from error


async def _up(all_: Fleet) -> str:
    return ", ".join(sorted(site for told in all_.told for site in told.sites - told.up))


async def _adopted(all_: Fleet) -> str:
    return ", ".join(sorted(site for told in all_.told for site in told.sites - told.adopted))


async def _heard(all_: Fleet, plan: Storm) -> str:
    """Which provisioners have not heard everything."""
    client = await nats.connect(all_.server.url)
    try:
        waiting = []
        for site in plan.sites:
            for stream in ("EVENTS", "COMMANDS"):
                info = await client.jetstream().consumer_info(stream, service(site))
                if info.num_pending or info.num_ack_pending:
                    waiting.append(f"{site} has {info.num_pending}+{info.num_ack_pending} of {stream} to hear")
        return ", ".join(waiting)
    finally:
        await client.close()


async def _settled(all_: Fleet, plan: Storm, lasting: dict[UUID, str]) -> str:
    """Which sites hold something else than these windows' ready nodes."""
    wanted = {site: str(window) for window, site in lasting.items()}
    wrong = []
    for site in plan.sites:
        live = [(state, window) for _, state, window in all_.live.get(site, [("", "unknown", "")])]
        if live != ([("ready", wanted[site])] if site in wanted else []):
            wrong.append(f"{site}: {', '.join(f'{state} {window[:8]}' for state, window in live) or 'nothing'}")
    return ", ".join(wrong)


async def _still(all_: Fleet) -> int:
    """The version after which nothing is written any more."""
    version, since = -1, asyncio.get_running_loop().time()

    async def still() -> str:
        nonlocal version, since
        last = max((change.version for change in all_.served.history.read() if _counts(change)), default=0)
        loop_time = asyncio.get_running_loop().time()
        if last != version:
            version, since = last, loop_time
        return "" if loop_time - since > all_.served.still.total_seconds() else f"version {last}"

    await until("nothing is written", still)
    return version


def _counts(change: history.Change) -> bool:
    """Who leads is written all the time, and the probe is ours."""
    return change.key[1] != "leases" and not change.key[3].startswith(_PROBE)


async def _quiet(all_: Fleet, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Everybody begins anew and looks at everything, and nobody writes."""
    plan = outcome.storm
    say("the storm is over; waiting until it has settled")
    await until("everything is heard", lambda: _heard(all_, plan))
    await until("every lease has ended but those of open windows", lambda: _settled(all_, plan, plan.lasting))
    held = [lease for site in all_.live.values() for lease, _, _ in site]
    await until("what has no owner is collected", lambda: _collected(all_, held))
    before = await _still(all_)
    say("it is quiet; everybody is killed once more, and looks at everything anew")
    for what in all_.parts:
        if what != "api":
            await _kill(all_, what, timedelta(0))
    await until("everything is adopted", lambda: _adopted(all_))
    # The operator takes one after the other: once it has done the youngest it has looked at all.
    await all_.cluster.create(FEDERATION, _federation(_PROBE, ()))
    await until("the operator has looked at everything", lambda: _looked_at(all_, _PROBE))
    await all_.cluster.delete(FEDERATION, _PROBE, NAMESPACE)
    await until("the probe is gone", lambda: _gone(all_, _PROBE))
    await asyncio.sleep(all_.served.still.total_seconds())
    written = [change for change in history.since(all_.served.history.read(), before) if _counts(change)]
    outcome.rewritten += len(written)
    outcome.faults += [f"{change.key[1]}/{change.key[3]} was written in the quiet" for change in written]
    left = list(history.orphans(history.now(all_.served.history.changes), held))
    outcome.orphans += len(left)
    outcome.faults += left


async def _collected(all_: Fleet, held: Sequence[str]) -> str:
    return ", ".join(history.orphans(history.now(all_.served.history.read()), held))


async def _looked_at(all_: Fleet, federation: str) -> str:
    found = await all_.cluster.get(FEDERATION, federation, NAMESPACE)
    return "" if ((found or {}).get("status") or {}).get("conditions") else federation


async def _gone(all_: Fleet, federation: str) -> str:
    return federation if await all_.cluster.get(FEDERATION, federation, NAMESPACE) else ""


async def _end(all_: Fleet, outcome: Outcome, say: Callable[[str], None]) -> None:
    """The last windows close, the sites and the federation are deleted, and the history is looked through."""
    plan, chance = outcome.storm, Random(outcome.storm.seed)
    say("the last windows close, and every Site is deleted")
    now = datetime.now(UTC)
    for window, site in plan.lasting.items():
        for said in ends(chance, now, site, window, 0):
            await all_.bus.publish(_letter(said))
    await until("everything is heard", lambda: _heard(all_, plan))
    await until("every lease has ended", lambda: _settled(all_, plan, {}))
    await all_.cluster.delete(FEDERATION, "f", NAMESPACE)
    for site in plan.sites:
        await all_.cluster.delete(SITE, site, NAMESPACE)
    try:
        await until("nothing is left of ours", lambda: _nothing(all_, plan), timedelta(minutes=1))
    except AssertionError as error:
        left = _left(all_, plan)
        outcome.orphans += len(left)
        outcome.faults.append(str(error))
    for part in all_.workers:
        if (code := await part.end(signal.SIGTERM)) != 0:
            outcome.faults.append(f"{part.name} ended with {code} when it was told to stop")
    for part in all_.parts.values():
        outcome.kills[part.name.split("-")[0]] += part.kills
        outcome.faults += [f"{part.name} ended by itself with {code}" for code in part.broke]
    changes = all_.served.history.read()
    outcome.changes = len(changes)
    again = list(history.unchanged(changes))
    outcome.rewritten += len(again)
    outcome.faults += [*again, *history.ownerless(changes, plan.owned), *history.unfenced(changes)]
    away = {site: part.away for part, told in zip(all_.workers, all_.told, strict=True) for site in told.sites}
    outcome.ends = await leases.ends(all_.folder, all_.server, plan.sites, away, history.born(changes))
    outcome.faults += outcome.ends.faults


def _left(all_: Fleet, plan: Storm) -> list[str]:
    """Names of what should not be there any more."""
    there = history.now(all_.served.history.read())
    stays = {f"windfall-{site}{more}" for site in plan.sites if site not in plan.owned for more in ("", "-state")}
    left = [f"{key[1]}/{key[3]}" for key, found in there.items() if history.ours(found) and key[3] not in stays]
    return left + list(history.orphans(there, ()))


async def _nothing(all_: Fleet, plan: Storm) -> str:
    return ", ".join(_left(all_, plan))
