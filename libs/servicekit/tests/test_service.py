"""A service as an operator meets it: a process that starts, stops, and says in one line what is wrong."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx
import nats
import nats.js.errors
import pytest

from windfall.contracts.envelope import seal
from windfall.contracts.events import WindowOpened
from windfall.contracts.logs import LogAsk, LogLine, LogTold
from windfall.contracts.subjects import EVENTS_STREAM, log_asked, log_told
from windfall.servicekit.errors import ExitCode, Transient
from windfall.servicekit.leadership import Conflict, Lease
from windfall.servicekit.nats_register import NatsRegister
from windfall.servicekit.natsserver import NatsServer, free_port

PATIENCE_S = 60

SERVICE = """
import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from windfall.contracts.events import SignalRecovered, WindowOpened
from windfall.contracts.message import derived_id
from windfall.contracts.subjects import StreamSpec, site_streams
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.service import Stand, run
from windfall.servicekit.settings import SiteSettings
from windfall.servicekit.standby import StandbySettings


class Echoing(SiteSettings, StandbySettings):
    misbehave: str = ""


def recovered(cause: object, site: str) -> SignalRecovered:
    now = datetime.now(UTC)
    return SignalRecovered(id=derived_id(str(cause), "signal.recovered", site), at=now, site=site, point_time=now)


@asynccontextmanager
async def attend(settings: Echoing, stand: Stand) -> AsyncIterator[None]:
    async def echo(window: WindowOpened) -> None:
        if settings.misbehave == "handler":
            raise ZeroDivisionError("oops")
        if settings.misbehave == "mistake":
            raise Mistake("the disk is full", "Free space", ExitCode.DISK_FULL)
        stand.journal.commit(say=[recovered(window.id, stand.whom)], heard=window.id)
        stand.outbox.wake()

    async def loop() -> None:
        if settings.misbehave == "loop":
            raise ZeroDivisionError("oops")
        if settings.misbehave == "stuck-outbox":
            stand.journal.commit(say=[recovered("nothing", stand.whom)])
        if settings.misbehave == "brief":
            stand.journal.commit(say=[recovered("nothing", stand.whom)])
            stand.stopping.set()
        await asyncio.Event().wait()

    stand.bus.hears(WindowOpened, stand.whom, echo)
    stand.spawn(loop(), "loop")
    yield
    Path(settings.state_dir / "left").write_text("in good order")


def whom(settings: Echoing) -> str:
    return settings.site


def streams(settings: Echoing) -> list[StreamSpec]:
    return site_streams(settings.site)


