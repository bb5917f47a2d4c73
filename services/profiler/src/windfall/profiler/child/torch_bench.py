"""The compute benchmark: a program of its own, run by path in a child process that may be killed at any moment.

It stands beside the package's modules rather than among them, and needs nothing but torch (and ``windfall.tasks``, when
it is told a task): the profiler stays free of torch (its memory, its start-up time, its crashes), and any interpreter
that has torch can run this file. What is found is said in JSON lines as it is found, so that it is kept when the end is
untimely; the first, empty one says that torch is loaded. ``timed`` are runs: the amount of work in one, and the seconds
that each took; of a training step on the processor ``own_s`` is the processor's time of a thread as well. What they
come to is decided elsewhere.

What is measured, on the first accelerator, or on the processor where there is none:

* ``matmul_gflops``: 2n³ operations of an n × n product in fp32; with ``--full`` in every type that the device takes,
  and on each further accelerator.
* ``memory_bandwidth_gb_per_s``: the Copy kernel of STREAM (McCalpin, 1995), bytes read plus bytes written.
* ``host_to_device_gb_per_s``, ``device_to_host_gb_per_s``: copies from and to pinned memory.
* ``step_s_by_micro_batch``: forward, backward and optimizer step of a task, or of a small residual MLP language model.
  The sizes take turns, so that a busy moment of the machine falls on all of them alike.
* ``trained``: a stretch of steps at the fastest size, for whoever reads power meanwhile.
"""

import argparse
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

PARTS = ("matmul_gflops", "memory_bandwidth_gb_per_s", "step_s_by_micro_batch")
MICRO_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
MORE_MICRO_BATCHES = (256, 512)
"""On an accelerator."""

DTYPES = ("tf32", "fp16", "bf16", "int8", "fp8")
"""Beside fp32."""
SMALLEST_SIDE, LONG_ENOUGH_S = 256, 0.005
"""A product grows from this side until it takes as long, so that a type that is slow here costs little."""
LARGEST_SIDE = {"cpu": 1024, "cuda": 8192}
COPY_FLOATS = {"cpu": 16 * 2**20, "cuda": 64 * 2**20}
"""64 and 256 MiB: well over the last-level cache of what we run on, well under its memory."""
PINNED_FLOATS = 16 * 2**20
FAIR_TURNS = 2
"""Turns of every size, before those that are far behind get no more."""
NEAR = 0.75
"""Share of the fastest size's throughput from which on one is not far behind, by the shortest step of each."""
MOST_RUNS = 200
"""Of one piece of work; more say nothing new."""

VOCABULARY, TOKENS, WIDTH, BLOCKS = 256, 64, 128, 4
"""The reference model; a sample is ``TOKENS`` tokens."""

Step = Callable[[int], None]


