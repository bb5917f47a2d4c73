"""Processes are started, kept, started again, and none is left behind."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.cli.fleet import Program
from windfall.cli.launch import Crew, last_line
from windfall.servicekit.errors import ExitCode, Mistake

SERVING = """
import json, os, pathlib, signal, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
server = HTTPServer(("127.0.0.1", 0), Answer)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
pathlib.Path("health.json").write_text(json.dumps({"port": server.server_port, "pid": os.getpid()}))
server.serve_forever()
"""
WITH_ORPHAN = """
import subprocess, sys, pathlib
child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
pathlib.Path("orphan").write_text(str(child.pid))
"""
STUBBORN = SERVING.replace("lambda *_: threading.Thread(target=server.shutdown).start()", "signal.SIG_IGN")
SOON = timedelta(seconds=20)


def _program(folder: Path, name: str, code: str, environ: Mapping[str, str] | None = None) -> Program:
    return Program(name, (sys.executable, "-c", code), environ or {}, folder / name, folder / f"{name}.log")


def _runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_stands_and_stops(tmp_path: Path) -> None:
    async with Crew(lambda text: None) as crew:
        programs = [_program(tmp_path, name, SERVING) for name in ("one", "two", "three", "four")]
        await crew.stand(programs)
        await crew.stop(programs, SOON)
        assert not crew.gave_up.done()


SCRAPED = f"""
import pathlib
from windfall.servicekit import metrics
metrics.set_up("provisioner", "site-a", folder=pathlib.Path("."))
{SERVING}
"""


async def test_each_process_of_a_machine_is_scraped_at_a_port_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "9464")
    async with Crew(lambda text: None) as crew:
        programs = [_program(tmp_path, name, SCRAPED) for name in ("one", "two")]
        await crew.stand(programs)
        ports = {json.loads((one.folder / "metrics.json").read_text())["port"] for one in programs}
        assert len(ports) == 2 and 9464 not in ports
        await crew.stop(programs, SOON)


async def test_one_waits_for_another(tmp_path: Path) -> None:
    first = _program(tmp_path, "first", SERVING)
    second = Program(
        "second",
        (sys.executable, "-c", f"assert open({str(first.folder / 'health.json')!r})\n{SERVING}"),
        {},
        tmp_path / "second",
        tmp_path / "second.log",
        after="first",
    )
    async with Crew(lambda text: None) as crew:
        await crew.stand([second, first])
        assert not crew.gave_up.done()


async def test_what_does_not_end_is_killed_and_told(tmp_path: Path) -> None:
    told: list[str] = []
    async with Crew(told.append) as crew:
        program = _program(tmp_path, "stubborn", STUBBORN)
        await crew.stand([program])
        await crew.stop([program], timedelta(seconds=0.1))
    assert told == ["stubborn did not end in 0 s and was killed"]


async def test_orphans_of_the_killed_are_ended(tmp_path: Path) -> None:
    async with Crew(lambda text: None) as crew:
        program = _program(tmp_path, "parent", WITH_ORPHAN + SERVING)
        await crew.stand([program])
        orphan = int((program.folder / "orphan").read_text())
        assert _runs(orphan)
    assert not _runs(orphan)


async def test_an_early_death_is_one_line_with_its_own_code(tmp_path: Path) -> None:
    async with Crew(lambda text: None) as crew:
        crew.start(_program(tmp_path, "early", "import sys; print('port 1 is in use. Take 2'); sys.exit(3)"))
        with pytest.raises(Mistake, match=r"early ended early \(exit code 3\): port 1 is in use. Take 2") as mistake:
            await crew.gave_up
    assert mistake.value.exit_code == ExitCode.RESOURCE


async def test_a_killed_program_is_started_again(tmp_path: Path) -> None:
    told: list[str] = []
    again = asyncio.Event()

    def tell(text: str) -> None:
        told.append(text)
        again.set()

    async with Crew(tell) as crew:
        program = _program(tmp_path, "victim", SERVING)
        await crew.stand([program])
        os.kill(crew.pid_of(program), signal.SIGKILL)
        await again.wait()
        await crew.standing(program)
        assert told == ["victim died (SIGKILL) and is started again"]


async def test_it_does_not_inherit_the_persons_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WINDFALL_NATS_URL", "nats://elsewhere:1")
    code = "import os, sys; print(os.environ.get('WINDFALL_NATS_URL'), os.environ['WINDFALL_SITE']); sys.exit(1)"
    async with Crew(lambda text: None) as crew:
        crew.start(_program(tmp_path, "told", code, {"WINDFALL_SITE": "site-a"}))
        with pytest.raises(Mistake, match="None site-a"):
            await crew.gave_up


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    async with Crew(lambda text: None) as crew:
        with pytest.raises(Mistake, match="cannot start gone"):
            crew.start(Program("gone", ("/nowhere/at-all",), {}, tmp_path / "gone", tmp_path / "log"))


@pytest.mark.parametrize(("text", "expected"), [("a\nb\n", "b"), ("", "it said nothing"), (None, "it left no log")])
def test_last_line(tmp_path: Path, text: str | None, expected: str) -> None:
    if text is not None:
        (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == expected
