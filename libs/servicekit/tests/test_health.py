"""Alive and ready, as a probe sees it."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from windfall.servicekit import health as module
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.health import Health


class Service:
    lacking = ""


@pytest.fixture
async def health(tmp_path: Path) -> AsyncIterator[Health]:
    found = Health(0, tmp_path / "state", lambda: Service.lacking)
    found.beat()
    yield found
    found.close()


async def status(health: Health, path: str) -> int:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{health.port}", trust_env=False) as client:
        return (await client.get(path)).status_code


async def test_alive_and_ready_are_two_questions(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await status(health, "/livez"), await status(health, "/readyz")) == (200, 200)
    monkeypatch.setattr(Service, "lacking", "the bus is away")
    assert (await status(health, "/livez"), await status(health, "/readyz")) == (200, 503)
    assert await status(health, "/") == 404


async def test_who_hangs_up_before_the_answer_is_no_news(health: Health, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", health.port)) as prober:
            prober.sendall(b"GET /livez HTTP/1.1\r\n\r\n")
            # A reset, not an orderly end.
            prober.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert await status(health, "/livez") == 200
    assert "Traceback" not in capfd.readouterr().err


async def test_a_stuck_loop_is_told_by_the_thread(health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STUCK_AFTER_S", 0.0)
    # The loop is stuck while this blocks it, and the answer comes all the same.
    with httpx.Client(base_url=f"http://127.0.0.1:{health.port}", trust_env=False) as client:
        assert client.get("/livez").status_code == 503  # noqa: ASYNC212
        assert client.get("/readyz").status_code == 503  # noqa: ASYNC212


async def test_a_turning_loop_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BEAT_S", 0.001)
    health = Health(0, tmp_path, lambda: "")
    health.beat()
    first = health._last_beat
    async with asyncio.timeout(60):
        while health._last_beat == first:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    health.close()


async def test_where_it_listens_is_written_down_and_taken_back(tmp_path: Path) -> None:
    health = Health(0, tmp_path / "state", lambda: "")
    written = json.loads((tmp_path / "state" / "health.json").read_text())
    assert written == {"port": health.port, "pid": os.getpid()}
    health.close()
    assert not (tmp_path / "state" / "health.json").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", health.port)) != 0


def test_it_listens_on_loopback_alone(tmp_path: Path) -> None:
    health = Health(0, tmp_path, lambda: "")
    assert health._server.server_address[0] == "127.0.0.1"
    health.close()


def test_a_port_in_use_is_a_mistake(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(Mistake, match="WINDFALL_HEALTH_PORT") as mistake:
            Health(holder.getsockname()[1], tmp_path, lambda: "")
    assert mistake.value.exit_code is ExitCode.RESOURCE


def test_a_folder_that_cannot_be_written_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Mistake, match="WINDFALL_STATE_DIR") as mistake:
        Health(0, tmp_path / "file", lambda: "")
    assert mistake.value.exit_code is ExitCode.RESOURCE
