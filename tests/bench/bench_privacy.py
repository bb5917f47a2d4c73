"""What noise at the sites costs in loss: eight sites that all ask for it, and none that lies.

The federation is that of ``make bench-attacks``. The value is the last model's loss on held-out data, the mean over
the seeds, beside what it is without noise and what ten contributions with that noise tell (epsilon at delta 1e-5, of a
site's data as a whole). ``ARGS="SEEDS"`` is how many seeds; the noise itself is seeded by the operating system.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Final

import torch

from tests.bench.attacked_fleet import SITES, Ending, after_hours
from tests.bench.attacks import Attack
from tests.bench.figures import Figure, report
from windfall.lowcomm.accounting import epsilon_of, mu_squared
from windfall.lowcomm.rule import Rule
from windfall.site_trainer.policy import Privacy, SitePolicy

NOISES: Final = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NORM: Final = 1.0
"""That contributions are cut down to: some of what is learnt in a round is longer."""
DELTA: Final = 1e-5
MERGES: Final = ("mean", "median")
CODEC: Final = "int8-block"


def main() -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    began = time.process_time()
    found = {
        (merge, noise): [_run(merge, noise, seed) for seed in range(1, seeds + 1)]
        for merge in MERGES
        for noise in (0.0, *NOISES)
    }
    conditions = f"{len(SITES)} sites, {CODEC}, norm {NORM:g}, {seeds} seeds, {time.process_time() - began:.0f} CPU s"
    report(
        "privacy",
        [
            Figure(
                f"{merge}, noise {noise:g}" if noise else f"{merge}, no noise",
                _loss(endings),
                "nats",
                "none: what it costs",
                {
                    "without noise": _loss(found[merge, 0.0]),
                    "accuracy": fmean(one.accuracy for one in endings),
                    "rounds": fmean(one.rounds for one in endings),
                    "epsilon": epsilon_of(_rounds(endings) * mu_squared(noise), DELTA) if noise else "unbounded",
                },
                conditions,
            )
            for (merge, noise), endings in found.items()
        ],
    )


def _run(merge: str, noise: float, seed: int) -> Ending:
    private = SitePolicy(privacy=Privacy(norm=NORM, noise=noise, most_epsilon=1e9, delta=DELTA)) if noise else None
    room = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=room if room.is_dir() else None) as folder:
        rule = Rule.parse(CODEC, "average", False, merge)
        return after_hours(Path(folder), Attack("nobody lies"), rule, seed, canary=None, policy=private)


def _rounds(endings: list[Ending]) -> float:
    """Contributions of one site."""
    return fmean(one.rounds for one in endings)


def _loss(endings: list[Ending]) -> float:
    return fmean(one.loss for one in endings)


if __name__ == "__main__":
    main()
