"""Sites that die and come back, the end of a round, and a coordinator that is killed: real processes throughout."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from tests.bench.hub import FEDERATION, Hub
from tests.bench.rounds import MODELS, Site
from tests.bench.trainers import listening, trainers
from windfall.contracts.commands import FinishRound
from windfall.contracts.events import (
    ContributionAccepted,
    RoundCompleted,
    SiteJoined,
    SiteLeft,
    TrainingStarted,
)
from windfall.contracts.message import Message
from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.errors import Transient

M = TypeVar("M", bound=Message)
SITES = ("site-a", "site-b", "site-c")
_WITHIN_S = 180.0
_ASK_AGAIN_S = 0.02
_MULTIPLIES = """
import os, torch
os.nice(5)
torch.set_num_threads(1)
values = torch.rand(512, 512)
while True:
    values = (values @ values).clamp_(0, 1)
"""


@dataclass(frozen=True)
class Deaths:
    """Seconds, one per death."""

    seen: list[float]
    """From ``kill -9`` of a trainer to ``site.left`` on the hub's bus."""
    back: list[float]
    """From the start of the same site's next trainer process to ``site.joined``."""
    training: list[float]
    """And to ``training.started``: torch is loaded, the base is there, and its first step is done."""
    delivered: int
    """Of so many trainers that were sent SIGTERM in mid-round, partial work was merged."""
    terminated: int


def told(model: str, **settings: str) -> dict[str, str]:
    """A coordinator's settings."""
    return {"WINDFALL_TASK_SETTINGS": json.dumps(MODELS[model]), **{f"WINDFALL_{k}": v for k, v in settings.items()}}


async def deaths(folder: Path, times: int) -> Deaths:
    """Kill one of three trainers that train, start it again, and at the end ask each to drain."""
    # Rounds that nobody ends: what dies is in the middle of one.
    async with (
        Hub(folder, told("tiny", ROUND_LENGTH="3600"), SITES) as hub,
        listening(hub) as ear,
    ):
        joined, left = await ear.on(SiteJoined), await ear.on(SiteLeft)
        accepted = await ear.on(ContributionAccepted)
        async with trainers(folder / "sites", hub, SITES) as found, AsyncExitStack() as stack:
            started = [
                await (await stack.enter_async_context(listening(one))).on(TrainingStarted, one.site) for one in found
            ]
            for heard in started:
                await _soon(heard)
            _emptied(joined)
            seen, back, training = [], [], []
            for number in range(times):
                one = found[number % len(found)]
                await asyncio.sleep(0.3 * (number % 4))  # deaths fall anywhere between two heartbeats
                began = time.perf_counter()
                await one.kill()
                while (await _soon(left)).site != one.site:
                    pass
                seen.append(time.perf_counter() - began)
                began = time.perf_counter()
                await one.start()
                while (await _soon(joined)).site != one.site:
                    pass
                back.append(time.perf_counter() - began)
                await _soon(started[number % len(found)])
                training.append(time.perf_counter() - began)
            await asyncio.sleep(3)  # the last one to come back has trained a little
            _emptied(accepted)
            await asyncio.gather(*(one.drain() for one in found))
            partial = {event.site for event in _emptied(accepted) if event.partial}
        return Deaths(seen, back, training, len(partial), len(found))


async def ends(folder: Path, rounds: int) -> list[float]:
    """For each site and round: seconds from the word that the round is over to the site's contribution on the
    coordinator's disk, so more than it took to hear it."""
    settings = told("tiny", ROUND_LENGTH="1.0", STRAGGLER_GRACE="60")
    async with Hub(folder, settings, SITES) as hub, listening(hub) as ear:
        finish, accepted = await ear.on(FinishRound), await ear.on(ContributionAccepted)
        completed = await ear.on(RoundCompleted)
        async with trainers(folder / "sites", hub, SITES):
            for _ in range(rounds):
                await _soon(completed)
    said = {(word.site, word.round): word.at for word in _emptied(finish)}
    waits = [
        (one.at - said[one.site, one.round]).total_seconds()
        for one in _emptied(accepted)
        if (one.site, one.round) in said
    ]
    return waits[len(SITES) :]


