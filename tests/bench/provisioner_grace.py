"""How long after its grace a node is given back at the latest, whatever its cluster does."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

from tests.bench.figures import Figure
from tests.bench.provisioner_site import Site, site
from windfall.contracts.events import NodeReady, NodeReleased
from windfall.servicekit.testing.kube_played import Course

_GRACE = timedelta(seconds=3)
_EACH = 3

Trouble = Callable[[Site], Awaitable[None]]


async def _stubborn(here: Site) -> None:
    here.course = Course(stops=timedelta(hours=1))


async def _lost(here: Site) -> None:
    here.course = Course(lost=True)


async def _slow(here: Site) -> None:
    here.api.faults.delay = timedelta(seconds=2)


async def _down(here: Site) -> None:
    here.api.faults.down = True
    here.api.faults.cut_watches()


TROUBLES: dict[str, Trouble] = {
    "stubborn pod": _stubborn,
    "machine lost": _lost,
    "API server slow by 2 s": _slow,
    "API server away": _down,
}


def latest_release(folder: Path) -> list[Figure]:
    over = asyncio.run(_troubles(folder))
    beside: dict[str, float | str] = {f"{name} s": max(each) for name, each in over.items()}
    conditions = (
        f"grace of {_GRACE.total_seconds():g} s, each trouble {_EACH} times; from window.closed published to "
        "node.released heard, less the grace; real nats-server and provisioner, the API server is the double"
    )
    value = max(max(each) for each in over.values())
    return [Figure("latest release over grace s", value, "s", "at most 5", beside, conditions)]


async def _troubles(folder: Path) -> dict[str, list[float]]:
    loop = asyncio.get_running_loop()
    over: dict[str, list[float]] = {name: [] for name in TROUBLES}
    async with site(folder, _GRACE) as here:
        for name, trouble in TROUBLES.items():
            for _ in range(_EACH):
                window = await here.opens()
                await here.hears(NodeReady)
                await trouble(here)
                closed_at = loop.time()
                await here.closes(window)
                released_at = await here.hears(NodeReleased)
                over[name].append(released_at - closed_at - _GRACE.total_seconds())
                here.course = Course()
                here.api.faults.delay, here.api.faults.down = timedelta(0), False
    return over