class Device:
    """Where work is done, and how its end is waited for."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    def run_s(self, work: Callable[[], object]) -> float:
        """Seconds until the work is done, and not only queued."""
        import torch

        begun = time.perf_counter()
        work()
        if self.kind == "cuda":
            torch.cuda.synchronize(self.name)
        return time.perf_counter() - begun

    def time(self, part: str, amount: float, work: Callable[[], object], ends: float) -> None:
        """Say the runs that fit in until ``ends``, after one that does not count; at least one does."""
        self.run_s(work)
        taken = [self.run_s(work)]
        while time.perf_counter() + taken[-1] < ends and len(taken) < MOST_RUNS:
            taken.append(self.run_s(work))
        say_timed(part, amount, taken)

    def forget(self) -> None:
        """Give back what a failed attempt had taken."""
        import torch

        if self.kind == "cuda":
            torch.cuda.empty_cache()


def matmul(dtype: str, device: Device, part: str, ends: float) -> None:
    side = SMALLEST_SIDE
    work = product(dtype, side, device.name)
    device.run_s(work)
    while side < LARGEST_SIDE[device.kind] and min(device.run_s(work) for _ in range(3)) < LONG_ENOUGH_S:
        side *= 2
        work = product(dtype, side, device.name)
        device.run_s(work)
    device.time(part, 2 * side**3 / 1e9, work, ends)


def product(dtype: str, side: int, device: str) -> Callable[[], object]:
    """A square product in a type.

    Raises:
        RuntimeError: torch or the device does not have it.
    """
    import torch

    if dtype in ("fp32", "tf32"):
        if dtype == "tf32" and not device.startswith("cuda"):
            raise RuntimeError("only accelerators have tf32")
        torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
    if dtype == "int8":
        left, right = torch.randint(-127, 127, (2, side, side), dtype=torch.int8, device=device)
        return partial(torch._int_mm, left, right)
    real = torch.randn(2, side, side, device=device)
    if dtype == "fp8":
        eighth = torch.float8_e4m3fnuz if torch.version.hip else torch.float8_e4m3fn
        left, right = (half.to(eighth) for half in real)
        one = torch.ones((), device=device)
        return partial(torch._scaled_mm, left, right.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(dtype, torch.float32)
    left, right = real.to(kind)
    return partial(torch.mm, left, right, out=torch.empty_like(left))


def memory_bandwidth_gb_per_s(device: Device, ends: float) -> None:
    import torch

    source = torch.ones(COPY_FLOATS[device.kind], device=device.name)
    target = torch.zeros_like(source)
    device.time("memory_bandwidth_gb_per_s", 2 * source.nbytes / 1e9, lambda: target.copy_(source), ends)


def pinned_copies(device: Device, up: bool, ends: float) -> None:
    import torch

    there = torch.ones(PINNED_FLOATS, device=device.name)
    here = torch.zeros(PINNED_FLOATS, pin_memory=True)
    part = "host_to_device_gb_per_s" if up else "device_to_host_gb_per_s"
    target, source = (there, here) if up else (here, there)
    device.time(part, here.nbytes / 1e9, lambda: target.copy_(source, non_blocking=True), ends)


def step_s_by_micro_batch(device: Device, step: Step, ends: float, threads: int = 1) -> dict[int, float]:
    """Every size in turn, again and again; the least time of each. A size that does not fit the memory or the budget is
    said to be missing, and so are those above it. Once each had a few turns, those that are far behind the fastest get
    no more, and those between it and its neighbours get theirs."""
    sizes = list(MICRO_BATCHES + (MORE_MICRO_BATCHES if device.kind == "cuda" else ()))
    best_s: dict[int, float] = {}
    own_s: dict[int, float] = {}
    """The processor's time of a thread, which others' work hardly stretches; on an accelerator the same."""

    def run(size: int) -> None:
        before = time.process_time()
        taken = device.run_s(partial(step, size))
        used = (time.process_time() - before) / threads if device.kind == "cpu" else None
        best_s[size] = min(best_s.get(size, taken), taken)
        own_s[size] = min(own_s.get(size, used or taken), used or taken)
        say_timed(f"step_s_by_micro_batch.{size}", None, [taken], used)

    for size in list(sizes):
        begun = time.perf_counter()
        # Twice the samples take at most about twice as long; and a first step is not counted.
        if best_s and begun + 4 * best_s[max(best_s)] > ends:
            why = "the benchmark's budget was used up before its turn"
        else:
            try:
                device.run_s(partial(step, size))  # a size's first step allocates
                run(size)
                continue
            except (MemoryError, RuntimeError) as error:
                why = reason(error)
        for larger in sizes[sizes.index(size) :]:
            say({"missing": {f"step_s_by_micro_batch.{larger}": why}})
        device.forget()
        break
    if not best_s:
        raise RuntimeError(why)
    turns = 1
    while time.perf_counter() < ends:
        for size in contenders(own_s) if turns >= FAIR_TURNS else sorted(own_s):
            if size not in own_s:
                device.run_s(partial(step, size))
            run(size)
            if time.perf_counter() >= ends:
                break
        turns += 1
    return own_s


def contenders(best_s: dict[int, float]) -> list[int]:
    """The sizes that may still be the fastest, by the shortest step of each; and those that lie between the fastest and
    the next ones below and above."""
    rates = {size: size / step_s for size, step_s in best_s.items()}
    fastest = max(rates, key=lambda size: rates[size])
    near = {size for size, rate in rates.items() if rate >= NEAR * rates[fastest]}
    ordered = sorted(best_s)
    at = ordered.index(fastest)
    for below, above in pairwise(ordered[max(0, at - 1) : at + 2]):
        if above - below > max(1, below // 4):
            near.add((below + above) // 2)
    return sorted(near)


def trained(device: Device, step: Step, size: int, ends: float) -> None:
    begun = time.monotonic()
    samples = 0
    while time.perf_counter() < ends or not samples:
        device.run_s(partial(step, size))
        samples += size
    say({"trained": {"begin_s": begun, "end_s": time.monotonic(), "samples": samples}})


def reference_step(device: str) -> Step:
    """A training step of the reference model, by micro-batch, on random tokens."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Sequential(
                nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:  # (batch, TOKENS, WIDTH), in and out
            mixed: torch.Tensor = x + self.mlp(x)
            return mixed

    blocks = (Block() for _ in range(BLOCKS))
    model = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *blocks, nn.Linear(WIDTH, VOCABULARY)).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(VOCABULARY, (max(MORE_MICRO_BATCHES), TOKENS), device=device)

    def step(micro_batch: int) -> None:
        seen = tokens[:micro_batch]
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(seen).flatten(0, 1), seen.flatten()))
        optimizer.step()

    return step


def task_step(name: str, settings: str, folder: Path, device: str) -> Step:
    """A training step of a task as a trainer takes it in fp32: load a batch, forward, backward, clip, optimizer.

    Raises:
        ValueError: there is no such task, its settings are wrong, or the folder cannot be trained on.
        ImportError: ``windfall.tasks`` is not installed here.
    """
    import torch

    from windfall.tasks.registry import load_task

    task = load_task(name, settings)
    model = task.model(0).to(device)
    optimizer = task.optimizer(model)
    loader = task.loader(folder, 0)

    def step(micro_batch: int) -> None:
        batch = loader.batch(micro_batch, model)
        held: dict[str, Any] = {one.name: getattr(batch, one.name) for one in fields(batch)}
        moved = {one: it.to(device) for one, it in held.items() if isinstance(it, torch.Tensor)}
        batch = replace(batch, **held | moved)
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(model, batch))
        torch.nn.utils.clip_grad_norm_(model.parameters(), task.gradient_norm)
        optimizer.step()

    return step


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - standard output is this program's answer