run("provisioner", Echoing, whom, streams, attend, warm=lambda: print("warm", file=sys.stderr))
"""


@dataclass
class Run:
    process: asyncio.subprocess.Process
    state: Path

    async def stands(self) -> None:
        """Until the service says on its own port that it is ready."""
        async with asyncio.timeout(PATIENCE_S), httpx.AsyncClient(trust_env=False) as client:
            while self.process.returncode is None:
                try:
                    port = json.loads((self.state / "health.json").read_text())["port"]
                    if (await client.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                        return
                except (OSError, ValueError, httpx.TransportError):
                    pass
                await asyncio.sleep(0.02)
        raise AssertionError(f"it ended: {await self.ended()}")

    async def ended(self) -> tuple[int, str]:
        """Exit code and what it wrote."""
        async with asyncio.timeout(PATIENCE_S):
            _, error = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, error.decode()


@asynccontextmanager
async def started(folder: Path, **settings: str) -> AsyncIterator[Run]:
    program = folder / "provisioner.py"
    program.write_text(SERVICE)
    state = folder / "state"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("WINDFALL_")}
    environ |= {"WINDFALL_SITE": "site-a", "WINDFALL_STATE_DIR": str(state)}
    environ |= {f"WINDFALL_{name.upper()}": text for name, text in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program,
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Run(process, state)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def complaints(error: str) -> list[str]:
    """What is not an ordinary line of the log."""
    return [line for line in error.splitlines() if line.startswith("windfall ")]


async def say(server: NatsServer) -> None:
    client = await nats.connect(server.url)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    letter = seal(
        WindowOpened(
            id=uuid4(), at=at, site="site-a", window_id=uuid4(), intensity_g_per_kwh=1, expected_close_at=None
        ),
        "/windfall/test",
    )
    await client.jetstream().publish(letter.subject, letter.body, headers=dict(letter.headers))
    await client.close()


async def heard_on(server: NatsServer, subject: str) -> None:
    client = await nats.connect(server.url)
    async with asyncio.timeout(PATIENCE_S):
        subscription = await client.jetstream().subscribe(subject, stream=EVENTS_STREAM, ordered_consumer=True)
        await subscription.next_msg(timeout=PATIENCE_S)
    await client.close()


async def kept_on(server: NatsServer, subject: str) -> bool:
    """Whether the server holds something there."""
    client = await nats.connect(server.url)
    try:
        await client.jetstream().get_last_msg(EVENTS_STREAM, subject)
    except nats.js.errors.NotFoundError:
        return False
    finally:
        await client.close()
    return True


async def log_of(server: NatsServer, service: str) -> Sequence[LogLine]:
    client = await nats.connect(server.url)
    ask = LogAsk(token=uuid4().hex)
    subscription = await client.subscribe(log_told(service, ask.token))
    await client.publish(log_asked(service), ask.model_dump_json().encode())
    told = LogTold.model_validate_json((await subscription.next_msg(timeout=PATIENCE_S)).data)
    await client.close()
    assert (told.service, told.whom, told.whole) == (service, "site-a", True)
    return told.lines


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
async def test_it_works_until_it_is_told_to_stop(nats_server: NatsServer, tmp_path: Path, number: int) -> None:
    async with started(tmp_path, nats_url=nats_server.url, traces_file=str(tmp_path / "traces.jsonl")) as run:
        await run.stands()
        await say(nats_server)
        await heard_on(nats_server, "windfall.v1.signal.recovered.*")
        assert "provisioner stands for site-a" in [line.message for line in await log_of(nats_server, "provisioner")]
        run.process.send_signal(number)
        code, error = await run.ended()
    assert code == ExitCode.OK, error
    assert "Traceback" not in error
    assert complaints(error) == []
    assert (run.state / "left").read_text() == "in good order"
    assert not (run.state / "health.json").exists()
    assert "process windfall.v1.window.opened" in (tmp_path / "traces.jsonl").read_text()


async def test_what_it_has_to_say_is_said_even_if_it_ends_before_it_stands(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await kept_on(nats_server, "windfall.v1.signal.recovered.site-a"):
            # What takes a busy machine longer than the last moment waits for the next start, which is as short.
            async with started(tmp_path, nats_url=nats_server.url, misbehave="brief") as run:
                code, error = await run.ended()
            assert (code, complaints(error)) == (ExitCode.OK, [])


async def leads(holder: str, register: NatsRegister) -> bool:
    """Whether it wrote itself down; a server on a busy machine may be too late to say so."""
    try:
        await register.write(Lease(holder, 1), None)
    except Transient:
        return False
    except Conflict:
        pass
    return True


async def test_what_its_work_takes_is_loaded_while_another_leads(nats_server: NatsServer, tmp_path: Path) -> None:
    register = await NatsRegister.connected(nats_server.url, "provisioner.site-a")
    async with asyncio.timeout(PATIENCE_S):
        while not await leads("another", register):
            pass
    async with started(tmp_path, nats_url=nats_server.url, standby="true", lease="PT1H") as run:
        assert run.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            async for line in run.process.stderr:
                if b"warm" in line:
                    break
            else:
                raise AssertionError(f"it ended: {await run.ended()}")
        run.process.terminate()
        assert (await run.ended())[0] == ExitCode.OK
    await register.close()


async def test_bad_settings_are_one_line(tmp_path: Path) -> None:
    async with started(tmp_path, site="Hub!", clock="sundial") as run:
        code, error = await run.ended()
    assert code == ExitCode.USAGE
    (line,) = error.splitlines()
    assert line.startswith("windfall provisioner: ")
    assert "WINDFALL_SITE" in line
    assert "WINDFALL_CLOCK" in line
    assert not run.state.exists()


async def test_a_bad_log_level_is_one_line(tmp_path: Path) -> None:
    async with started(tmp_path, log_level="shouting") as run:
        code, error = await run.ended()
    assert code == ExitCode.USAGE
    (line,) = error.splitlines()
    assert "WINDFALL_LOG_LEVEL" in line


async def test_a_health_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        async with started(tmp_path, health_port=str(holder.getsockname()[1])) as run:
            code, error = await run.ended()
    assert code == ExitCode.RESOURCE
    assert "Traceback" not in error
    (line,) = complaints(error)
    assert "WINDFALL_HEALTH_PORT" in line


async def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    async with started(tmp_path, state_dir=str(tmp_path / "file" / "state")) as run:
        code, error = await run.ended()
    assert code == ExitCode.RESOURCE
    assert "Traceback" not in error
    (line,) = complaints(error)
    assert "WINDFALL_STATE_DIR" in line


async def test_a_traces_file_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    async with started(tmp_path, traces_file=str(tmp_path)) as run:
        code, error = await run.ended()
    assert code == ExitCode.RESOURCE
    (line,) = error.splitlines()
    assert "WINDFALL_TRACES_FILE" in line


@pytest.mark.parametrize(
    ("misbehave", "expected"),
    [("handler", ExitCode.FAILED), ("mistake", ExitCode.DISK_FULL), ("loop", ExitCode.FAILED)],
)
async def test_what_breaks_ends_the_service_with_a_last_line(
    nats_server: NatsServer, tmp_path: Path, misbehave: str, expected: ExitCode
) -> None:
    async with started(tmp_path, nats_url=nats_server.url, misbehave=misbehave) as run:
        if misbehave != "loop":
            await run.stands()
            await say(nats_server)
        code, error = await run.ended()
    assert code == expected
    (line,) = complaints(error)
    assert ("oops" in line) == (expected is ExitCode.FAILED)
    # A broken handler is a bug, and its trace belongs into the log; a mistake of a person's is none.
    assert ("Traceback" in error) == (expected is ExitCode.FAILED)


async def test_a_server_that_is_not_there_is_waited_for_and_the_wait_can_be_ended(tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    async with started(tmp_path, nats_url=url, misbehave="stuck-outbox") as run:
        assert run.process.stderr is not None
        seen = b""
        async with asyncio.timeout(PATIENCE_S):
            while url.encode() not in seen:
                seen += await run.process.stderr.readline()
        run.process.terminate()
        code, error = await run.ended()
    assert code == ExitCode.OK, error
    assert "Traceback" not in error


async def test_it_stops_while_its_server_is_away(nats_server: NatsServer, tmp_path: Path) -> None:
    async with started(tmp_path, nats_url=nats_server.url) as run:
        await run.stands()
        await nats_server.kill()
        assert run.process.stderr is not None
        seen = b""
        async with asyncio.timeout(PATIENCE_S):
            while b"lost the connection" not in seen:
                seen += await run.process.stderr.readline()
        run.process.terminate()
        code, error = await run.ended()
    assert code == ExitCode.OK, error
    assert "Traceback" not in error
