"""The compute benchmark: a program of its own, run by path in a child process that may be killed at any moment.

It stands beside the package's modules rather than among them, and needs nothing but torch: the profiler stays free of
torch (its memory, its start-up time, its crashes), and any interpreter that has torch can run this file. What is found
is said in JSON lines as it is found, so that it is kept when the end is untimely; a later line corrects an earlier one,
and the first, empty one says that torch is loaded.

What is measured, in fp32 on the processor:

* ``matmul_gflops``: 2n³ operations of an n × n product.
* ``memory_bandwidth_gb_per_s``: the Copy kernel of STREAM (McCalpin, 1995), bytes read plus bytes written.
* ``step_s_by_micro_batch``: forward, backward and AdamW step of a small residual MLP language model. The sizes take
  turns, so that a busy moment of the machine falls on all of them alike.

Each is the best of several runs: whatever else the machine does can only add to a run, never take from it.
"""

import argparse
import itertools
import json
import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial

PARTS = ("matmul_gflops", "memory_bandwidth_gb_per_s", "step_s_by_micro_batch")
MICRO_BATCHES = (1, 2, 4, 8, 16, 32)

MATMUL_SIDE = 1024
COPY_FLOATS = 16 * 2**20
"""64 MiB: well over the last-level cache of what we run on, well under its memory."""

VOCABULARY, TOKENS, WIDTH, BLOCKS = 256, 64, 128, 4
"""The reference model; a sample is ``TOKENS`` tokens."""


def run_s(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def best_run_s(work: Callable[[], object], ends: float) -> float:
    """The shortest of the runs that fit in until ``ends``, after one that does not count; at least one does."""
    work()
    best = run_s(work)
    while time.perf_counter() + best < ends:
        best = min(best, run_s(work))
    return best


def matmul_gflops(ends: float) -> None:
    import torch

    left, right = torch.randn(2, MATMUL_SIDE, MATMUL_SIDE)
    out = torch.empty(MATMUL_SIDE, MATMUL_SIDE)
    best_s = best_run_s(lambda: torch.mm(left, right, out=out), ends)
    say({"matmul_gflops": 2 * MATMUL_SIDE**3 / best_s / 1e9})


def memory_bandwidth_gb_per_s(ends: float) -> None:
    import torch

    source, target = torch.ones(COPY_FLOATS), torch.zeros(COPY_FLOATS)
    best_s = best_run_s(lambda: target.copy_(source), ends)
    say({"memory_bandwidth_gb_per_s": 2 * source.nbytes / best_s / 1e9})


def step_s_by_micro_batch(ends: float, step: Callable[[int], None]) -> None:
    """Every size in turn, again and again. A size whose turn never comes is said to be missing."""
    best_s: dict[int, float] = {}
    for size in itertools.cycle(MICRO_BATCHES):
        if time.perf_counter() >= ends:
            break
        if size not in best_s:
            step(size)  # a size's first step allocates, and does not count
        best_s[size] = min(run_s(partial(step, size)), best_s.get(size, math.inf))
        say({"step_s_by_micro_batch": {size: best_s[size]}})
    for size in MICRO_BATCHES:
        if size not in best_s:
            say({"missing": {f"step_s_by_micro_batch.{size}": "the benchmark's budget was used up before its turn"}})


def reference_step() -> Callable[[int], None]:
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
    model = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *blocks, nn.Linear(WIDTH, VOCABULARY))
    optimizer = torch.optim.AdamW(model.parameters())
    tokens = torch.randint(VOCABULARY, (max(MICRO_BATCHES), TOKENS))

    def step(micro_batch: int) -> None:
        seen = tokens[:micro_batch]
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(seen).flatten(0, 1), seen.flatten()))
        optimizer.step()

    return step


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - standard output is this program's answer


def attempt(part: str, measure: Callable[[], None]) -> None:
    """Measure a part, or say why it is missing: torch reports memory that runs out as ``RuntimeError``."""
    try:
        measure()
    except (MemoryError, RuntimeError) as error:
        say({"missing": {part: str(error).partition("\n")[0] or type(error).__name__}})


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark this processor with torch.")
    parser.add_argument("--budget-s", type=float, required=True, help="seconds to measure for, once torch is loaded")
    parser.add_argument("--threads", type=int, required=True, help="processor cores to use")
    parser.add_argument("--lifetime-s", type=int, required=True, help="seconds after which the kernel ends this")
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
    step = reference_step()
    step(1)  # torch loads its optimizers at first use, for a second or so: part of loading, not of a step
    say({})
    begun = time.perf_counter()
    budget_s: float = options.budget_s
    attempt("matmul_gflops", lambda: matmul_gflops(begun + 0.15 * budget_s))
    attempt("memory_bandwidth_gb_per_s", lambda: memory_bandwidth_gb_per_s(begun + 0.3 * budget_s))
    attempt("step_s_by_micro_batch", lambda: step_s_by_micro_batch(begun + budget_s, step))


if __name__ == "__main__":
    main()
    os._exit(0)  # everything is said and flushed; torch takes its time to leave