@dataclass(frozen=True)
class Back:
    """A coordinator that was killed with -9 in mid-round and started again at once."""

    seconds: float
    """From its start to its first answer."""
    merged_s: float
    """From its start until the round that ran is merged, with what the last site says as soon as it is answered."""
    same_round: bool
    same_digest: bool
    """After the round, as in an uninterrupted one."""
    kept: bool
    """What had been accepted before counts without being sent again."""


async def back(folder: Path, model: str = "40 MB") -> Back:
    """Two of three sites have delivered when it is killed; the third delivers afterwards."""
    torch.set_num_threads(1)
    digest = await _one_round(folder / "sound", model)
    (folder / "killed").mkdir()
    async with Hub(
        folder / "killed", told(model, ROUND_LENGTH="3600", ROUND_STEPS="1", CODEC="fp32", MINIMUM_SITES="3")
    ) as hub:
        sites, word, spoken = await _joined(hub)
        await asyncio.gather(*(site.round(word, data) for site, data in zip(sites[:2], spoken, strict=False)))
        await hub.kill()
        began = time.perf_counter()
        await hub.start()
        keys = [
            pb.ContributionKey(federation=FEDERATION, site=site.name, round=word.round, attempt=1) for site in sites[:2]
        ]
        kept = [await _answer(site, key) for site, key in zip(sites, keys, strict=False)]
        seconds = time.perf_counter() - began
        await sites[2].round(word, spoken[2])
        after = await asyncio.wait_for(sites[2].opened.get(), _WITHIN_S)
        while after.round == word.round:  # said again when its stream is open again
            after = await asyncio.wait_for(sites[2].opened.get(), _WITHIN_S)
        merged_s = time.perf_counter() - began
        for site in sites:
            await site.close()
        return Back(seconds, merged_s, after.round == word.round + 1, after.base_digest == digest, all(kept))


@asynccontextmanager
async def training_beside(count: int) -> AsyncIterator[None]:
    """So many processes that multiply as trainers do, each on one core and niced as a site's trainer is."""
    busy = [await asyncio.create_subprocess_exec(sys.executable, "-c", _MULTIPLIES) for _ in range(count)]
    try:
        yield
    finally:
        for one in busy:
            one.kill()
            await one.wait()


async def _one_round(folder: Path, model: str) -> str:
    folder.mkdir()
    async with Hub(folder, told(model, ROUND_LENGTH="3600", ROUND_STEPS="1", CODEC="fp32", MINIMUM_SITES="3")) as hub:
        sites, word, spoken = await _joined(hub)
        await asyncio.gather(*(site.round(word, data) for site, data in zip(sites, spoken, strict=True)))
        after = await asyncio.wait_for(sites[0].opened.get(), _WITHIN_S)
        for site in sites:
            await site.close()
        return after.base_digest


async def _joined(hub: Hub) -> tuple[list[Site], pb.RoundOpened, list[bytes]]:
    sites = [Site(name, hub.address) for name in SITES]
    for site in sites:
        membership = await site.join()
    words = [await asyncio.wait_for(site.opened.get(), _WITHIN_S) for site in sites]
    generator = torch.Generator().manual_seed(7)
    gradients = [torch.randn(membership.layout.elements, generator=generator).mul_(1e-3) for _ in sites]
    return sites, words[0], [site.speak(words[0].round, one) for site, one in zip(sites, gradients, strict=True)]


async def _answer(site: Site, key: pb.ContributionKey) -> bool:
    """Whether a contribution counts, from the first coordinator that answers."""
    async with asyncio.timeout(_WITHIN_S):
        while True:
            try:
                return await site.link.accepted(key.round, key.attempt)
            except Transient:
                await asyncio.sleep(_ASK_AGAIN_S)


async def _soon(heard: "asyncio.Queue[M]") -> M:
    async with asyncio.timeout(_WITHIN_S):
        return await heard.get()


def _emptied(heard: "asyncio.Queue[M]") -> list[M]:
    return [heard.get_nowait() for _ in range(heard.qsize())]
