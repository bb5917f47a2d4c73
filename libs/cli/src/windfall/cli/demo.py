"""``windfall demo``: a day of three sites in a minute and a half, then what it came to; and ``windfall run``: the same
fleet, for an app of one's own."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from nats.aio.client import Client
from rich.console import Console

from windfall.cli.audience import Audience
from windfall.cli.counting import counted
from windfall.cli.events import SOURCE
from windfall.cli.fleet import LOOPBACK, Plan, Program, plan, server_program
from windfall.cli.launch import Crew
from windfall.cli.live import Lanes, Plain, View
from windfall.cli.preparation import Asked, Prepared, furnish, ports, prepare
from windfall.cli.recording import Said
from windfall.cli.server import connection, declared, store
from windfall.cli.stretch import stretched
from windfall.cli.watch import fleet
from windfall.contracts.commands import StopFederation
from windfall.contracts.envelope import seal
from windfall.contracts.subjects import HUB
from windfall.servicekit.clock import Clock
from windfall.servicekit.natsserver import find_binary, render

if TYPE_CHECKING:
    from windfall.cli.harvest import Harvest

T = TypeVar("T")
_BEAT_S: Final = 0.25
_LAST_WINDOW: Final = timedelta(seconds=8)
"""How long the last windows may take to close, beyond the time for a drain. A trace may end within one."""
_GOODBYE: Final = timedelta(seconds=30)
"""How long services may take to end. All of these are for a machine that is busy: nobody else takes seconds."""
_LAST_ROUND: Final = timedelta(seconds=60)
"""How long the coordinator may take to finish the running round and write the model."""
_NEWS: Final = 1.25
"""A day that is longer by less than this needs no excuse."""
_ASKED_AGAIN_S: Final = 1.0
"""How long a cancelled task may take before it is cancelled again."""
_RECONCILE: Final = timedelta(seconds=60)
"""How long the sites' last events may take to reach the hub."""


def run(asked: Asked, *, plain: bool, everything: bool, commanded_at: datetime, page: bool = False) -> "Harvest":
    """The whole command; leaves nothing running, however it ends.

    Args:
        page: whether the live page is served beside it.

    Raises:
        Mistake: it cannot be done; one line says why.
        asyncio.CancelledError: the person, or whoever runs this, asked it to stop.
    """
    prepared = prepare(asked, commanded_at.astimezone())
    return asyncio.run(_run(prepared, asked.port, plain, everything, commanded_at, page))


async def _run(
    prepared: Prepared, port: int | None, plain: bool, everything: bool, commanded_at: datetime, page: bool
) -> "Harvest":
    _cancel_on_signals()
    times = await stretched()
    wish = replace(prepared.wish, pace=prepared.wish.pace.stretched(times))
    prepared = replace(prepared, wish=wish)
    chosen = plan(wish, datetime.now(UTC) + wish.pace.head_start, ports(port))
    furnish(chosen)
    with _view(chosen, plain, everything) as view:
        view.say(
            f"{counted(len(wish.sites), 'sites')}, one hub, {len(chosen.programs)} services; run folder {wish.folder}"
        )
        if times > _NEWS:
            view.say(f"this machine is slow or busy: the day takes {times:.1f} times as long")
        view.say(f"the hub speaks NATS at {chosen.hub_url}: try `windfall events tail --server {chosen.hub_url}`")
        if wish.flower is None:
            view.say(f"and hands out models: try `windfall checkpoint list --coordinator {chosen.coordinator}`")
        async with Crew(view.say) as crew:
            said, ended = await _story(chosen, crew, view, page)
            started_again = crew.started_again
        view.say("everything has ended; writing the report")
    # Loaded only now: what draws pictures is a second of start-up that the first window should not wait for.
    from windfall.cli.harvest import gather_in

    return gather_in(prepared, chosen, said, commanded_at, datetime.now(UTC), started_again, ended)


async def _story(chosen: Plan, crew: Crew, view: View, page: bool) -> tuple[Sequence[Said], bool]:
    """Begin with the servers, end with them; what happens between is what the hub has heard.

    Returns:
        That, and whether what was asked for came to its end: an app may take longer than the trace.
    """
    servers = _servers(chosen)
    for server in servers:
        crew.start(server)
    await _guarded(_all(crew.standing(server) for server in servers), crew.gave_up)
    await _guarded(declared(chosen.servers), crew.gave_up)
    audience = Audience(fleet(chosen.wish.sites, chosen.clock.speed), view)
    async with connection(chosen.hub_url) as hub, AsyncExitStack() as beside:
        followed = [await beside.enter_async_context(_page(chosen, hub, view))] if page else []
        ended = await _guarded(
            _day(chosen, crew, view, audience, hub),
            crew.gave_up,
            *followed,
            asyncio.ensure_future(audience.listen(hub)),
            asyncio.ensure_future(crew.stand(chosen.programs)),
            asyncio.ensure_future(_beat(view, chosen.clock)),
        )
    await crew.stop(servers, _GOODBYE)
    return audience.said, ended


