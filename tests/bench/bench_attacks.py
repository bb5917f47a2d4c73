"""What attacks come to under each merge: eight sites on virtual time, some of them dishonest.

Every run is a federation of the services' own code (``attacked_fleet``) with the update firewall on, and the canary
gate where its column says so. The value is the last model's loss on clean held-out data, the mean over the seeds;
beside it what it is without an attack, and how often a backdoor's trigger turns what it sees into its target.
``ARGS="SEEDS"`` is how many seeds.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Final

import torch
from rich.console import Console
from rich.table import Table

from tests.bench.attacked_fleet import CANARY, SITES, Ending, after_hours
from tests.bench.attacks import ATTACKS, Attack
from tests.bench.figures import Figure, report
from windfall.lowcomm.rule import Rule

CODEC: Final = "int8-block"
RULES: Final = {
    "mean, no gate": ("mean", False, None),
    "mean": ("mean", False, CANARY),
    "mean, clip": ("mean", True, CANARY),
    "median": ("median", False, CANARY),
    "trimmed-mean": ("trimmed-mean:share=0.25", False, CANARY),
    "krum": ("krum:byzantine=2", False, CANARY),
    "multi-krum": ("multi-krum:byzantine=2", False, CANARY),
    "multi-krum, no gate": ("multi-krum:byzantine=2", False, None),
}
"""Merge, clip, and by which share the gate lets the loss get worse. The first is what a coordinator does untold."""
ROBUST: Final = tuple(name for name, (merge, _, _) in RULES.items() if merge != "mean")
BAND_NATS: Final = 0.05
"""How much worse than the mean without an attack a model under a robust merge may be."""
Endings = dict[tuple[str, str], list[Ending]]


def main() -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    began = time.process_time()
    found: Endings = {}
    for attack in ATTACKS:
        for name in RULES:
            endings = found[attack.name, name] = [_run(attack, name, seed) for seed in range(1, seeds + 1)]
            print(f"{attack.name}, {name}: {_loss(endings):.3f}", flush=True)
    seconds = time.process_time() - began
    calm = _loss(found[ATTACKS[0].name, "mean"])
    _print(found, calm)
    conditions = (
        f"{len(SITES)} sites, two of them dishonest unless it says how many, {CODEC}, {seeds} seeds, gate {CANARY}, "
        f"{len(found) * seeds} federations in {seconds:.0f} CPU s"
    )
    report(
        "attacks",
        [
            Figure(
                f"{attack}, {rule}",
                _loss(endings),
                "nats",
                f"at most {calm + BAND_NATS:.2f}" if rule in ROBUST else "none: the mean is to be compared with",
                {
                    "without an attack": _loss(found[ATTACKS[0].name, rule]),
                    "accuracy": fmean(one.accuracy for one in endings),
                    "backdoor": _backdoor(endings),
                    "refused": fmean(sum(one.refused.values()) for one in endings),
                    "discarded": fmean(one.discarded for one in endings),
                    "rounds": fmean(one.rounds for one in endings),
                },
                conditions,
            )
            for (attack, rule), endings in found.items()
        ],
    )


def _run(attack: Attack, name: str, seed: int) -> Ending:
    merge, clip, canary = RULES[name]
    room = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=room if room.is_dir() else None) as folder:
        return after_hours(Path(folder), attack, Rule.parse(CODEC, "average", clip, merge), seed, canary=canary)


def _loss(endings: list[Ending]) -> float:
    return fmean(one.loss for one in endings)


def _backdoor(endings: list[Ending]) -> float:
    return fmean(one.backdoor for one in endings)


def _print(found: Endings, calm: float) -> None:
    title = f"final held-out loss, nats; within the band up to {calm + BAND_NATS:.2f}; of a backdoor its success, too"
    table = Table(title=title, title_justify="left")
    table.add_column("attack")
    for name in RULES:
        table.add_column(name, justify="right")
    for attack in ATTACKS:
        cells = []
        for name in RULES:
            endings = found[attack.name, name]
            success = f" ({_backdoor(endings):.0%})" if attack.poison == "backdoor" else ""
            cells.append(f"{_loss(endings):.2f}{success}" + ("" if _loss(endings) <= calm + BAND_NATS else " !"))
        table.add_row(attack.name, *cells)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
