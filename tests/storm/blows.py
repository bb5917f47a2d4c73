"""How a storm strikes."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from tests.storm.fleet import NAMESPACE, Fleet
from tests.storm.plan import Blow, Harm, Kill, Leave, Said, Storm
from tests.storm.servers import answers
from windfall.contracts.envelope import MESSAGE_ID, Letter, seal
from windfall.provisioner.manifests.contracts import MACHINE
from windfall.provisioner.manifests.labels import LEASE
from windfall.provisioner.operator.marks import SITE
from windfall.provisioner.served_again import served_again
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Absent, Conflict
from windfall.servicekit.kube.kinds import POD
from windfall.servicekit.testing.kube_played.persistence import persist


async def strike(all_: Fleet, plan: Storm, began: datetime) -> None:
    async with asyncio.TaskGroup() as tasks:
        for blow in plan.blows:
            await asyncio.sleep(max(0.0, (began + blow.at - datetime.now(UTC)).total_seconds()))
            tasks.create_task(_fall(all_, blow))


async def _fall(all_: Fleet, blow: Blow) -> None:
    match blow:
        case Said():
            await persist(lambda: all_.bus.publish(letter(blow)))
        case Kill() if blow.what not in all_.busy:
            all_.busy.add(blow.what)
            await kill(all_, blow.what, blow.down)
            all_.busy.discard(blow.what)
        case Harm():
            await persist(lambda: _harm(all_, blow))
        case Leave():
            await persist(lambda: _leave(all_, blow))


async def _leave(all_: Fleet, blow: Leave) -> None:
    with served_again():
        await all_.cluster.delete(SITE, blow.site, NAMESPACE)


def letter(said: Said) -> Letter:
    letter = seal(said.message, "/windfall/storm")
    if not said.copy:
        return letter
    # Under another id of its own the stream does not see that it has it: the provisioner has to.
    return Letter(letter.subject, {**letter.headers, MESSAGE_ID: f"{said.message.id}/{said.copy}"}, letter.body)


async def kill(all_: Fleet, what: str, down: timedelta) -> None:
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
    kinds = [POD, all_.platform.at(MACHINE)] if all_.platform.has_machines else [POD]
    with served_again():
        there = [(kind, each) for kind in kinds for each in (await cluster.list(kind, NAMESPACE, labels=LEASE)).items]
    if not there:
        return
    kind, found = there[round(harm.chance * (len(there) - 1))]
    metadata = found["metadata"]
    name = metadata["name"]
    # Whoever was faster has done it harm enough, and what is going takes no finalizer.
    with suppress(Absent, Conflict, Mistake):
        if kind is not POD:
            await cluster.delete(kind, name, NAMESPACE, uid=metadata["uid"])
        elif harm.how == "hold":
            held = {"metadata": {"uid": metadata["uid"], "finalizers": ["example.org/held"]}}
            await cluster.patch(POD, name, NAMESPACE, held)
            await asyncio.sleep(2)
            free = {"metadata": {"uid": metadata["uid"], "finalizers": None}}
            await persist(lambda: cluster.patch(POD, name, NAMESPACE, free))
        else:
            grace = timedelta(0) if harm.how == "kill" else None
            await cluster.delete(POD, name, NAMESPACE, uid=metadata["uid"], grace=grace)
