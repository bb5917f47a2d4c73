"""Merges, in children that end themselves with -9 at every place where a crash could tell; and how much room it takes.

Run as a script: prints one JSON object. It forks, so it is a process of its own and starts nothing else.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import torch

from windfall.federation_coordinator.rounds import Contribution
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.outer import Outer, State, nesterov

MIB = 1024 * 1024


def contribution(number: int) -> Contribution:
    return Contribution(
        site=f"site-{number}",
        attempt=1,
        tokens=number + 1,
        steps=1,
        loss_nats=1.0,
        bytes_up=1,
        partial=False,
        sha256="0" * 64,
        codec="fp32",
    )


def lay_down(folder: Path, elements: int, sites: int) -> tuple[ModelStore, list[Contribution]]:
    store = ModelStore(folder, Layout((TensorSpec("weights", (elements,)),)), nesterov(), "fp32")
    store.initialise(torch.arange(elements, dtype=torch.float32) / elements)
    contributions = [contribution(number) for number in range(sites)]
    for number, one in enumerate(contributions):
        flat = torch.full((elements,), number / 8)
        store.contribution_path(0, *one.order).write_bytes(flat.numpy().tobytes())
    return store, contributions


def in_child(work: Callable[[], object]) -> int:
    """The signal that ended it; 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def die_at(step: int) -> Outer:
    """An outer optimizer that ends its process at the n-th chunk."""
    outer, calls = nesterov(), iter(range(1_000_000))

    def apply(state: State, base: torch.Tensor, gradient: torch.Tensor) -> tuple[State, torch.Tensor]:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return outer.apply(state, base, gradient)

    return replace(outer, apply=apply)


def die_at_file(event_number: int) -> None:
    """End this process when it touches a file for the n-th time: opens, renames and removals are audited by Python."""
    touched = iter(range(1_000_000))

    def watch(event: str, _: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "os.remove") and next(touched) == event_number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def killed(folder: Path) -> dict[str, object]:
    elements = 300_000  # three chunks
    store, contributions = lay_down(folder, elements, 3)
    layout = Layout((TensorSpec("weights", (elements,)),))

    def merge_and_die_in_chunk(step: int) -> None:
        ModelStore(folder, layout, die_at(step), "fp32").merge(0, contributions)

    def merge_and_die_at_file(number: int) -> None:
        die_at_file(number)
        store.merge(0, contributions)

    digests: set[str | None] = set()
    deaths = 0
    for attack in (merge_and_die_in_chunk, merge_and_die_at_file):
        for number in range(100):
            ended = in_child(lambda attack=attack, number=number: attack(number))  # type: ignore[misc]
            digests.add(store.merge(0, contributions))
            digests.add(store.digest(1))
            if not ended:
                break
            deaths += 1
        else:
            raise AssertionError("it never came to its end")
    return {
        "deaths": deaths,
        "digests": sorted(str(one) for one in digests),
        "left": sorted(path.name for path in folder.iterdir()),
    }


def room(folder: Path) -> dict[str, object]:
    elements, sites = 16 * MIB, 8
    layout = Layout((TensorSpec("weights", (elements,)),))
    small, few = lay_down(folder / "warm", 1000, 2)
    small.merge(0, few)
    store = ModelStore(folder / "large", layout, nesterov(), "fp32")
    contributions = [contribution(number) for number in range(sites)]
    # Holes in files are zeros, and cost no disk.
    for path in (store.base(0).path, *(store.contribution_path(0, *one.order) for one in contributions)):
        with path.open("wb") as file:
            file.truncate(layout.nbytes + (store.base(0).data_start if path == store.base(0).path else 0))
    with (folder / "large" / "outer-000000-0.f32").open("wb") as file:
        file.truncate(layout.nbytes)
    before = psutil.Process().memory_info().rss
    store.merge(0, contributions)
    return {"model_bytes": layout.nbytes, "raised_bytes": peak_resident() - before}


def peak_resident() -> int:
    """The most that this process ever held, in bytes. Not ``ru_maxrss``: that begins at the size of who forked us."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    found = {"room": room(place / "room"), "killed": killed(place / "killed")}
    sys.stdout.write(json.dumps(found))
