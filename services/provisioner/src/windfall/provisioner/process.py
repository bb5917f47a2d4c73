"""Nodes that are processes of this machine. Linux only: it stands on /proc, pidfds and FIFOs.

``nodes/<lease id>/`` holds a node's ``record.json``, ``ready`` file, ``ready.fifo`` and ``log``. A node leads a session
of its own, so it outlives the provisioner. It is known for good by its pid *and* start time, and is signalled through
a pidfd alone, so that a pid which the kernel gave to somebody else is never hit.

The record is written as an intent before the fork and completed after it. A crash between the two leaves a node that
the record does not name; adoption finds it by the environment that it was born with.

Readiness is an event: the node writes ``WINDFALL_READY_FILE``, then closes ``WINDFALL_READY_FD``, which ends the FIFO.
A FIFO has a name, so a provisioner that comes later hears the end as well.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from errno import E2BIG, EACCES, ENOENT, ENOEXEC, ENOTDIR, EPERM, EROFS
from pathlib import Path
from typing import Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, ValidationError

from windfall.provisioner.holdings import Lease, Node
from windfall.servicekit.errors import ExitCode, Mistake, Transient

TRAINER: Final = "windfall.site_trainer"
LOGS_KEPT: Final = 100
"""Folders of ended nodes that stay for a person to read, the youngest."""

_READY_FD: Final = 3
_PROC: Final = Path("/proc")
_LASTING: Final = frozenset({E2BIG, EACCES, ENOENT, ENOEXEC, ENOTDIR, EPERM, EROFS})
"""Errors that another attempt would meet again."""


def running(module: str) -> tuple[str, ...]:
    """The command that runs a module in this interpreter."""
    return sys.executable, "-m", module


class Record(BaseModel):
    """What the disk knows about a node: an intent while there is no pid."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    lease_id: UUID
    window_id: UUID
    token: int
    name: str
    boot_id: str
    """Start times count from this boot."""
    pid: int | None = None
    start_ticks: int | None = None
    """Clock ticks from boot to the process's start: field 22 of /proc/<pid>/stat, see proc(5)."""

    @property
    def node(self) -> Node:
        return Node(self.lease_id, self.window_id, self.token, self.name)


@dataclass(frozen=True)
class _Held:
    """A live process and what will come of it."""

    node: Node
    pidfd: int
    fifo_fd: int | None
    ready: asyncio.Future[bool]
    gone: asyncio.Future[int | None]


