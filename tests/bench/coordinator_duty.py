"""What share of the time sites train, over a link that is long and thin: real trainers, real steps, real rounds."""

import asyncio
import statistics
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from tests.bench.coordinator_failures import told
from tests.bench.hub import Hub
from tests.bench.trainers import Trainer, listening
from windfall.contracts.events import RoundStarted
from windfall.servicekit.testing.proxy import Proxy

ROUND_TRIP = timedelta(milliseconds=35)
BYTES_PER_S = 50e6
SITES = ("site-a", "site-b")
"""As many as the machine has cores: what sites take from each other is not what is measured."""


@dataclass(frozen=True)
class Duty:
    """Shares of the time between the opening of the second round and that of the one after the last."""

    shares: dict[str, float]
    """Of each site: in its engine's steps."""
    rounds: int
    steps: int
    """Of all sites."""
    bytes_up: float
    """Over the link, per site and round."""
    bytes_down: float

    @property
    def mean(self) -> float:
        return statistics.mean(self.shares.values())


async def duty(folder: Path, rounds: int, round_s: float) -> Duty:
    """Measure so many rounds after the first, in which sites download the model and everything is cold."""
    # One sample a step: a step that runs when the round ends is finished first, and the others wait for it.
    settings = told(
        "40 MB", ROUND_LENGTH=f"{round_s}", MICRO_BATCH="1", STRAGGLER_GRACE="60", MINIMUM_SITES=f"{len(SITES)}"
    )
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(folder, settings, SITES))
        ear = await stack.enter_async_context(listening(hub))
        started = await ear.on(RoundStarted)
        links = {}
        for site in SITES:
            link = links[site] = await stack.enter_async_context(Proxy(hub.address, ROUND_TRIP, BYTES_PER_S))
            trainer = Trainer(
                folder / site,
                hub,
                site,
                link.address,
                {"METER": str(folder / f"{site}.steps"), "WINDFALL_CHECKPOINT_EVERY": "600"},
                ("-m", "tests.bench.metered_trainer"),
            )
            await stack.enter_async_context(trainer)
            await trainer.start()
        openings: dict[int, float] = {}
        passed = (0, 0)
        while max(openings, default=0) <= rounds:
            async with asyncio.timeout(round_s + 180):
                word = await started.get()
            openings.setdefault(word.round, word.at.timestamp())
            if word.round == 1:
                passed = _passed(links.values())
        up, down = (after - before for after, before in zip(_passed(links.values()), passed, strict=True))
    begin, end = openings[1], openings[rounds + 1]
    spans = {site: _steps(folder / f"{site}.steps", begin, end) for site in SITES}
    each = len(SITES) * rounds
    return Duty(
        {site: sum(to - since for since, to in steps) / (end - begin) for site, steps in spans.items()},
        rounds,
        sum(map(len, spans.values())),
        up / each,
        down / each,
    )


def _steps(meter: Path, begin: float, end: float) -> list[tuple[float, float]]:
    """Steps, or their parts, between two instants."""
    lines = [line.split() for line in meter.read_text().splitlines()]
    steps = [(max(begin, float(since)), min(end, float(to))) for since, to in lines]
    return [(since, to) for since, to in steps if since < to]


def _passed(links: Iterable[Proxy]) -> tuple[int, int]:
    """Bytes up and down so far."""
    found = list(links)
    return sum(link.up.nbytes for link in found), sum(link.down.nbytes for link in found)