def say_timed(part: str, amount: float | None, taken: list[float], used: float | None = None) -> None:
    """Runs, and where it is known the processor's time of one."""
    own = {} if used is None else {"own_s": [used]}
    say({"timed": {part: {"amount": amount, "s": taken, **own}}})


def reason(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def attempt(part: str, measure: Callable[[], None]) -> None:
    """Measure a part, or say why it is missing: torch reports memory that runs out, and a device that is lost, as
    ``RuntimeError``; what a version of it does not have is an ``AttributeError``."""
    try:
        measure()
    except (MemoryError, RuntimeError, AttributeError) as error:
        say({"missing": {part: reason(error)}})


def bound_memory(of_bytes: int) -> None:
    """Half of the memory beyond what is held already; and the first to go when the machine runs out all the same."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
        status = Path("/proc/self/status").read_text()
        held = int(status.partition("VmData:")[2].split()[0]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (held + of_bytes // 2,) * 2)


def measure(options: argparse.Namespace, device: Device, step: Step) -> None:
    """All parts, each with its share of the budget."""
    import torch

    begun = time.perf_counter()
    full: bool = options.full

    def until(share: float) -> float:
        return begun + share * float(options.budget_s)

    attempt("matmul_gflops", lambda: matmul("fp32", device, "matmul_gflops", until(0.05 if full else 0.1)))
    if full:
        for number, dtype in enumerate(DTYPES, start=1):
            part = f"matmul_gflops_by_dtype.{dtype}"
            attempt(part, partial(matmul, dtype, device, part, until(0.05 + 0.015 * number)))
        for index in range(1, torch.cuda.device_count() if device.kind == "cuda" else 0):
            part = f"matmul_gflops_by_device.{index}"
            attempt(part, partial(matmul, "fp32", Device(f"cuda:{index}"), part, until(0.125 + 0.01 * index)))
    attempt("memory_bandwidth_gb_per_s", lambda: memory_bandwidth_gb_per_s(device, until(0.22 if full else 0.15)))
    if full and device.kind == "cuda":
        attempt("host_to_device_gb_per_s", lambda: pinned_copies(device, True, until(0.24)))
        attempt("device_to_host_gb_per_s", lambda: pinned_copies(device, False, until(0.26)))

    def steps() -> None:
        best_s = step_s_by_micro_batch(device, step, until(0.92 if full else 1), int(options.threads))
        if full:
            fastest = max(best_s, key=lambda size: size / best_s[size])
            trained(device, step, fastest, until(1))

    attempt("step_s_by_micro_batch", steps)


def workload(options: argparse.Namespace, device: str) -> Step:
    """The task's step, or why it cannot be and the reference model's."""
    if options.task:
        try:
            step = task_step(options.task, options.task_settings, Path(options.data_dir), device)
            step(1)
            say({"task": options.task})
            return step
        except (ImportError, ValueError, RuntimeError, OSError) as error:
            say({"missing": {"task": reason(error)}})
    step = reference_step(device)
    step(1)
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark this machine with torch.")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds to measure for, once torch is loaded")
    parser.add_argument("--threads", type=int, required=True, help="processor cores to use")
    parser.add_argument("--memory-bytes", type=int, default=0, help="of which no more than half is taken")
    parser.add_argument("--lifetime-s", type=int, required=True, help="seconds after which the kernel ends this")
    parser.add_argument("--full", action="store_true", help="measure more than a recommendation needs")
    parser.add_argument("--task", default="", help="whose step is measured, by its name in windfall.tasks")
    parser.add_argument("--task-settings", default="{}", help="JSON object")
    parser.add_argument("--data-dir", default=".", help="what the task trains on")
    options = parser.parse_args()
    # Bounded even when whoever started this is no longer there to end it: by time, and by its next word to nobody.
    signal.alarm(options.lifetime_s)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        import torch
    except (ImportError, OSError) as error:
        say({"missing": dict.fromkeys(PARTS, f"torch cannot be loaded: {error}")})
        return
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    try:
        device = Device("cuda:0" if torch.cuda.is_available() else "cpu")
        if device.kind == "cpu" and options.memory_bytes:
            bound_memory(options.memory_bytes)
        # torch loads its optimizers at first use, for a second or so: part of loading, not of a step.
        step = workload(options, device.name)
    except (MemoryError, RuntimeError) as error:
        say({"missing": dict.fromkeys(PARTS, reason(error))})
        return
    say({"device": device.kind})
    measure(options, device, step)


if __name__ == "__main__":
    main()
    os._exit(0)  # everything is said and flushed; torch takes its time to leave