@asynccontextmanager
async def _page(chosen: Plan, hub: Client, view: View) -> AsyncIterator[asyncio.Future[None]]:
    """The live page for as long as the demo runs."""
    from windfall.cli.web.listening import Door
    from windfall.cli.web.serving import page

    async with page(hub, Door(LOOPBACK, 0), now=lambda: (chosen.clock.now(), chosen.clock.speed)) as (
        address,
        following,
    ):
        view.say(f"the live page: {address}")
        yield following


async def _day(chosen: Plan, crew: Crew, view: View, audience: Audience, hub: Client) -> bool:
    """The replay, and an orderly end: the last window, the last round, the services of the sites, the coordinator.

    Returns:
        Whether an app had come to its end when the replay did; a day of our own always has.
    """
    clock, end = chosen.clock, chosen.wish.trace_end
    if chosen.wish.flower is None:
        await clock.sleep_until(end)
    elif await audience.until(lambda: audience.fleet.finished, clock.wall(end - clock.now())):
        view.say("the app has come to its end")
    ended = chosen.wish.flower is None or audience.fleet.finished
    over = audience.all_released if audience.fleet.finished else audience.all_dark
    await audience.until(over, chosen.wish.pace.drain + _LAST_WINDOW)
    order = StopFederation(
        id=uuid4(), at=chosen.clock.now(), federation=chosen.wish.federation, reason="the replay is over"
    )
    await store(hub, seal(order, SOURCE))
    if not await audience.until(lambda: audience.fleet.finished, _LAST_ROUND):
        view.say(f"the coordinator did not say in {_LAST_ROUND.total_seconds():.0f} s that it has finished")
    # Profilers stand back behind whatever trains: on a busy machine they come to their first word only now.
    if not await audience.until(audience.all_measured, _LAST_ROUND):
        view.say("not every node was measured: the report lacks what it is worth")
    await crew.stop((*chosen.named("energy-watcher"), *chosen.named("profiler")), _GOODBYE)
    await crew.stop(chosen.named("provisioner"), _GOODBYE)
    sites = tuple(server.url for server in chosen.servers if server.domain != HUB)
    if not await audience.reconciled(hub, sites, _RECONCILE):
        view.say("some of the sites' last events have not reached the hub: the report lacks them")
    await crew.stop(chosen.named("federation-coordinator"), _GOODBYE)
    return ended


def _servers(chosen: Plan) -> tuple[Program, ...]:
    """Write the configuration of each server; the programs that run them."""
    binary = find_binary()
    programs = []
    for server in chosen.servers:
        config = server.store.parent / "nats.conf"
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(render(server), encoding="utf-8")
        programs.append(server_program(server, config, binary, chosen.wish.folder))
    return tuple(programs)


async def _guarded(story: Coroutine[Any, Any, T], *companions: asyncio.Future[None]) -> T:
    """Live through the story; what breaks beside it breaks it, and what runs beside it ends with it."""
    telling = asyncio.ensure_future(story)
    waiting: set[asyncio.Future[Any]] = {telling, *companions}
    try:
        while not telling.done():
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                ended.result()
        return telling.result()
    finally:
        tasks = [future for future in (telling, *companions) if isinstance(future, asyncio.Task)]
        await _ended(tasks)
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel these until they have ended.

    Before Python 3.12 ``asyncio.wait_for``, on which the NATS client stands, loses a cancellation to an answer that
    comes in the same moment; asked once, such a task would be waited for for ever.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_ASKED_AGAIN_S)


async def _all(waits: Iterable[Coroutine[Any, Any, None]]) -> None:
    await asyncio.gather(*waits)


async def _beat(view: View, clock: Clock) -> None:
    while True:
        view.beat(clock.now())
        await asyncio.sleep(_BEAT_S)


def _view(chosen: Plan, plain: bool, everything: bool) -> View:
    console = Console(stderr=True)
    if plain or everything or not console.is_terminal:
        return Plain(_printed, everything)
    empty = fleet(chosen.wish.sites, chosen.clock.speed)
    return Lanes(console, empty, chosen.wish.trace_start, chosen.wish.trace_end)


def _printed(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _cancel_on_signals() -> None:
    """The first of these ends the run in order; more of them change nothing, so that the order is kept."""
    task = asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, cancel)
