"""Builds the fleet of :mod:`tests.chaos_real.fleet`, lets it train, and leaves nothing of it behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.chaos_real import calm_task
from tests.chaos_real.fleet import Fleet
from tests.chaos_real.link import Link
from tests.chaos_real.needs import MIDNIGHT, SITES, Needs, write_trace
from tests.chaos_real.small_disk import small_disk
from windfall.cli.fleet import LOOPBACK, Wish, plan
from windfall.cli.preparation import furnish, ports
from windfall.contracts.subjects import HUB
from windfall.servicekit.testing.proxy import Proxy

MODEL: Final = {"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5}


@asynccontextmanager
async def standing(folder: Path, seed: int, needs: Needs | None = None) -> AsyncIterator[Fleet]:
    """A fleet that trains. Nothing of it is left behind."""
    needs = needs or Needs()
    wish = _wish(folder.resolve(), seed, needs)
    write_trace(wish.trace_file, needs.day)
    taken = ports(None)
    chosen = plan(wish, datetime.now(UTC), taken)
    furnish(chosen)
    async with AsyncExitStack() as stack:
        leaf = next(each.leaf_port for each in chosen.servers if each.domain == HUB)
        links = {
            site: Link(
                await stack.enter_async_context(Proxy(f"{LOOPBACK}:{leaf}")),
                await stack.enter_async_context(Proxy(chosen.coordinator)),
            )
            for site in SITES
        }
        fleet = Fleet(chosen, links, needs)
        if needs.calm:
            calm_task.install(Path(fleet.calm_path))
        stack.push_async_callback(fleet.end)
        if needs.small_disk_of:
            stack.enter_context(small_disk(folder / "state" / needs.small_disk_of))
        await fleet.rise()
        listening = asyncio.ensure_future(fleet.listen())
        stack.push_async_callback(_ended, listening)
        # What is measured at first competes with what trains.
        await asyncio.gather(*(fleet.profiled(site) for site in SITES))
        await fleet.train(datetime.now(UTC))
        yield fleet


def _wish(folder: Path, seed: int, needs: Needs) -> Wish:
    day = needs.day
    return Wish(
        folder=folder,
        sites=SITES,
        trace_file=folder / "trace.csv",
        trace_start=MIDNIGHT,
        trace_end=MIDNIGHT + day.length,
        pace=day.pace,
        seed=seed,
        federation="chaos",
        task=calm_task.NAME if needs.calm else Wish.task,
        task_settings=MODEL,
        settings={"ALONE": "PT0S", "OUTER": "average"},
    )


async def _ended(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
