"""What secure aggregation costs: Flower's SecAgg+ over our transport, beside plain averaging by the same app.

Three sites add a constant to a model and send it; nobody trains, so that all of a round is what the masks cost. Each
part is a process, on loopback, without TLS. ``ARGS=--small`` leaves the larger model out.
"""

import asyncio
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.figures import Figure, report
from tests.flower_fleet import FlowerFleet
from windfall.contracts.events import RoundCompleted, RoundStarted

APP: Final = Path(__file__).parents[1] / "flower_apps" / "masked"
SITES: Final = ("site-a", "site-b", "site-c")
ROUNDS: Final = 6
_STAGES: Final = 4
"""Rounds on the bus that one secure aggregation takes: set-up, shares, masked vectors, unmasking."""
_WARM: Final = 1
"""Of the rounds, that are not counted: threads and connections come up in them."""
_DROPS: Final = 2
"""The site that shares its keys and never sends its vector, where one does."""


@dataclass(frozen=True)
class Cost:
    """Of one round of averaging, over all sites."""

    seconds: float
    """From its beginning to the next one's, median."""
    bytes_up: float


async def main() -> None:
    sizes = (6, 1_000_000)[: 1 if "--small" in sys.argv else 2]
    figures = []
    with tempfile.TemporaryDirectory(prefix="windfall-secagg-") as name:
        for parameters in sizes:
            folder = Path(name) / str(parameters)
            folder.mkdir()
            plain = await _run(folder / "plain", parameters, secure=False)
            masked = await _run(folder / "masked", parameters)
            dropped = await _run(folder / "dropped", parameters, drops=_DROPS)
            figures += _figures(parameters, plain, masked, dropped)
    report("secagg", figures)


def _figures(parameters: int, plain: Cost, masked: Cost, dropped: Cost) -> list[Figure]:
    what = f"{parameters:,} parameters, 3 sites"
    conditions = f"SecAgg+ of Flower 1.41, 3 shares, threshold 2; {ROUNDS - _WARM - 1} rounds, median"
    conditions += f"; processes on loopback, plaintext; load {os.getloadavg()[0]:.1f}"
    return [
        Figure(
            f"secure aggregation round ms, {what}",
            1000 * masked.seconds,
            "ms",
            "none: what it costs",
            {"plain averaging": 1000 * plain.seconds, "with one site dropped out": 1000 * dropped.seconds},
            conditions,
        ),
        Figure(
            f"secure aggregation bytes up of a site, {what}",
            masked.bytes_up / len(SITES),
            "B",
            "none: what it costs",
            {"plain averaging": plain.bytes_up / len(SITES)},
            conditions,
        ),
    ]


async def _run(folder: Path, parameters: int, *, secure: bool = True, drops: int = -1) -> Cost:
    told = f"num-server-rounds={ROUNDS} columns={parameters // 2} fraction-evaluate=0.0"
    told += f" secure={str(secure).lower()} drops={drops}"
    async with FlowerFleet(folder, APP, SITES, {"RUN_CONFIG": told, "SILENCE": "30"}) as fleet:
        coordinator = await fleet.coordinator()
        for site in [await fleet.site(site) for site in SITES]:
            if await site.wait():
                raise RuntimeError(f"a site broke; its log lies in {folder}")
        coordinator.send_signal(signal.SIGTERM)
        await coordinator.wait()
        said = await fleet.said()
    stages = _STAGES if secure else 1
    begun = [event.at for event in said if isinstance(event, RoundStarted)][::stages]
    sent = [event.bytes_up for event in said if isinstance(event, RoundCompleted)]
    if len(begun) != ROUNDS or len(sent) != ROUNDS * stages:
        raise RuntimeError(f"{len(sent)} of {ROUNDS * stages} rounds were completed in {folder}")
    lasted = [(after - before).total_seconds() for before, after in pairwise(begun)]
    return Cost(median(lasted[_WARM:]), sum(sent) / ROUNDS)


if __name__ == "__main__":
    asyncio.run(main())
