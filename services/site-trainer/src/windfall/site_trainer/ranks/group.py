"""torchrun as a child, and the processes that it starts, as the trainer commands them. It imports no torch."""

import logging
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

from windfall.site_trainer.ranks import wire

log = logging.getLogger(__name__)

ADDRESS: Final = "WINDFALL_RANKS_ADDRESS"
"""Variable that names the trainer's socket to its ranks."""
RESTARTS: Final = 1000
"""Groups that one torchrun may form. The trainer gives up long before when they come to nothing."""
MEETING_S: Final = 300.0
"""How long processes may take to meet: the import of torch on a slow disk, and the first contact of GPUs."""
_ENDING_S: Final = 10.0


class Broke(Exception):
    """A process fell, or torchrun did: what the group held in memory is lost."""


class NoRoom(MemoryError):
    """Memory refused a rank, and the group forms anew: one rank alone cannot try again while others wait for it."""

    def __init__(self, samples: int, text: str) -> None:
        super().__init__(text)
        self.samples = samples
        """Of the pass that was refused; 0 when it was no pass."""


class RankGroup:
    """So many processes. Every method blocks; one thread at a time may call.

    Args:
        processes: how many.
        threads: of torch, in each.
        environ: variables for them, beside the trainer's own.
    """

    def __init__(self, processes: int, threads: int = 1, environ: Mapping[str, str] | None = None) -> None:
        self.processes = processes
        self.pids: tuple[int, ...] = ()
        """Of the ranks that were met last, in their order."""
        self._environ = {**os.environ, **_own(threads), **(environ or {})}
        self._agent: subprocess.Popen[bytes] | None = None
        self._alive: socket.socket | None = None
        """Closes when torchrun does: it alone has the other end."""
        self._links: list[socket.socket] = []
        self._runs = 0
        self._folder = Path(tempfile.mkdtemp(prefix="windfall-"))
        self._listener = socket.socket(socket.AF_UNIX)
        # Nobody but this user gets into the folder.
        self._listener.bind(str(self._folder / "trainer"))
        self._listener.listen(4 * processes)

    def start(self) -> None:
        """Start torchrun if it does not run; the processes are met later."""
        if self._agent is not None and self._agent.poll() is None:
            return
        self._forget_agent()
        self._runs += 1
        self._alive, theirs = socket.socketpair()
        with theirs:
            self._agent = subprocess.Popen(
                [
                    *(sys.executable, "-m", "torch.distributed.run"),
                    *("--nnodes", "1", "--nproc-per-node", str(self.processes)),
                    *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
                    *("--rdzv-id", f"{os.getpid()}-{self._runs}", "--max-restarts", str(RESTARTS)),
                    *("-m", "windfall.site_trainer.ranks"),
                ],
                env={**self._environ, ADDRESS: str(self._folder / "trainer")},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # What interrupts the trainer lets it drain; its ranks end with it.
                start_new_session=True,
            )

    def meet(self) -> None:
        """Wait until all processes of one group are there, unless one is commanded already.

        Raises:
            Broke: torchrun ended, or they did not come in time.
        """
        if self._links:
            return
        self.start()
        assert self._alive is not None
        deadline, silent = monotonic() + MEETING_S, set[socket.socket]()
        came: dict[str, dict[int, tuple[socket.socket, int]]] = {}
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(self._alive, selectors.EVENT_READ)
                while not self._links:
                    ready = [key.fileobj for key, _ in selector.select(max(0.0, deadline - monotonic()))]
                    if self._alive in ready:
                        raise Broke(self._end_of_agent())
                    if not ready:
                        self._end_agent(patience_s=0.0)
                        raise Broke(f"its processes did not meet within {MEETING_S:g} s")
                    if self._listener in ready:
                        link, _ = self._listener.accept()
                        selector.register(link, selectors.EVENT_READ)
                        silent.add(link)
                    for link in silent.intersection(ready):
                        # It has loaded what it needs and has met the others, or it fell.
                        hello = wire.receive(link)
                        selector.unregister(link)
                        silent.remove(link)
                        if hello is None:
                            link.close()
                            continue
                        group = came.setdefault(hello["group"], {})
                        group[hello["rank"]] = link, hello["pid"]
                        if len(group) == self.processes:
                            there = [group.pop(rank) for rank in range(self.processes)]
                            self._links, self.pids = [link for link, _ in there], tuple(pid for _, pid in there)
                            log.info("%d processes train together: %s", self.processes, self.pids)
        finally:
            # Of groups that fell before they were whole.
            for link in silent.union(link for group in came.values() for link, _ in group.values()):
                link.close()

    def ask(self, word: Mapping[str, object]) -> list[dict[str, Any]]:
        """Command all, and wait for every answer, in the order of ranks.

        Raises:
            Broke: a process is gone, or none was met yet.
            NoRoom: memory refused one.
            ValueError, OSError: as one of them says.
        """
        if not self._links or self._alive is None:
            raise Broke("no group has formed")
        answers: dict[int, dict[str, Any]] = {}
        try:
            for link in self._links:
                wire.send(link, word)
            with selectors.DefaultSelector() as selector:
                selector.register(self._alive, selectors.EVENT_READ, None)
                for rank, link in enumerate(self._links):
                    selector.register(link, selectors.EVENT_READ, rank)
                while len(answers) < self.processes:
                    for key, _ in selector.select():
                        if key.data is None:
                            raise Broke(self._end_of_agent())
                        answer = wire.receive(self._links[key.data])
                        if answer is None:
                            raise Broke(f"rank {key.data} fell while it was asked to {word['do']}")
                        if answer.get("error") == "memory":
                            raise NoRoom(answer["samples"], answer["text"])
                        answers[key.data] = answer
                        selector.unregister(self._links[key.data])
        except OSError as error:
            self._leave()
            raise Broke(f"a rank is gone: {error}") from error
        except Broke:
            self._leave()
            raise
        except NoRoom:
            self.again()
            raise
        for answer in answers.values():
            if answer.get("error"):
                raise (OSError if answer["error"] == "disk" else ValueError)(answer["text"])
        return [answers[rank] for rank in range(self.processes)]

    def again(self) -> None:
        """Let all processes fall, so that torchrun starts a new group, which is to be met."""
        for link in self._links:
            with suppress(OSError):
                wire.send(link, {"do": "fall"})
        self._leave()

    def close(self) -> None:
        """End all processes. Nothing is left of them when this returns."""
        self._leave()
        self._listener.close()
        # Without a trainer every rank ends, and torchrun with them.
        self._end_agent(_ENDING_S)
        self._forget_agent()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end_agent(self, patience_s: float) -> None:
        """Wait for torchrun to end, then make it: it takes its processes with it."""
        if self._agent is None:
            return
        for seconds, end in ((patience_s, self._agent.terminate), (_ENDING_S, self._agent.kill), (None, None)):
            try:
                self._agent.wait(seconds)
                return
            except subprocess.TimeoutExpired:
                if end is not None:
                    end()

    def _leave(self) -> None:
        for link in self._links:
            link.close()
        self._links = []

    def _forget_agent(self) -> None:
        if self._alive is not None:
            self._alive.close()
        self._agent = self._alive = None

    def _end_of_agent(self) -> str:
        assert self._agent is not None
        code = self._agent.wait()
        return f"torchrun ended with status {code}"


def _own(threads: int) -> dict[str, str]:
    """What torchrun is told by variables. Where the operator said otherwise, that counts."""
    # A store that groups share would name the processes of the last group to those of the next.
    told = {"OMP_NUM_THREADS": str(threads), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    if "lo" in (name for _, name in socket.if_nameindex()):
        told |= dict.fromkeys(("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"), "lo")
    return {name: os.environ.get(name, value) for name, value in told.items()}
