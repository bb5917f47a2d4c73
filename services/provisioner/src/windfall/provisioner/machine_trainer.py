"""The trainer of a lease whose machines have come: started, watched to its end, and asked to go if that was said
earlier."""

import asyncio
import logging
from collections.abc import Callable

from windfall.provisioner.held import Held
from windfall.provisioner.judgement import FAILED
from windfall.provisioner.trainer import Trainer
from windfall.servicekit.bus import back_off
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Cluster

log = logging.getLogger(__name__)


def trained(cluster: Cluster, trainer: Trainer, held: Held, changed: Callable[[], None]) -> "asyncio.Task[None]":
    """
    Args:
        cluster: the management cluster.
        trainer: of the workload cluster.
        held: is told when the trainer is ready, and leaves with what it ended with.
        changed: called once it has ended.
    """
    work = _train(cluster, trainer, held, changed)
    return asyncio.create_task(work, name=f"trainer of {held.node.name}")


async def _train(cluster: Cluster, trainer: Trainer, held: Held, changed: Callable[[], None]) -> None:
    try:
        held.leave(await _to_the_end(cluster, trainer, held), ended=True)
    except Mistake as mistake:
        log.error("%s: %s", held.node.name, mistake)
        held.say(str(mistake))
        held.leave(FAILED, ended=True)
    changed()


async def _to_the_end(cluster: Cluster, trainer: Trainer, held: Held) -> int | None:
    failures = 0
    while True:
        try:
            await trainer.run(cluster, held.node)
            held.trains = True
            if held.draining:
                await trainer.drain(cluster, held.node)
            break
        except Transient as error:
            failures += 1
            held.say(f"its trainer cannot be started: {error}")
            await asyncio.sleep((error.retry_after or back_off(failures)).total_seconds())
    readiness = asyncio.create_task(trainer.ready(held.node))
    readiness.add_done_callback(lambda done: _is_ready(held, done))
    try:
        return await trainer.wait(held.node)
    finally:
        readiness.cancel()


def _is_ready(held: Held, readiness: "asyncio.Task[bool]") -> None:
    if not readiness.cancelled() and readiness.exception() is None and readiness.result():
        held.is_ready()
