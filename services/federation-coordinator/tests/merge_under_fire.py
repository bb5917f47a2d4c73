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

from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.outer import Outer, State, nesterov
from windfall.lowcomm.rule import Rule

MIB = 1024 * 1024


def layout_of(elements: int) -> Layout:
    return Layout((TensorSpec("weights", (elements,)), TensorSpec("seen", (5,), "int64", exact=True)))


def contribution(number: int, codec: str = "fp32", nbytes: int = 1) -> Contribution:
    return Contribution(
        site=f"site-{number}",
        attempt=1,
        base_round=0,
        tokens=number + 1,
        steps=1,
        loss_nats=1.0,
        bytes_up=nbytes,
        partial=False,
        sha256="0" * 64,
        codec=codec,
    )


def lay_down(folder: Path, elements: int, sites: int, rule: Rule) -> tuple[ModelStore, list[Contribution]]:
    layout = layout_of(elements)
    store = ModelStore(folder, layout, rule)
    store.initialise(torch.arange(layout.elements, dtype=torch.float32) / elements)
    contributions: list[Contribution] = []
    for number in range(sites):
        if elements > MIB and contributions:
            # For room it does not matter what they say: one file stands under every name.
            contributions.append(contribution(number, rule.codec.name, contributions[0].bytes_up))
            first = store.contribution_path(0, contributions[0].site, 1)
            os.link(first, store.contribution_path(0, f"site-{number}", 1))
            continue
        # Cheap to make, and no two elements of a chunk are alike.
        gradient = torch.arange(layout.elements, dtype=torch.float32).remainder_(997 + number).div_(1000)
        state = rule.codec.init(layout.split.trained)
        _, data = rule.encode(state, gradient, layout.split, base=0, tokens=number + 1, steps=1)
        contributions.append(contribution(number, rule.codec.name, len(data)))
        store.contribution_path(0, contributions[-1].site, 1).write_bytes(data)
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


def killed(folder: Path, codec: str) -> dict[str, object]:
    elements = 300_000  # three chunks
    rule = Rule.parse(codec, "nesterov" if codec == "fp32" else "")
    store, contributions = lay_down(folder, elements, 3, rule)

    def merge_and_die_in_chunk(step: int) -> None:
        ModelStore(folder, layout_of(elements), replace(rule, outer=die_at(step))).merge(0, contributions)

    def merge_and_die_at_file(number: int) -> None:
        die_at_file(number)
        store.merge(0, contributions)

    digests: set[str | None] = set()
    deaths = 0
    for attack in (merge_and_die_in_chunk, merge_and_die_at_file) if codec == "fp32" else (merge_and_die_at_file,):
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


def room(folder: Path, codec: str) -> dict[str, object]:
    """Measured in a child, whose peak is its own."""
    found = folder / "found"
    folder.mkdir(parents=True)
    assert not in_child(lambda: found.write_text(json.dumps(_room(folder, codec))))
    measured: dict[str, object] = json.loads(found.read_text())
    return measured


def _room(folder: Path, codec: str) -> dict[str, object]:
    elements, sites = 16 * MIB, 8
    rule = Rule.parse(codec, "nesterov" if codec == "fp32" else "")
    small, few = lay_down(folder / "warm", 1000, 2, rule)
    small.merge(0, few)
    large = folder / "large"
    if in_child(lambda: lay_down(large, elements, sites, rule)):
        raise AssertionError("nothing was laid down")
    layout = layout_of(elements)
    store = ModelStore(large, layout, rule)
    contributions = [
        contribution(number, codec, store.contribution_path(0, f"site-{number}", 1).stat().st_size)
        for number in range(sites)
    ]
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
    found = {
        "room": {codec: room(place / f"room-{codec}", codec) for codec in ("fp32", "topk-ef")},
        "killed": {codec: killed(place / f"killed-{codec}", codec) for codec in ("fp32", "topk-ef", "int4-block")},
    }
    sys.stdout.write(json.dumps(found))
