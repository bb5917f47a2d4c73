"""Starts a fleet's processes, keeps them, and leaves none behind.

Nothing survives the command, however it ends: every process leads a group of its own, the kernel tells it when we die
(``PR_SET_PDEATHSIG``), and what a dead service leaves (a trainer of a killed provisioner) comes to us to be reaped
(``PR_SET_CHILD_SUBREAPER``, see prctl(2)). Linux only.
"""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from windfall.cli.fleet import LOOPBACK, Program
from windfall.servicekit.errors import ExitCode, Mistake

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_LOOK_EVERY_S: Final = 0.05
_READY_WITHIN: Final = timedelta(minutes=3)
"""A machine that is busy takes a minute to load torch for several processes at once; whoever dies is told at once."""
_RESTARTS: Final = 5
"""How often one program may die in a run after it stood before the run is given up."""
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@dataclass
class Running:
    """One process of the fleet."""

    program: Program
    process: subprocess.Popen[bytes]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stood: bool = False
    """It was ready once."""


class Crew:
    """The processes of one fleet. Use it in the main thread: a parent's death is told for the thread that forked."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._running: dict[str, Running] = {}
        self._restarts: dict[str, int] = {}
        self._stood: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._stopping = False
        self._leaving: set[str] = set()
        self._restarting: set[asyncio.Task[None]] = set()
        self.gave_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with the Mistake of a program that died and will not be started again."""
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._reap)

    async def __aenter__(self) -> "Crew":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end_all()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)
        if self.gave_up.done():
            self.gave_up.exception()

    def start(self, program: Program) -> None:
        """Start one process; its death before it stood, or too often, ends the run.

        Raises:
            Mistake: its folder or log cannot be written, or there is no such program.
        """
        try:
            program.folder.mkdir(parents=True, exist_ok=True)
            program.log.parent.mkdir(parents=True, exist_ok=True)
            (program.folder / "health.json").unlink(missing_ok=True)
            with program.log.open("ab") as log:
                process = subprocess.Popen(
                    program.argv,
                    cwd=program.folder,
                    env=_environment(program.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                    preexec_fn=partial(_born, program.nice),  # safe: the command has one thread when it forks
                )
        except OSError as error:
            raise Mistake(
                f"cannot start {program.name} ({error.strerror}: {error.filename})",
                "Check that the run folder can be written and has room",
                ExitCode.RESOURCE,
            ) from error
        self._running[program.name] = Running(program, process)

    async def stand(self, programs: Iterable[Program]) -> None:
        """Start these, in this order, a few more at a time than there are cores: each next one when one stands."""
        seats = asyncio.Semaphore(1 + max(2, os.cpu_count() or 2))

        async def seat(program: Program) -> None:
            if program.after is not None:
                await self._stood[program.after].wait()
            async with seats:
                if not self._stopping:
                    self.start(program)
                    await self.standing(program)

        await asyncio.gather(*(seat(program) for program in programs))

    async def standing(self, program: Program) -> None:
        """Wait until a process is ready, or the run is given up.

        Raises:
            Mistake: it is not ready in time.
        """
        deadline = time.monotonic() + _READY_WITHIN.total_seconds()
        while not await _ready(self._running[program.name]):
            if self._stopping:
                return
            if self.gave_up.done():
                await self.gave_up
            if time.monotonic() > deadline:
                raise Mistake(
                    f"{program.name} is not ready in {_READY_WITHIN.total_seconds():.0f} s: {last_line(program.log)}",
                    f"See {program.log}",
                    ExitCode.FAILED,
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._running[program.name].ended.wait()
        self._running[program.name].stood = True
        self._stood[program.name].set()

    @property
    def started_again(self) -> Mapping[str, int]:
        """How often each program died and was started again, by its name."""
        return dict(self._restarts)

    def pid_of(self, program: Program) -> int:
        """Process id of a program as it runs now."""
        return self._running[program.name].process.pid

    async def stop(self, programs: Iterable[Program], within: timedelta) -> None:
        """Ask these to end, all at once, and end those that do not in time."""
        self._stopping = True
        await self._asked_to_end(programs, within)

    async def let_go(self, program: Program, within: timedelta) -> None:
        """The same for one of them, while the others go on."""
        self._leaving.add(program.name)
        try:
            await self._asked_to_end((program,), within)
        finally:
            self._leaving.discard(program.name)

    async def _asked_to_end(self, programs: Iterable[Program], within: timedelta) -> None:
        asked = [self._running[program.name] for program in programs if program.name in self._running]
        for running in asked:
            _signal_group(running.process, signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                for running in asked:
                    await running.ended.wait()
        for running in asked:
            if not running.ended.is_set():
                self._tell(f"{running.program.name} did not end in {within.total_seconds():.0f} s and was killed")
                _signal_group(running.process, signal.SIGKILL)
                await running.ended.wait()

    async def end_all(self) -> None:
        """Leave nothing: whatever still runs is killed, and so is whatever it had started, however deep."""
        self._stopping = True
        for task in self._restarting:
            task.cancel()
        while children := _children(os.getpid()):
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # The dead are reaped by SIGCHLD, and their children come to us for the next turn.
            await asyncio.sleep(_LOOK_EVERY_S)
            self._reap()

    def _reap(self) -> None:
        """Take leave of the dead: ours, and those that a dead service left to us."""
        for running in list(self._running.values()):
            if not running.ended.is_set() and running.process.poll() is not None:
                running.ended.set()
                self._ended(running)
        ours = {running.process.pid for running in self._running.values()}
        for pid in _children(os.getpid()) - ours:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)

    def _ended(self, running: Running) -> None:
        if self._stopping or self._running.get(running.program.name) is not running:
            return
        if running.program.name in self._leaving:
            return
        name, code = running.program.name, running.process.returncode
        self._restarts[name] = self._restarts.get(name, 0) + 1
        if running.stood and self._restarts[name] <= _RESTARTS and (code < 0 or code == ExitCode.SERVER):
            self._tell(f"{name} died ({_how(code)}) and is started again")
            task = asyncio.ensure_future(self._restart(running.program))
            self._restarting.add(task)
            task.add_done_callback(self._restarting.discard)
        elif not self.gave_up.done():
            self.gave_up.set_exception(
                Mistake(
                    f"{name} ended early ({_how(code)}): {last_line(running.program.log)}",
                    f"Mend that and start again; its log is {running.program.log}",
                    _exit_code(code),
                )
            )

    async def _restart(self, program: Program) -> None:
        try:
            self.start(program)
            await self.standing(program)
        except Mistake as mistake:
            if not self.gave_up.done():
                self.gave_up.set_exception(mistake)


def last_line(log: Path) -> str:
    """The last thing that a process said."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return lines[-1].strip() if lines else "it said nothing"


def _born(nice: int) -> None:
    """Runs in the child before its program does: it is to end when we do, however we end."""
    os.nice(nice)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """Ours without our own settings, which are the person's and not the service's, and with what is given."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WINDFALL_")}
    kept = {key: os.environ[key] for key in ("WINDFALL_LOG_LEVEL", "WINDFALL_LOG_FORMAT") if key in os.environ}
    # They are many on one machine: where Prometheus asks them, each takes a free port and writes it down.
    return {**inherited, "OTEL_EXPORTER_PROMETHEUS_PORT": "0", **kept, **given}


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        # It may have ended in this moment.
        os.killpg(process.pid, number)


def _children(pid: int) -> set[int]:
    """Direct children of a process, from /proc (proc(5), field 4 of stat); the dead that wait to be reaped included."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                # It may be gone by now.
                if _parent(entry) == pid:
                    found.add(int(entry.name))
    return found


def _parent(entry: Path) -> int:
    # The command's name stands in parentheses and may hold spaces and parentheses of its own.
    return int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])


async def _ready(running: Running) -> bool:
    if running.program.port is not None:
        return await _answers(running.program.port, None)
    try:
        health = json.loads((running.program.folder / "health.json").read_text())
    except (OSError, ValueError):
        return False
    return health["pid"] == running.process.pid and await _answers(health["port"], "/readyz")


async def _answers(port: int, path: str | None) -> bool:
    """Whether a loopback port accepts, and says that it is fine when it is asked for a path."""
    try:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        try:
            if path is None:
                return True
            writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return b" 200 " in await reader.readline()
        finally:
            writer.close()
            await writer.wait_closed()
    except OSError:
        return False


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _exit_code(code: int) -> ExitCode:
    """A service's own documented code is the command's; anything else is a failure."""
    return ExitCode(code) if code in set(ExitCode) - {ExitCode.OK} else ExitCode.FAILED
