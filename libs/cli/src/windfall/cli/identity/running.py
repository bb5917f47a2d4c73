"""Runs a hub or a site until it is told to stop: its processes come up in order, are kept, and end in order."""

import asyncio
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from windfall.cli.fleet import LOOPBACK, Program
from windfall.cli.identity import plans
from windfall.cli.identity.folders import HubFile, HubFolder
from windfall.cli.launch import Crew

_GOODBYE: Final = timedelta(seconds=20)
"""How long services may take to end: a trainer pushes what it has."""


def say(text: str) -> None:
    print(f"windfall: {text}", file=sys.stderr, flush=True)


async def run_site(server: Program, beside: Sequence[Program], services: Sequence[Program]) -> None:
    """The server, what keeps its certificates, the services.

    Raises:
        Mistake: one of them cannot be had.
    """
    stopping = _stopping()
    async with Crew(say) as crew:
        await _up(crew, stopping, server, *beside, *services)
        if not stopping.is_set():
            say("everything stands; end with Ctrl-C or SIGTERM")
            await _until(crew, stopping)
        say("ends")
        await crew.stop(services, _GOODBYE)
        await crew.stop((*beside, server), _GOODBYE)


async def run_hub(
    folder: HubFolder,
    hub: HubFile,
    server: Program,
    enrolment: Program,
    page: Program | None,
    settings: dict[str, str],
) -> None:
    """The server, enrolment, and the coordinator for the sites that are enrolled: with each one that comes or goes it
    is started anew, which its journal makes nobody else's business. The page follows events, which the coordinator's
    first start makes room for.

    Raises:
        Mistake: one of them cannot be had.
    """
    stopping, changed = _stopping(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, changed.set)
    async with Crew(say) as crew:
        # Enrolment writes what the server goes by.
        await _up(crew, stopping, enrolment, server)
        if not stopping.is_set():
            say(f"the hub stands; `windfall site token SITE --dir {folder.path}` lets a site join")
        running: Program | None = None
        seen = False
        while not stopping.is_set():
            changed.clear()
            sites = tuple(folder.sites.read_text(encoding="utf-8").split())
            lends = folder.lends.read_text(encoding="utf-8").split()
            owners = folder.owners.read_text(encoding="utf-8")
            wanted = plans.coordinator(folder, hub, sites, lends, owners, settings) if sites else None
            if wanted != running:
                if running is not None:
                    await crew.let_go(running, _GOODBYE)
                    if wanted is None:
                        say(f"no site is enrolled: {hub.federation} rests")
                running = wanted
                if wanted is not None:
                    await _up(crew, stopping, wanted)
                    say(f"{hub.federation} trains at {', '.join(sites)}")
                if wanted is not None and page is not None and not seen and not stopping.is_set():
                    await _up(crew, stopping, page)
                    seen = True
                    say(f"the page is at http://{LOOPBACK}:{page.port}/")
            await _until(crew, stopping, changed)
        say("ends")
        await crew.stop([*([running] if running else []), *([page] if page and seen else [])], _GOODBYE)
        await crew.stop((enrolment, server), _GOODBYE)


def _stopping() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


async def _up(crew: Crew, stopping: asyncio.Event, *programs: Program) -> None:
    """One after the other, until told to stop."""
    for program in programs:
        if stopping.is_set():
            return
        crew.start(program)
        standing = asyncio.create_task(crew.standing(program))
        stopped = asyncio.create_task(_set(stopping))
        try:
            await asyncio.wait((standing, stopped), return_when=asyncio.FIRST_COMPLETED)
            if standing.done():
                standing.result()
        finally:
            stopped.cancel()
            standing.cancel()
            await asyncio.gather(standing, stopped, return_exceptions=True)


async def _set(event: asyncio.Event) -> None:
    await event.wait()


async def _until(crew: Crew, *events: asyncio.Event) -> None:
    """Until one of these is set, or a process dies that will not be started again."""
    waits = [asyncio.create_task(_set(event)) for event in events]
    try:
        done, _ = await asyncio.wait((*waits, crew.gave_up), return_when=asyncio.FIRST_COMPLETED)
        if crew.gave_up in done:
            await crew.gave_up
    finally:
        for wait in waits:
            wait.cancel()
