"""Waits until a storm has settled, and looks for what does not hold."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from uuid import UUID

import nats

from tests.storm import history, leases
from tests.storm.blows import kill, letter
from tests.storm.fleet import NAMESPACE, Fleet, federation
from tests.storm.outcome import Outcome
from tests.storm.plan import Storm, ends
from tests.storm.worker import service
from windfall.provisioner.manifests.contracts import K0RDENT
from windfall.provisioner.manifests.labels import LEASE
from windfall.provisioner.manifests.labels import SITE as SITE_LABEL
from windfall.provisioner.operator.marks import FEDERATION, SITE
from windfall.servicekit.kube import Object

_SETTLES: Final = timedelta(minutes=3)
_PROBE: Final = "zz-probe"


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


async def up(all_: Fleet) -> str:
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


async def quiet(all_: Fleet, outcome: Outcome, say: Callable[[str], None]) -> None:
    """Everybody begins anew and looks at everything, and nobody writes."""
    plan = outcome.storm
    say("the storm is over; waiting until it has settled")
    await until("everything is heard", lambda: _heard(all_, plan))
    await until("every lease has ended but those of open windows", lambda: _settled(all_, plan, plan.lasting))
    held = [lease for site in all_.live.values() for lease, _, _ in site]
    await until("what has no owner is collected", lambda: _collected(all_, held), all_.served.collects)
    before = await _still(all_)
    say("it is quiet; everybody is killed once more, and looks at everything anew")
    for what in all_.parts:
        if what != "api":
            await kill(all_, what, timedelta(0))
    await until("everything is adopted", lambda: _adopted(all_))
    # The operator takes one after the other: once it has done the youngest it has looked at all.
    await all_.cluster.create(FEDERATION, federation(_PROBE, ()))
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


async def end(all_: Fleet, outcome: Outcome, say: Callable[[str], None]) -> None:
    """The last windows close, the sites and the federation are deleted, and the history is looked through."""
    plan, chance = outcome.storm, Random(outcome.storm.seed)
    say("the last windows close, and every Site is deleted")
    now = datetime.now(UTC)
    for window, site in plan.lasting.items():
        for said in ends(chance, now, site, window, 0):
            await all_.bus.publish(letter(said))
    await until("everything is heard", lambda: _heard(all_, plan))
    await until("every lease has ended", lambda: _settled(all_, plan, {}))
    await all_.cluster.delete(FEDERATION, "f", NAMESPACE)
    for site in plan.sites:
        await all_.cluster.delete(SITE, site, NAMESPACE)
    try:
        await until("nothing is left of ours", lambda: _nothing(all_, plan), all_.served.collects)
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
    left = [
        f"{key[1]}/{key[3]}" for key, found in there.items() if history.ours(found) and not _stays(key, found, plan)
    ]
    return left + list(history.orphans(there, ()))


def _stays(key: history.Key, found: Object, plan: Storm) -> bool:
    """Whether it is of a site that no ``Site`` owns: its anchor, its trainer's state, and the cluster that it keeps."""
    labels = found["metadata"].get("labels") or {}
    site = labels.get(SITE_LABEL)
    if site is None or site in plan.owned or LEASE in labels:
        return False
    keeps = key[0].endswith("x-k8s.io") or key[0] == K0RDENT
    kept = {f"windfall-{site}", f"windfall-{site}-state", f"windfall-{site}-kubeconfigs"}
    return key[3] in kept or (keeps and key[1] not in ("machines", "remotemachines"))


async def _nothing(all_: Fleet, plan: Storm) -> str:
    return ", ".join(_left(all_, plan))
