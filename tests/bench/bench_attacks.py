"""What attacks come to under each merge: eight sites on virtual time, two of them dishonest.

Every run is a federation of the services' own code (``attacked_fleet``) with the update firewall and the canary gate
on. The value is the last model's loss on clean held-out data, the mean over the seeds; beside it what it is without an
attack. ``ARGS="SEEDS"`` is how many seeds.
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

from tests.bench.attacked_fleet import CANARY, LIARS, SITES, Ending, after_hours
from tests.bench.attacks import ATTACKS, Attack
from tests.bench.figures import Figure, report
from windfall.lowcomm.rule import Rule

CODEC: Final = "int8-block"
RULES: Final = {
    "mean": ("mean", False),
    "mean, clip": ("mean", True),
    "median": ("median", False),
    "trimmed-mean": ("trimmed-mean:share=0.25", False),
    "krum": ("krum:byzantine=2", False),
    "multi-krum": ("multi-krum:byzantine=2", False),
}
BAND_NATS: Final = 0.05
"""How much worse than the mean without an attack a model under a robust merge may be."""


def main() -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    began = time.process_time()
    found: dict[tuple[str, str], list[Ending]] = {}
    for attack in ATTACKS:
        for name in RULES:
            endings = found[attack.name, name] = [_run(attack, name, seed) for seed in range(1, seeds + 1)]
            print(f"{attack.name}, {name}: {fmean(one.loss for one in endings):.3f}", flush=True)
    seconds = time.process_time() - began
    losses = {key: fmean(one.loss for one in endings) for key, endings in found.items()}
    calm = losses[ATTACKS[0].name, "mean"]
    _print(losses, calm)
    conditions = (
        f"{len(SITES)} sites, {len(LIARS)} dishonest, {CODEC}, {seeds} seeds, canary {CANARY}, "
        f"{len(found) * seeds} federations in {seconds:.0f} CPU s"
    )
    report(
        "attacks",
        [
            Figure(
                f"{attack}, {rule}",
                losses[attack, rule],
                "nats",
                f"at most {calm + BAND_NATS:.2f}" if rule != "mean" else "none: the mean is to be compared with",
                {
                    "without an attack": losses[ATTACKS[0].name, rule],
                    "accuracy": fmean(one.accuracy for one in endings),
                    "backdoor": fmean(one.backdoor for one in endings),
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
    merge, clip = RULES[name]
    room = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=room if room.is_dir() else None) as folder:
        return after_hours(Path(folder), attack, Rule.parse(CODEC, "average", clip, merge), seed)


def _print(losses: dict[tuple[str, str], float], calm: float) -> None:
    table = Table(
        title=f"final held-out loss, nats; within the band up to {calm + BAND_NATS:.2f}", title_justify="left"
    )
    table.add_column("attack")
    for name in RULES:
        table.add_column(name, justify="right")
    for attack in ATTACKS:
        cells = [losses[attack.name, name] for name in RULES]
        table.add_row(attack.name, *(f"{loss:.2f}" + ("" if loss <= calm + BAND_NATS else " !") for loss in cells))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
