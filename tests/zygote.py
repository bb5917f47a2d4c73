"""A process that has imported two services once, and forks a ready one whenever it is asked to.

Run as a script it reads one JSON object a line, ``{"service", "environ", "log"}``, and answers ``{"pid"}``; when a
child ends it says ``{"ended", "status"}``. :class:`Zygote` is the other end.
"""

import asyncio
import json
import os
import select
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Child:
    """A service's process."""

    pid: int
    ended: "asyncio.Future[int]"
    """How: 0 and up is an exit code, -9 the signal."""
    log: Path

    def signal(self, number: int) -> None:
        if not self.ended.done():
            os.kill(self.pid, number)


class Zygote:
    """Starts services in milliseconds, as processes of their own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._started: asyncio.Queue[int] = asyncio.Queue()
        self._children: dict[int, Child] = {}
        self._early: dict[int, int] = {}

    async def start(self, service: str, environ: Mapping[str, str], log: Path) -> Child:
        assert self._process.stdin is not None
        self._process.stdin.write(
            json.dumps({"service": service, "environ": dict(environ), "log": str(log)}).encode() + b"\n"
        )
        pid = await self._started.get()
        child = self._children[pid] = Child(pid, asyncio.get_running_loop().create_future(), log)
        if pid in self._early:
            child.ended.set_result(self._early.pop(pid))
        return child

    async def listen(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            said = json.loads(line)
            if "pid" in said:
                self._started.put_nowait(said["pid"])
            elif (child := self._children.get(said["ended"])) is not None:
                if not child.ended.done():
                    child.ended.set_result(said["status"])
            else:
                self._early[said["ended"]] = said["status"]


@asynccontextmanager
async def zygote() -> AsyncIterator[Zygote]:
    """One that runs; its children end with it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    made = Zygote(process)
    listening = asyncio.create_task(made.listen())
    try:
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await listening


def _serve() -> None:
    import signal

    import torch

    from windfall.federation_coordinator.__main__ import main as coordinator
    from windfall.site_trainer.__main__ import main as trainer
    from windfall.tasks.registry import load_task

    torch.set_num_threads(1)
    load_task("gpt-neox", "{}")
    services = {"federation-coordinator": coordinator, "site-trainer": trainer}
    children: dict[int, int] = {}
    waiting = b""
    while True:
        ready, _, _ = select.select([0, *children], [], [])
        for descriptor in ready:
            if descriptor:
                _, status = os.waitpid(children[descriptor], 0)
                _say({"ended": children.pop(descriptor), "status": os.waitstatus_to_exitcode(status)})
                os.close(descriptor)
                continue
            arrived = os.read(0, 65536)
            if not arrived:
                for child in children.values():
                    os.kill(child, signal.SIGKILL)
                return
            *lines, waiting = (waiting + arrived).split(b"\n")
            for asked in map(json.loads, lines):
                pid = os.fork()
                if not pid:
                    _become(asked)
                    services[asked["service"]]()
                children[os.pidfd_open(pid)] = pid
                _say({"pid": pid})


def _become(asked: Mapping[str, object]) -> None:
    log = os.open(str(asked["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    empty = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, empty), (1, log), (2, log)):
        os.dup2(source, target)
    environ = asked["environ"]
    assert isinstance(environ, dict)
    os.environ.clear()
    os.environ.update(environ)


def _say(document: Mapping[str, int]) -> None:
    os.write(1, json.dumps(document).encode() + b"\n")


if __name__ == "__main__":
    _serve()
