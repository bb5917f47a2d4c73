"""The benchmark's child process: what it says is kept, and nothing of it outlives its limits."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.profiler.measurement.bench import TorchBench
from windfall.profiler.profile import COMPUTE_PARTS, Compute, Host

UNNAMED = {"benchmark": ""}
HOST = Host(cpu_model="any", cpu_cores=1, memory_bytes=2**30)
LONG, SHORT = timedelta(seconds=60), timedelta(milliseconds=100)


def program(folder: Path, text: str) -> Path:
    path = folder / "bench.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "found", "why"),
    [
        pytest.param(
            "print('{}'); print('{\"matmul_gflops\": 5.0}')", {"matmul_gflops": 5.0}, "", id="says-less-than-all"
        ),
        pytest.param(
            "print('{\"matmul_gflops\": 5.0}', flush=True); raise SystemExit(3)",
            {"matmul_gflops": 5.0},
            "the benchmark ended with code 3; its own words are in the log",
            id="fails",
        ),
        pytest.param(
            "import os; print('{}', flush=True); os.kill(os.getpid(), 9)",
            {},
            "the benchmark was ended by SIGKILL; its own words are in the log",
            id="killed",
        ),
        pytest.param("print('hello')", {}, "the benchmark said something that cannot be read", id="babbles"),
        pytest.param(
            "print('x' * 100_000)", {}, "the benchmark said something that cannot be read", id="babbles-without-end"
        ),
    ],
)
async def test_what_was_said_is_kept(tmp_path: Path, text: str, found: dict[str, float], why: str) -> None:
    compute = await TorchBench(LONG, program=program(tmp_path, text)).compute(HOST)
    silent = [part for part in COMPUTE_PARTS if part not in found]
    assert compute.model_copy(update=UNNAMED) == Compute(**found, missing=dict.fromkeys(silent, why) if why else {})


async def test_steps_that_were_not_reached_are_named(tmp_path: Path) -> None:
    text = 'print(\'{"step_s_by_micro_batch": {"1": 0.5}}\', flush=True); raise SystemExit(1)'
    compute = await TorchBench(LONG, program=program(tmp_path, text)).compute(HOST)
    assert compute.step_s_by_micro_batch == {1: 0.5}
    assert set(compute.missing) == {"matmul_gflops", "memory_bandwidth_gb_per_s", "step_s_by_micro_batch.more"}


async def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    compute = await TorchBench(LONG, python=[str(tmp_path / "python")]).compute(HOST)
    assert compute.model_copy(update=UNNAMED) == Compute(
        missing=dict.fromkeys(COMPUTE_PARTS, "the benchmark cannot be started (No such file or directory)")
    )


async def test_an_interpreter_without_torch() -> None:
    compute = await TorchBench(LONG, python=[sys.executable, "-S"]).compute(HOST)
    assert compute.model_copy(update=UNNAMED) == Compute(
        missing=dict.fromkeys(COMPUTE_PARTS, "torch cannot be loaded: No module named 'torch'")
    )


HANGS = """
import socket, subprocess, sys, time
line = socket.socket(socket.AF_UNIX)
line.connect({path!r})
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], pass_fds=[line.fileno()])
line.sendall(b"!")
if {said!r}:
    print({said!r}, flush=True)
time.sleep(600)
"""


class Witness:
    """Holds a line to a process and its children: it is cut when the last of them is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.alive = asyncio.Event()
        self.gone = asyncio.Event()

    async def watch(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(1) == b"!"
        self.alive.set()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        self.gone.set()


@asynccontextmanager
async def witness(folder: Path) -> AsyncIterator[Witness]:
    seen = Witness(folder / "line")
    server = await asyncio.start_unix_server(seen.watch, seen.path)
    async with server:
        yield seen


async def test_a_benchmark_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    async with witness(tmp_path) as seen:
        hangs = program(tmp_path, HANGS.format(path=str(seen.path), said='{"matmul_gflops": 5.0}'))
        compute = await TorchBench(SHORT, LONG, program=hangs).compute(HOST)
        await seen.gone.wait()
    assert compute.matmul_gflops == 5.0
    assert compute.missing == dict.fromkeys(
        ("memory_bandwidth_gb_per_s", "step_s_by_micro_batch"), "the benchmark had not measured within 0.1 s"
    )


async def test_a_torch_that_does_not_load_is_given_up(tmp_path: Path) -> None:
    compute = await TorchBench(LONG, SHORT, program=program(tmp_path, "import time; time.sleep(600)")).compute(HOST)
    assert compute.model_copy(update=UNNAMED) == Compute(
        missing=dict.fromkeys(COMPUTE_PARTS, "the benchmark had not loaded torch within 0.1 s")
    )


async def test_a_benchmark_that_is_no_longer_wanted_is_ended(tmp_path: Path) -> None:
    async with witness(tmp_path) as seen:
        hangs = program(tmp_path, HANGS.format(path=str(seen.path), said=""))
        measuring = asyncio.create_task(TorchBench(LONG, program=hangs).compute(HOST))
        await seen.alive.wait()
        measuring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await measuring
        await seen.gone.wait()


def test_the_version_follows_the_benchmark(tmp_path: Path) -> None:
    one = TorchBench(LONG, program=program(tmp_path, "1")).version
    assert one == TorchBench(SHORT, program=program(tmp_path, "1")).version
    assert one != TorchBench(LONG, program=program(tmp_path, "2")).version


def test_the_profiler_itself_stays_free_of_torch() -> None:
    code = "import sys, windfall.profiler.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