class ProcessBackend:
    """Local processes, one per lease.

    Args:
        state_dir: where ``nodes/`` is kept.
        command: what a node runs; a site-trainer, when nothing is said.
    """

    name = "process"

    def __init__(self, state_dir: Path, command: Sequence[str] = running(TRAINER)) -> None:
        self._nodes_dir = state_dir.resolve() / "nodes"
        self._command = tuple(command)
        self._held: dict[UUID, _Held] = {}

    def describe(self) -> str:
        return f"one local process: {' '.join(self._command)}"

    async def plan(self, lease: Lease, environment: Mapping[str, str]) -> Sequence[str]:
        return ()

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        if held := self._running(lease.lease_id):
            return held.node
        node = Node.of(lease)
        try:
            self._start(node, environment)
        except OSError as error:
            cause = f"cannot start {node.name} with {self._command[0]!r} in {self._folder(node)} ({error.strerror})"
            if error.errno not in _LASTING:
                raise Transient(cause) from error
            cure = "Check that the program exists and that WINDFALL_STATE_DIR is a folder that this user may write"
            raise Mistake(cause, cure, ExitCode.RESOURCE) from error
        return node

    async def ready(self, node: Node) -> bool:
        held = self._held.get(node.lease_id)
        return await asyncio.shield(held.ready) if held else False

    async def troubles(self, node: Node) -> AsyncIterator[str]:
        """None that it could know of."""
        return
        yield ""

    async def drain(self, node: Node) -> None:
        self._signal(node, signal.SIGTERM)

    async def kill(self, node: Node) -> None:
        self._signal(node, signal.SIGKILL)

    async def wait(self, node: Node) -> int | None:
        held = self._held.get(node.lease_id)
        if held is None:
            return None
        exit_code = await asyncio.shield(held.gone)
        if self._held.get(node.lease_id) is held:
            del self._held[node.lease_id]
        return exit_code

    async def adopt(self) -> Sequence[Node]:
        for record in self._records():
            if not self._running(record.lease_id):
                self._adopt_recorded(record)
        for pid, node in self._born_here():
            if not self._running(node.lease_id) and _leads(pid):
                self._adopt_unrecorded(pid, node)
        for pid, node in self._born_here():
            if not self._running(node.lease_id):
                self._end_stray(pid, node)
        return tuple(held.node for held in self._held.values() if not held.gone.done())

    async def close(self) -> None:
        for held in self._held.values():
            if not held.gone.done():
                self._let_go(held)
                held.ready.cancel()
                held.gone.cancel()
        self._held.clear()

    # --- starting -----------------------------------------------------------------------------------------------------

    def _start(self, node: Node, environment: Mapping[str, str]) -> None:
        folder = self._folder(node)
        folder.mkdir(parents=True, exist_ok=True)
        fifo = folder / "ready.fifo"
        for left in (folder / "ready", fifo):
            left.unlink(missing_ok=True)
        os.mkfifo(fifo, 0o600)
        intent = _intent(node)
        self._write(intent)
        # The reader opens first: the node's end would block until there is one.
        fifo_fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        try:
            pid = os.posix_spawnp(
                self._command[0],
                self._command,
                # The port that Prometheus asks is ours, where it asks us.
                {**environment, "OTEL_EXPORTER_PROMETHEUS_PORT": "0", **self._marks(node)},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, _READY_FD, str(fifo), os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, str(folder / "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE),
            )
        except OSError:
            os.close(fifo_fd)
            raise
        held = self._hold(node, os.pidfd_open(pid), fifo_fd)
        try:
            self._write(intent.model_copy(update={"pid": pid, "start_ticks": _start_ticks(pid)}))
        except OSError:
            signal.pidfd_send_signal(held.pidfd, signal.SIGKILL)
            raise

    def _marks(self, node: Node) -> dict[str, str]:
        """The part of a node's environment by which it is found again."""
        ready_file = self._folder(node) / "ready"
        return {**node.environment, "WINDFALL_READY_FILE": str(ready_file), "WINDFALL_READY_FD": str(_READY_FD)}

    # --- adopting -----------------------------------------------------------------------------------------------------

    def _adopt_recorded(self, record: Record) -> None:
        if record.pid is None or record.boot_id != _boot_id():
            return
        pidfd = _open(record.pid)
        if pidfd is None:
            return
        # Compared after the pidfd is open: from here on it cannot come to mean another process.
        if _start_ticks(record.pid) == record.start_ticks:
            self._hold(record.node, pidfd)
        else:
            os.close(pidfd)

    def _adopt_unrecorded(self, pid: int, node: Node) -> None:
        pidfd = _open(pid)
        if pidfd is None:
            return
        if self._node_of(pid) != node:
            os.close(pidfd)
            return
        self._folder(node).mkdir(parents=True, exist_ok=True)
        self._write(_intent(node).model_copy(update={"pid": pid, "start_ticks": _start_ticks(pid)}))
        self._hold(node, pidfd)

    def _end_stray(self, pid: int, node: Node) -> None:
        """End what a dead node left behind: it is nobody's."""
        pidfd = _open(pid)
        if pidfd is None:
            return
        if self._node_of(pid) == node:
            _send(pidfd, signal.SIGKILL)
        os.close(pidfd)

    def _born_here(self) -> Iterator[tuple[int, Node]]:
        """Every process that this backend, in any life, or one of its nodes started."""
        for entry in _PROC.iterdir():
            if entry.name.isdigit() and (node := self._node_of(int(entry.name))):
                yield int(entry.name), node

    def _node_of(self, pid: int) -> Node | None:
        try:
            born_with = (_PROC / str(pid) / "environ").read_bytes()
        except OSError:
            # Another user's, or gone since: not ours either way.
            return None
        pairs = (pair.partition("=") for pair in os.fsdecode(born_with).split("\0"))
        marks = {name: value for name, _, value in pairs}
        if Path(marks.get("WINDFALL_READY_FILE", "")).parent.parent != self._nodes_dir:
            return None
        try:
            lease_id, window_id = UUID(marks["WINDFALL_LEASE_ID"]), UUID(marks["WINDFALL_WINDOW_ID"])
            return Node(lease_id, window_id, int(marks["WINDFALL_LEASE_TOKEN"]), marks["WINDFALL_NODE"])
        except (KeyError, ValueError):
            # Something else that a node started, with an environment of its own making.
            return None

    # --- watching -----------------------------------------------------------------------------------------------------

    def _running(self, lease_id: UUID) -> _Held | None:
        held = self._held.get(lease_id)
        return held if held and not held.gone.done() else None

    def _signal(self, node: Node, number: signal.Signals) -> None:
        if held := self._running(node.lease_id):
            _send(held.pidfd, number)

    def _hold(self, node: Node, pidfd: int, fifo_fd: int | None = None) -> _Held:
        fifo = self._folder(node) / "ready.fifo"
        if fifo_fd is None and fifo.exists():
            fifo_fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        loop = asyncio.get_running_loop()
        held = _Held(node, pidfd, fifo_fd, loop.create_future(), loop.create_future())
        self._held[node.lease_id] = held
        loop.add_reader(pidfd, self._heard_gone, held)
        if fifo_fd is not None:
            loop.add_reader(fifo_fd, self._heard_ready, held, fifo_fd)
        # Looked at once the FIFO is open: a node that wrote before is seen here, one that writes later is heard.
        self._look(held)
        return held

    def _heard_ready(self, held: _Held, fifo_fd: int) -> None:
        self._look(held)
        if not os.read(fifo_fd, 512):
            asyncio.get_running_loop().remove_reader(fifo_fd)

    def _look(self, held: _Held) -> None:
        if not held.ready.done() and (self._folder(held.node) / "ready").exists():
            held.ready.set_result(True)

    def _heard_gone(self, held: _Held) -> None:
        self._look(held)
        held.gone.set_result(_exit_code(held.pidfd))
        if not held.ready.done():
            held.ready.set_result(False)
        self._let_go(held)
        for pid, node in self._born_here():
            if node.lease_id == held.node.lease_id:
                self._end_stray(pid, node)
        for name in ("record.json", "ready", "ready.fifo"):
            (self._folder(held.node) / name).unlink(missing_ok=True)
        self._prune()

    def _let_go(self, held: _Held) -> None:
        loop = asyncio.get_running_loop()
        for fd in (held.pidfd, held.fifo_fd):
            if fd is not None:
                loop.remove_reader(fd)
                os.close(fd)

    # --- the folders --------------------------------------------------------------------------------------------------

    def _folder(self, node: Node) -> Path:
        return self._nodes_dir / str(node.lease_id)

    def _records(self) -> Iterator[Record]:
        for path in sorted(self._nodes_dir.glob("*/record.json")):
            try:
                yield Record.model_validate_json(path.read_bytes())
            except ValidationError as error:
                cause = f"{path} is not a record of a node ({error.error_count()} faults)"
                raise Mistake(cause, "Remove it: a node that runs is found without it", ExitCode.RESOURCE) from error

    def _write(self, record: Record) -> None:
        """Replace the record at once, and return when a power cut keeps it."""
        folder = self._folder(record.node)
        draft = folder / "record.draft"
        with draft.open("w", encoding="utf-8") as file:
            file.write(record.model_dump_json())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / "record.json")
        folder_fd = os.open(folder, os.O_RDONLY)
        os.fsync(folder_fd)
        os.close(folder_fd)

    def _prune(self) -> None:
        ended = [folder for folder in self._nodes_dir.iterdir() if not (folder / "record.json").exists()]
        for folder in sorted(ended, key=lambda folder: folder.stat().st_mtime_ns)[:-LOGS_KEPT]:
            shutil.rmtree(folder)


def _intent(node: Node) -> Record:
    return Record(
        lease_id=node.lease_id, window_id=node.window_id, token=node.token, name=node.name, boot_id=_boot_id()
    )


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name is in parentheses and may hold spaces and parentheses of its own.
    return int(stat.rpartition(b")")[2].split()[19])


def _leads(pid: int) -> bool:
    """Whether a process leads its session, as a node does and what it starts does not."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _send(pidfd: int, number: signal.Signals) -> None:
    # A process that ended in this moment has what was asked.
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _exit_code(pidfd: int) -> int | None:
    try:
        ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    except ChildProcessError:
        # Adopted: its code went to whoever the kernel made its parent.
        return None
    assert ended is not None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
