"""Whatever a person can mend is one line, a documented exit code, and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from windfall.cli.__main__ import windfall
from windfall.servicekit.errors import ExitCode

Given = Callable[[Path], Sequence[str]]
HEADER = "point_time,site-a,site-b"
ROWS = ("2026-01-01T00:00:00+00:00,400,500", "2026-01-01T00:05:00+00:00,40,50", "2026-01-01T00:10:00+00:00,40,50")


def _windfall(
    *arguments: str, folder: Path, limit: Callable[[], object] | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "windfall.cli", *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )


def _trace(*rows: str, header: str = HEADER) -> Given:
    def write(folder: Path) -> Sequence[str]:
        (folder / "trace.csv").write_text("\n".join((header, *rows)) + "\n")
        return ["demo", "--trace", "trace.csv"]

    return write


def _typed(*arguments: str) -> Given:
    return lambda folder: arguments


def _occupied(folder: Path) -> Sequence[str]:
    (folder / "taken").mkdir()
    (folder / "taken" / "report.html").write_text("an older run")
    return ["demo", "--out", "taken"]


def _below_a_file(folder: Path) -> Sequence[str]:
    (folder / "file").write_text("")
    return ["demo", "--out", "file/run"]


MISTAKES: Mapping[str, tuple[Given, ExitCode, str]] = {
    "no-number": (_trace(ROWS[0], "2026-01-01T00:05:00+00:00,forty,50"), ExitCode.USAGE, "line 3, column site-a"),
    "no-zone": (_trace("2026-01-01T00:00:00,400,500"), ExitCode.USAGE, "line 2, column point_time"),
    "short-row": (_trace(ROWS[0], "2026-01-01T00:05:00+00:00,40"), ExitCode.USAGE, "line 3: 2 fields"),
    "no-rows": (_trace(), ExitCode.USAGE, "0 rows with data"),
    "bad-site-name": (_trace(*ROWS, header="point_time,Site A,site-b"), ExitCode.USAGE, "cannot name a site"),
    "called-hub": (_trace(*ROWS, header="point_time,hub,site-b"), ExitCode.USAGE, "cannot be called 'hub'"),
    "no-trace": (_typed("demo", "--trace", "gone.csv"), ExitCode.RESOURCE, "cannot read the trace gone.csv"),
    "unknown-site": (_typed("demo", "--sites", "site-z"), ExitCode.USAGE, "unknown site 'site-z'"),
    "bad-port": (_typed("demo", "--port", "99999"), ExitCode.USAGE, "'--port'"),
    "bad-seed": (_typed("demo", "--seed", "many"), ExitCode.USAGE, "'--seed'"),
    "folder-taken": (_occupied, ExitCode.RESOURCE, "is not empty"),
    "folder-impossible": (_below_a_file, ExitCode.RESOURCE, "cannot make the run folder"),
    "no-command": (_typed("dance"), ExitCode.USAGE, "No such command 'dance'"),
    "nearly-a-command": (_typed("gett"), ExitCode.USAGE, "No such command 'gett'. Did you mean 'get'"),
    "no-option": (_typed("demo", "--slow"), ExitCode.USAGE, "No such option"),
    "no-server": (_typed("events", "tail", "--server", "nats://127.0.0.1:1"), ExitCode.SERVER, "no NATS server at"),
    "bad-server": (_typed("dlq", "list", "--server", "nonsense"), ExitCode.SERVER, "no NATS server at nonsense"),
    "bad-event": (_typed("events", "publish", "window.opened"), ExitCode.USAGE, "the body is not JSON"),
    "no-file": (_typed("events", "publish", "window.opened", "--file", "x"), ExitCode.RESOURCE, "cannot read x"),
    "no-recording": (_typed("events", "replay", "--from-file", "x.jsonl"), ExitCode.USAGE, "cannot read x.jsonl"),
    "which-letter": (_typed("dlq", "drop"), ExitCode.USAGE, "number of one dead letter"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_with_cause_cure_and_code(case: str, tmp_path: Path) -> None:
    given, code, cause = MISTAKES[case]
    ended = _windfall(*given(tmp_path), folder=tmp_path)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("windfall: ") and cause in line
    assert line.partition(cause)[2].count(". ") >= 1, "a cure follows the cause"
    assert ended.returncode == code
    assert ended.stdout == ""


@pytest.mark.parametrize(
    "typed",
    [
        "dlq drop 3",
        "dlq drop --all",
        "drain quebec",
        "rollback demo",
        "site revoke quebec",
        "stop demo",
        "tenant remove lab",
    ],
)
def test_what_cannot_be_taken_back_is_asked_for(typed: str) -> None:
    ended = CliRunner().invoke(windfall, typed.split())
    assert ended.exit_code == ExitCode.USAGE
    assert "Nobody is there to be asked: say --yes" in ended.output


@pytest.mark.parametrize("typed", ["demo --port", "hub up --web --web-port"])
def test_a_port_in_use(tmp_path: Path, typed: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = _windfall(*typed.split(), str(taken.getsockname()[1]), folder=tmp_path)
    (line,) = ended.stderr.splitlines()
    assert f"cannot be used (Address already in use). Choose another with {typed.split()[-1]}" in line
    assert ended.returncode == ExitCode.RESOURCE


def _no_file_over_64_kib() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))


def test_a_full_disk_while_the_run_is_furnished(tmp_path: Path) -> None:
    ended = _windfall("demo", "--out", "run", folder=tmp_path, limit=_no_file_over_64_kib)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("windfall: the disk is full")
    assert ended.returncode == ExitCode.DISK_FULL


def test_a_full_disk_behind_standard_output(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "windfall.cli", "events", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    (line,) = ended.stderr.splitlines()
    assert line.startswith("windfall: the disk is full")
    assert ended.returncode == ExitCode.DISK_FULL


def test_a_reader_that_has_read_enough() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "windfall.cli", "events", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as schema:
        assert schema.stdout is not None and schema.stderr is not None
        schema.stdout.close()
        assert schema.stderr.read() == b""
    assert schema.returncode == ExitCode.OK


def test_help_tells_the_exit_codes(tmp_path: Path) -> None:
    ended = _windfall("--help", folder=tmp_path)
    assert ended.returncode == ExitCode.OK
    for code in ExitCode:
        assert f"{code.value} " in ended.stdout


@pytest.mark.parametrize("group", [(), ("events",), ("checkpoint",), ("hub",), ("fleet",), ("profile",)], ids=" ".join)
def test_help_cuts_no_sentence(group: tuple[str, ...], tmp_path: Path) -> None:
    _, _, commands = _windfall(*group, "--help", folder=tmp_path).stdout.partition("Commands:\n")
    assert commands and "..." not in commands


def test_every_command_and_every_option_says_what_it_is() -> None:
    silent, left = [], [("windfall", windfall)]
    while left:
        name, one = left.pop()
        context = click.Context(one, info_name=name)
        if isinstance(one, click.Group):
            found = ((each, one.get_command(context, each)) for each in one.list_commands(context))
            left += [(f"{name} {each}", command) for each, command in found if command is not None]
        silent += [] if one.help else [name]
        options = [each for each in one.params if isinstance(each, click.Option)]
        silent += [f"{name} {each.opts[-1]}" for each in options if not each.help]
    assert not silent


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from click.testing import CliRunner; from windfall.cli.__main__ import windfall; "
        "CliRunner().invoke(windfall, ['demo', '--help']); "
        "print([m for m in ('nats', 'pydantic', 'rich', 'matplotlib', 'faststream', 'torch') if m in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def _alive_in(folder: Path) -> list[str]:
    """Processes that were born with the run folder in their environment or command, or that work in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                # It may be gone by now.
                born = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0]
                if str(folder).encode() in born and state != b"Z":
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_demo_leaves_nothing_running(tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    demo = subprocess.Popen(
        [sys.executable, "-m", "windfall.cli", "demo", "--fast", "--out", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with demo:
        assert demo.stderr is not None
        lines = []
        for line in demo.stderr:
            lines.append(line)
            if "window open" in line:
                break
        assert _alive_in(run), "".join(lines)
        os.killpg(demo.pid, number)
        rest = demo.stderr.read()
    assert demo.returncode == ExitCode.INTERRUPTED, rest
    assert rest.splitlines()[-1] == "windfall: interrupted. Nothing is left running"
    assert _alive_in(run) == []
