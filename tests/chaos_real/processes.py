"""Processes that are killed, stopped and started again at will, and that end with whoever started them."""

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from windfall.cli.fleet import LOOPBACK, Program

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LOOK_S: Final = 0.05
_AGAIN_AFTER_S: Final = 0.5
"""Before one that did not even stand is started again."""
STANDS_WITHIN_S: Final = 120.0


class Part:
    """One program of a fleet. Whenever it ends it is started again at once, as by systemd or a kubelet, until it is
    held."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.deaths: list[int] = []
        """How it ended, each time: an exit code, or the negative number of a signal."""
        self._process: subprocess.Popen[bytes] | None = None
        self._held = True
        self._ended = asyncio.Event()
        self._next: dict[str, str] = {}
        self._again: asyncio.TimerHandle | None = None
        self._stood = False

    @property
    def name(self) -> str:
        return self.program.name

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self, told: Mapping[str, str] | None = None) -> None:
        """Let it run, told this beside what it is always told; the start after that knows nothing of it."""
        self._held = False
        self._next = dict(told or {})
        self._born()

    def become(self, environ: Mapping[str, str]) -> None:
        """Be told this as well from the next start on."""
        self.program = replace(self.program, environ={**self.program.environ, **environ})

    def send(self, number: int) -> None:
        """Send it a signal, if it lives."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    async def kill(self, told: Mapping[str, str] | None = None) -> None:
        """``kill -9``; it comes again at once, told this once."""
        self._next = dict(told or {})
        self.send(signal.SIGKILL)
        await self.died(len(self.deaths) + 1)

    async def hold(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, and do not start it again."""
        self._held = True
        if self._again is not None:
            self._again.cancel()
        if self._process is not None and self._process.returncode is None:
            self.send(signal.SIGCONT)
            self.send(number)
            await self.died(len(self.deaths) + 1)

    async def died(self, times: int) -> None:
        """Wait until it has died so many times."""
        while len(self.deaths) < times:
            self._ended.clear()
            await self._ended.wait()

    async def stands(self, within_s: float = STANDS_WITHIN_S) -> None:
        """Wait until it can do its work.

        Raises:
            TimeoutError: it cannot, in time.
        """
        await eventually(self.ready, within_s)
        self._stood = True

    async def lacks(self) -> bool:
        """Whether it can not."""
        return not await self.ready()

    async def ready(self) -> bool:
        """Whether it can do its work now."""
        if self._process is None or self._process.returncode is not None:
            return False
        if self.program.port is not None:
            return await answers(self.program.port, None)
        try:
            health = json.loads((self.program.folder / "health.json").read_text())
        except (OSError, ValueError):
            return False
        return health["pid"] == self.pid and await answers(health["port"], "/readyz")

    def _born(self) -> None:
        program, told = self.program, self._next
        self._next, self._stood = {}, False
        program.folder.mkdir(parents=True, exist_ok=True)
        program.log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("WINDFALL_")}
        with program.log.open("ab") as log:
            self._process = subprocess.Popen(
                program.argv,
                cwd=program.folder,
                env={**inherited, **program.environ, **told},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                preexec_fn=partial(_in_the_child, program.nice),  # safe: the runner has one thread
            )
        pidfd = os.pidfd_open(self._process.pid)
        asyncio.get_running_loop().add_reader(pidfd, self._over, pidfd, self._process, time.monotonic())

    def _over(self, pidfd: int, process: subprocess.Popen[bytes], since: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(pidfd)
        os.close(pidfd)
        self.deaths.append(process.wait())
        self._ended.set()
        if not self._held:
            pause = 0.0 if self._stood or time.monotonic() - since > _AGAIN_AFTER_S else _AGAIN_AFTER_S
            self._again = loop.call_later(pause, self._born_again)

    def _born_again(self) -> None:
        if not self._held:
            self._born()


async def eventually(fine: Callable[[], Awaitable[bool]], within_s: float) -> None:
    """Wait until something holds of which nobody tells.

    Raises:
        TimeoutError: it does not, in time.
    """
    async with asyncio.timeout(within_s):
        while True:
            if await fine():
                return
            await asyncio.sleep(_LOOK_S)


async def answers(port: int, path: str | None) -> bool:
    """Whether a loopback port accepts, and says that it is fine when it is asked for a path."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                if path is None:
                    return True
                writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, TimeoutError):
        return False


def belonging_to(folder: Path) -> Iterator[tuple[int, str]]:
    """Processes whose environment or command line names a folder, and that are no zombies: pid and command line."""
    named = str(folder).encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            command = (entry / "cmdline").read_bytes()
            if command and (named in command or named in (entry / "environ").read_bytes()):
                yield int(entry.name), command.replace(b"\0", b" ").decode(errors="replace").strip()


def ancestors(pid: int) -> Iterator[int]:
    """A process, its parent, and so on, as far as they live (proc(5), field 4 of stat)."""
    with suppress(OSError):
        while pid:
            yield pid
            pid = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])


def end_all(folder: Path) -> None:
    """Leave nothing of a fleet."""
    while found := list(belonging_to(folder)):
        for pid, _ in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_LOOK_S)


def _in_the_child(nice: int) -> None:
    """It ends when the runner does, however that ends."""
    os.nice(nice)
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
