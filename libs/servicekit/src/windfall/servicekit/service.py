"""Puts a service together and keeps it standing until it is told to stop.

A service's ``__main__`` names its settings, its streams and an ``attend`` that registers handlers and starts its loops;
everything else is the same for all five.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar

import windfall.servicekit.websockets_later  # noqa: F401 -- before nats-py
from windfall.contracts.subjects import StreamSpec, log_asked
from windfall.servicekit import crashpoint, logs, metrics, telemetry
from windfall.servicekit.bus import Bus
from windfall.servicekit.clock import Clock, parse_clock
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.health import Health
from windfall.servicekit.journal import Journal
from windfall.servicekit.leadership import Leadership
from windfall.servicekit.log_answers import LogAnswers
from windfall.servicekit.log_ring import LogRing
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.settings import Settings, load
from windfall.servicekit.standby import StandbySettings, before, turn

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)

_LAST_MOMENT_S: Final = 2.0


@dataclass
class Stand:
    """What a service stands on. The same on a real machine and in a fleet on virtual time."""

    service: str
    whom: str
    clock: Clock
    journal: Journal
    bus: Bus
    outbox: Outbox
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the service should come to an end."""
    risen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it hears and says: what takes long and nobody waits for may begin."""
    mistake: Mistake | None = None
    term: int = 0
    """Fencing token under which this process leads; 0 where there is nothing to lead."""
    _tasks: dict[asyncio.Task[None], None] = field(default_factory=dict)
    # A dictionary and not a set: what is cut is cut in the order in which it began, the same way every time.

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run a loop of the service; if it breaks, the service ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._finished)
        return task

    def fail(self, mistake: Mistake) -> None:
        """End the service: a person must mend something."""
        self.mistake = self.mistake or mistake
        self.stopping.set()

    async def rise(self) -> None:
        """Start to hear and to say."""
        await self.bus.start()
        self.spawn(self.outbox.run(), "outbox")
        self.risen.set()

    async def lie_down(self) -> None:
        """Stop hearing, finish what is in hand. What is unsaid stays in the journal for the next start."""
        await self.bus.stop()
        await self.cut()
        self.journal.close()

    async def cut(self) -> None:
        """End every loop at once, as a crash would."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Mistake):
            self.fail(error)
            return
        log.critical("%s broke", task.get_name(), exc_info=error)
        self.fail(Mistake(f"{task.get_name()} broke: {error!r}", "See the log above", ExitCode.FAILED))


Attend = Callable[[S, Stand], AbstractAsyncContextManager[None]]
"""Registers handlers before it yields, and ends what it began afterwards."""


def run(
    service: str,
    kind: type[S],
    whom: Callable[[S], str],
    streams: Callable[[S], Sequence[StreamSpec]],
    attend: Attend[S],
    crash_points: Mapping[str, str] | None = None,
    warm: Callable[[], None] | None = None,
) -> NoReturn:
    """Run a service until SIGTERM or SIGINT; the whole of a composition root.

    Args:
        service: the one name of the service.
        kind: its settings.
        whom: the site or federation that it serves.
        streams: what its domain must have.
        attend: puts handlers and loops on the stand.
        crash_points: where a rehearsal may let it die (see :mod:`windfall.servicekit.crashpoint`).
        warm: loads what the work needs and the start does not, in a thread, while another process leads.
    """
    code = ExitCode.OK
    # What was imported stays for good: no collection need look at it while somebody waits for an answer.
    gc.freeze()
    try:
        crashpoint.arm(os.environ.get(crashpoint.VARIABLE, ""), crash_points or {})
        logs.to_stderr(service, os.environ)
        ring = LogRing()
        logging.getLogger().addHandler(ring)
        settings = load(kind, _without_process_variables(kind, os.environ))
        telemetry.set_up(service, whom(settings), settings.traces_file)
        metrics.set_up(service, whom(settings), folder=settings.state_dir)
        asyncio.run(_stand(service, settings, whom(settings), _possible(streams, settings), attend, ring, warm))
    except Mistake as mistake:
        sys.stderr.write(f"windfall {service}: {mistake}\n")
        code = mistake.exit_code
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    finally:
        _flush()
    # Everything is closed and flushed. Python would now take modules apart, which with torch takes most of a second
    # that a draining site pays for in dirty power.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _flush() -> None:
    """Send what telemetry still holds. A collector that is away must not keep a draining site waiting."""

    def flushed() -> None:
        metrics.tear_down()
        telemetry.tear_down()

    flushing = threading.Thread(target=flushed, name="flush", daemon=True)
    flushing.start()
    flushing.join(_LAST_MOMENT_S)


