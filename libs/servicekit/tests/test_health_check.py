"""``windfall-health``: what a container's probe calls."""

import asyncio
import sys
from pathlib import Path

import pytest

from windfall.servicekit.health import Health
from windfall.servicekit.health_check import main


async def asked(*words: str, **environ: str) -> tuple[int, str, str]:
    """Run it as a probe does: as a process of its own."""
    command = (sys.executable, "-m", "windfall.servicekit.health_check", *words)
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    return process.returncode or 0, out.decode().strip(), err.decode().strip()


async def test_a_service_says_how_it_is_and_what_it_lacks(tmp_path: Path) -> None:
    lacking = ""
    health = Health(0, tmp_path, lambda: lacking)
    health.beat()
    folder, port = {"WINDFALL_STATE_DIR": str(tmp_path)}, {"WINDFALL_HEALTH_PORT": str(health.port)}
    try:
        assert await asked("livez", **folder) == await asked("readyz", **port) == await asked(**port) == (0, "ok", "")
        lacking = "the bus is away"
        assert await asked("readyz", **folder) == (1, "", "the bus is away")
        assert await asked("livez", **port) == (0, "ok", "")
        lacking, health.standing_by = "", True
        assert await asked(**port) == (1, "", "standby")
    finally:
        health.close()


async def test_nobody_there_is_not_well(tmp_path: Path) -> None:
    code, _, said = await asked(WINDFALL_STATE_DIR=str(tmp_path))
    assert (code, said.partition(" (")[0]) == (1, "nobody answers")


def test_another_question_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["healthz"], {}) == 2
    assert "Ask one of livez, readyz" in capsys.readouterr().err


async def test_little_is_imported() -> None:
    program = "import sys, windfall.servicekit.health_check; print({'http', 'json', 'asyncio'} & sys.modules.keys())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert out.decode().strip() == "set()"
