"""How fast the node's devices sum over all of them: a program of its own, run by path, as ``torch_bench.py`` is.

With several accelerators one process for each, over NCCL or RCCL; without any two processes on the processor, over Gloo
on the loopback. What is said is bus bandwidth, as NVIDIA's nccl-tests define it (doc/PERFORMANCE.md): 2(n - 1)/n times
the bytes of one rank over the time, so that it can be held against a link's specification whatever n is. The first
process starts the others; they end with it.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from typing import Any

FLOATS = {"gloo": 4 * 2**20, "nccl": 64 * 2**20}
"""16 and 256 MiB."""
FEWEST, MOST = 4, 60


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - standard output is this program's answer


def taken_s(backend: str, rank: int, ranks: int, store: str, budget_s: float) -> list[float]:
    """Seconds of each run, at this rank. All ranks do as many, by the word of the first."""
    import torch
    from torch import distributed

    where = f"cuda:{rank}" if backend == "nccl" else "cpu"
    distributed.init_process_group(
        backend, init_method=f"file://{store}", rank=rank, world_size=ranks, timeout=timedelta(seconds=60)
    )
    tensor = torch.ones(FLOATS[backend], device=where)

    def run() -> float:
        begun = time.perf_counter()
        distributed.all_reduce(tensor)
        if backend == "nccl":
            torch.cuda.synchronize(where)
        return time.perf_counter() - begun

    run()
    runs = torch.tensor([min(MOST, max(FEWEST, int(budget_s / run())))], device=where)
    distributed.broadcast(runs, 0)
    return [run() for _ in range(int(runs.item()))]


def main() -> None:
    parser = argparse.ArgumentParser(description="Sum over all devices of this machine.")
    parser.add_argument("--budget-s", type=float, required=True)
    parser.add_argument("--lifetime-s", type=int, required=True)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--store", default="")
    options = parser.parse_args()
    signal.alarm(options.lifetime_s)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", "lo")  # all ranks are here
    try:
        import torch
        from torch import distributed
    except (ImportError, OSError) as error:
        say({"missing": {"all_reduce_gb_per_s": f"torch cannot be loaded: {error}"}})
        return
    devices = torch.cuda.device_count()
    backend, ranks = ("nccl", devices) if devices else ("gloo", 2)
    if devices == 1 or not distributed.is_available():
        why = "there is one accelerator" if devices == 1 else "this torch has no distributed"
        say({"missing": {"all_reduce_gb_per_s": why}})
        return
    if not devices:
        torch.set_num_threads(1)
    if options.rank:
        taken_s(backend, options.rank, ranks, options.store, options.budget_s)
        return
    with tempfile.TemporaryDirectory() as folder:
        again = [sys.executable, __file__, f"--budget-s={options.budget_s}", f"--lifetime-s={options.lifetime_s}"]
        store = os.path.join(folder, "store")  # noqa: PTH118 - torch takes text
        others = [subprocess.Popen([*again, f"--rank={rank}", f"--store={store}"]) for rank in range(1, ranks)]
        try:
            taken = taken_s(backend, 0, ranks, store, options.budget_s)
        except RuntimeError as error:
            say({"missing": {"all_reduce_gb_per_s": str(error).partition("\n")[0] or type(error).__name__}})
            return
        finally:
            for other in others:
                other.kill()
        amount = 2 * (ranks - 1) / ranks * 4 * FLOATS[backend] / 1e9
        say({"all_reduce_ranks": ranks, "timed": {"all_reduce_gb_per_s": {"amount": amount, "s": taken}}})


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # everything is said; torch takes its time to leave