def _possible(streams: Callable[[S], Sequence[StreamSpec]], settings: S) -> Sequence[StreamSpec]:
    try:
        return streams(settings)
    except ValueError as error:
        raise Mistake(f"settings are wrong: {error}", "Set these variables and start again") from error


def _without_process_variables(kind: type[Settings], environ: "os._Environ[str]") -> dict[str, str]:
    return {key: value for key, value in environ.items() if key.removeprefix("WINDFALL_").lower() in kind.model_fields}


async def _stand(
    service: str,
    settings: S,
    whom: str,
    streams: Sequence[StreamSpec],
    attend: Attend[S],
    ring: LogRing,
    warm: Callable[[], None] | None,
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    alone = not isinstance(settings, StandbySettings) or not settings.standby
    name = "health.json" if alone else f"health-{os.getpid()}.json"
    health = Health(settings.health_port, settings.state_dir, _not_yet, name)
    health.beat()

    def stand_by(holder: str) -> None:
        health.stand_by(holder)
        if warm is not None:
            threading.Thread(target=warm, name="warm", daemon=True).start()

    try:
        async with AsyncExitStack() as stack:
            leadership = None
            if isinstance(settings, StandbySettings):
                waiting = turn(
                    settings,
                    settings.nats_url,
                    settings.state_dir,
                    f"{service}.{whom}",
                    stand_by,
                    settings.nats_access.of(service),
                    settings.nats_replicas,
                )
                leading = loop.create_task(stack.enter_async_context(waiting))
                if not await before(leading, stopping):
                    return
                leadership = leading.result()
                health.standing_by = False
            await _work(service, settings, whom, streams, attend, stopping, health, leadership, ring)
    finally:
        health.close()


async def _work(
    service: str,
    settings: S,
    whom: str,
    streams: Sequence[StreamSpec],
    attend: Attend[S],
    stopping: asyncio.Event,
    health: Health,
    leadership: Leadership | None,
    ring: LogRing,
) -> None:
    path, source = settings.state_dir / f"{service}.sqlite", f"/windfall/{service}/{whom}"
    journal = Journal(path, source, shared=leadership is not None)
    stand: Stand

    def fail(mistake: Mistake) -> None:
        stand.fail(mistake)

    def store_lost() -> None:
        stand.outbox.recheck()

    access, replicas = settings.nats_access.of(service), settings.nats_replicas
    bus = NatsBus(settings.nats_url, service, streams, fail, store_lost, access=access, replicas=replicas)
    outbox = Outbox(journal, bus)
    stand = Stand(service, whom, parse_clock(settings.clock), journal, bus, outbox, stopping)
    answers = LogAnswers(ring, service, whom, bus.tell)
    bus.asked(log_asked(service), answers.hear)
    stand.spawn(answers.run(), "log answers")
    try:
        if leadership is not None:
            stand.term = await leadership.outbid(journal.fenced_at)
            journal.fence(stand.term)
            stand.spawn(leadership.keep(), "lease")
        health.lacking = lambda: _lacking(bus, journal)
        async with attend(settings, stand):
            rising = asyncio.create_task(stand.rise())
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait([rising, stopped], return_when=asyncio.FIRST_COMPLETED)
            if rising.done():
                rising.result()
                log.info("%s stands for %s", service, whom)
                await stopped
        await _last_words(stand, rising)
    finally:
        health.lacking = _not_yet
        await stand.lie_down()
    if stand.mistake is not None:
        raise stand.mistake


def _not_yet() -> str:
    return "it does not stand"


def _lacking(bus: Bus, journal: Journal) -> str:
    """What keeps the service from doing its work."""
    if not bus.ready:
        return "the bus is away, or streams or consumers are missing"
    return journal.trouble()


async def _last_words(stand: Stand, rising: asyncio.Task[None]) -> None:
    """Give the outbox a moment, and the bus as well if it is not there yet: a service may be told what ends it by the
    first word that it hears. What cannot be said now waits in the journal."""
    try:
        if rising.done() or stand.journal.unsaid(1):
            async with asyncio.timeout(_LAST_MOMENT_S):
                await asyncio.wait([rising])
                stand.outbox.wake()
                await stand.outbox.emptied()
    except TimeoutError:
        log.info("some words wait in the journal for the next start")
    rising.cancel()
    await asyncio.wait([rising])
