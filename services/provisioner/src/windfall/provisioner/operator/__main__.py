"""Starts the operator: ``python -m windfall.provisioner.operator``.

``python -m windfall.provisioner.operator release`` takes its finalizers away, before it is uninstalled.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import uuid4

from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.hearing import listen
from windfall.provisioner.operator.lease_register import LeaseRegister
from windfall.provisioner.operator.operating import Operating
from windfall.provisioner.operator.orders import Orders
from windfall.provisioner.operator.releasing import release
from windfall.provisioner.operator.settings import OperatorSettings
from windfall.provisioner.operator.store import Owner
from windfall.servicekit import metrics, telemetry
from windfall.servicekit.clock import Clock, SystemClock
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.health import Health
from windfall.servicekit.kube import Cluster
from windfall.servicekit.leadership import Leadership
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.settings import load
from windfall.servicekit.standby import before

log = logging.getLogger("windfall.provisioner.operator")

SERVICE: Final = "operator"
_AGAIN: Final = timedelta(seconds=1)
_BUS_AGAIN: Final = timedelta(seconds=5)
_BROKEN_AGAIN: Final = timedelta(minutes=1)
_DEADLINE: Final = timedelta(seconds=10)

Work = Callable[[Owner], Awaitable[timedelta | None]]


def guard(work: Work) -> Work:
    """One resource that breaks the operator must not take it from all others: it is logged and comes last."""

    async def guarded(owner: Owner) -> timedelta | None:
        try:
            return await work(owner)
        except (Transient, Mistake):
            raise
        except Exception:
            log.exception("%s %s broke its reconciling", owner[0].kind, owner[1])
            return _BROKEN_AGAIN

    return guarded


async def _lead(settings: OperatorSettings, cluster: Cluster, health: Health, stopping: asyncio.Event) -> None:
    register = LeaseRegister(cluster, settings.kube_namespace, "windfall-operator", settings.operator_lease)
    holder = f"{socket.gethostname()}/{os.getpid()}/{uuid4().hex[:8]}"
    leadership = Leadership(register, holder, settings.operator_lease)
    leading = asyncio.create_task(leadership.lead(health.stand_by), name="lead")
    if not await before(leading, stopping):
        return
    health.standing_by = False
    log.info("leads %s under token %d", settings.kube_namespace, leading.result())
    try:
        await _until_first(stopping, leadership.keep(), _operate(settings, cluster, health))
    finally:
        health.lacking = lambda: "it does not lead"
        await leadership.release()


async def _operate(settings: OperatorSettings, cluster: Cluster, health: Health) -> None:
    clock = SystemClock()
    while True:
        try:
            facts = Facts.of(await cluster.version(), os.environ)
            orders = Orders()
            operating = Operating(
                cluster,
                settings.connection,
                settings.kube_namespace,
                facts,
                clock,
                settings.resync,
                orders.release,
                guard,
            )
            health.lacking = partial(_unseen, operating)
            hearing = asyncio.create_task(_hear(settings, operating, orders, clock), name="bus")
            try:
                await operating.run()
                return
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)
        except Transient as error:
            log.warning("begins anew: %s", error)
        except Mistake:
            raise
        except Exception:
            # kopf ends with what a watch says that it does not understand; everything is listed anew.
            log.exception("begins anew")
        await clock.sleep(_AGAIN)


async def _hear(settings: OperatorSettings, operating: Operating, orders: Orders, clock: Clock) -> None:
    """A bus that is away, or has no streams yet, keeps nobody from reconciling: what stands on the objects counts."""
    while settings.windows == "bus":
        lost = asyncio.Event()

        def lose(mistake: Mistake, lost: asyncio.Event = lost) -> None:
            log.error("hears nothing: %s", mistake)
            lost.set()

        bus = NatsBus(settings.nats_url, SERVICE, (), lose, access=settings.nats_access.of(SERVICE))
        listen(bus, operating.hearsay, operating.queue.add)
        try:
            await bus.start()
            orders.bus = bus
            await lost.wait()
        except Mistake as mistake:
            lose(mistake)
        finally:
            orders.bus = None
            await bus.stop()
        await clock.sleep(_BUS_AGAIN)


def _unseen(operating: Operating) -> str:
    return "" if operating.primed else "it has not seen everything yet"


async def _until_first(stopping: asyncio.Event, *work: Awaitable[None]) -> None:
    tasks = [asyncio.ensure_future(one) for one in (*work, stopping.wait())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _main(settings: OperatorSettings, word: str) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with Cluster.connect(settings.connection, _DEADLINE) as cluster:
        if word == "release":
            await release(cluster, settings.kube_namespace)
            return
        health = Health(
            settings.health_port, settings.state_dir, lambda: "it does not lead yet", f"health-{os.getpid()}.json"
        )
        health.beat()
        try:
            await _lead(settings, cluster, health, stopping)
        finally:
            health.close()


def main(words: list[str]) -> int:
    logging.basicConfig(
        level=(os.environ.get("WINDFALL_LOG_LEVEL") or "INFO").upper(),
        format=f"%(asctime)s %(levelname)-7s {SERVICE} %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("nats").setLevel(logging.CRITICAL)
    try:
        if words not in ([], ["release"]):
            raise Mistake(
                f"{' '.join(words)!r} is not known", "Say nothing to run, or 'release' before you uninstall it"
            )
        settings = load(OperatorSettings, os.environ)
        # Told now: who hears is begun again and again, whatever ended it.
        settings.nats_access.options(settings.nats_url)
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        telemetry.set_up(SERVICE, settings.kube_namespace, settings.traces_file)
        metrics.set_up(SERVICE, settings.kube_namespace, folder=settings.state_dir)
        asyncio.run(_main(settings, "".join(words)))
    except Mistake as mistake:
        sys.stderr.write(f"windfall {SERVICE}: {mistake}\n")
        return mistake.exit_code
    except Transient as error:
        sys.stderr.write(f"windfall {SERVICE}: {error}. Try again\n")
        return ExitCode.SERVER
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    finally:
        metrics.tear_down()
        telemetry.tear_down()
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
