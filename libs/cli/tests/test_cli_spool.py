"""Traces larger than what is held in memory: the same answer from the disk, nothing left, and a full disk is said."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from windfall.cli import trace_file
from windfall.cli.__main__ import windfall
from windfall.cli.spool import Spool
from windfall.cli.streamed import streamed
from windfall.energy.traces import Block, gather
from windfall.servicekit.errors import ExitCode, Mistake

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def some() -> list[Block]:
    values = np.asarray(np.random.default_rng(1).uniform(0, 700, (5, 40)), np.float64)
    times = np.asarray(NOON.timestamp() + 300.0 * np.arange(40), np.float64)
    return [Block(times[a:b], values[:, a:b], False) for a, b in ((0, 16), (16, 32), (32, 40))]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    drawn = np.random.default_rng(2).choice([20.0, 90.5, 300.0, 512.25], (2000, 3))
    rows = [f"{(NOON + step * timedelta(minutes=5)).isoformat()},{a},{b},{c}" for step, (a, b, c) in enumerate(drawn)]
    path.write_text("\n".join(["point_time,a,b,price", *rows, ""]))
    return path


def test_columns_come_back_as_they_were() -> None:
    spool, held = Spool(some()), gather(some())
    assert len(spool) == len(held) == 5
    for found, expected in zip([*spool, spool[-1], *spool[1:3]], [*held, held[-1], *held[1:3]], strict=True):
        assert np.array_equal(found.times, expected.times) and np.array_equal(found.values, expected.values)
        assert found.end == expected.end
    with pytest.raises(IndexError):
        spool[5]


@pytest.mark.parametrize("more", [(), ("--work-site-hours", "9"), ("--objective", "cost", "--work-site-hours", "9")])
def test_a_trace_on_disk_gives_the_same_bytes(
    trace: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    prices = ("--price", "a=price", "--price", "b=price")
    sites = ("--site", "a", "--site", "b", "--policy", "all", "--replan-minutes", "600")
    command = ["simulate", "--trace", str(trace), *sites, *prices, *more, "-o", "json"]
    if not more:
        command += ["--end", "2026-01-02T12:00Z"]
    else:
        command += ["--forecast", "perfect"]
    held = CliRunner().invoke(windfall, command, catch_exceptions=False).stdout
    monkeypatch.setattr(trace_file, "MOST_HELD", 100)
    assert CliRunner().invoke(windfall, command, catch_exceptions=False).stdout == held
    assert list(json.loads(held)["contestants"]) == ["windfall", "threshold", "always-on", "oracle"]


def test_a_full_disk_is_said_and_has_its_code(trace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    # No file of this process may be larger than 16 kB, which the system refuses as it does on a full disk.
    code = (
        "from windfall.cli import trace_file; trace_file.MOST_HELD = 100; "
        "from windfall.cli.__main__ import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "simulate", "--trace", str(trace)],
        # Nor may a compiled module be cut short: the system's refusal would leave half of one behind.
        env={"TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, 16_384)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.DISK_FULL, done.stderr
    assert done.stderr.startswith(f"windfall: the disk is full: the folder for temporary files ({folder}) has no space")
    assert done.stderr.count("\n") == 1
    assert not list(folder.iterdir())


def test_a_mistake_far_down_is_told_by_its_line(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "MOST_HELD", 100)
    lines = trace.read_text().splitlines()
    lines[1500] = lines[1500].rpartition(",")[0] + ",much"
    trace.write_text("\n".join(lines))
    with pytest.raises(Mistake, match="line 1501, column price: 'much' is not a number"):
        trace_file.read(trace, ("a", "b", "price"), ())


def test_streamed_json_is_json() -> None:
    def items() -> Iterator[object]:
        yield from ({"a": 1}, [2, None])

    document = {"none": iter(()), "some": items(), "inner": {"empty": {}, "word": 'a "b"', "list": [1.5]}}
    text = "".join(streamed(document))
    assert json.loads(text) == {
        "none": [],
        "some": [{"a": 1}, [2, None]],
        "inner": {"empty": {}, "word": 'a "b"', "list": [1.5]},
    }
    assert ' "some": [\n  {"a": 1},\n  [2, null]\n ],' in text
    with pytest.raises(ValueError, match="not JSON compliant"):
        list(streamed({"a": float("nan")}))
