"""What three sites of eight come to that are one owner's, all dishonest, with and without a cap on that owner's share.

As ``bench_attacks``, under merges that weigh: a robust merge gives each site a vote, whoever owns it.
``ARGS="SEEDS"`` is how many seeds.
"""

import logging
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Final

import torch
from rich.console import Console
from rich.table import Table

from tests.bench.attacked_fleet import CANARY, SITES, after_hours
from tests.bench.attacks import Attack
from tests.bench.figures import Figure, report
from windfall.federation_coordinator.firewall import Limits
from windfall.lowcomm.rule import Rule

CODEC: Final = "int8-block"
ATTACKS: Final = (
    Attack("nobody lies", liars=3),
    Attack("sign flip", lambda own, _: -own, liars=3),
    Attack("wrong labels", poison="labels", share=1.0, liars=3),
)
SHARES: Final = (1.0, 0.25, 0.125)
MERGES: Final = {"mean": False, "mean, clip": True}


def main() -> None:
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    began = time.process_time()
    cases = list(product(ATTACKS, MERGES, SHARES))
    found = {
        (attack.name, merge, share): fmean(_loss(attack, merge, share, seed) for seed in range(1, seeds + 1))
        for attack, merge, share in cases
    }
    conditions = (
        f"{len(SITES)} sites, three of them one owner's, {CODEC}, gate {CANARY}, {seeds} seeds, "
        f"{len(cases) * seeds} federations in {time.process_time() - began:.0f} CPU s"
    )
    table = Table(title="final held-out loss, nats, by the owner's share at most", title_justify="left")
    for name in ("its three sites", *(f"{merge}, {share:g}" for merge, share in product(MERGES, SHARES))):
        table.add_column(name)
    for attack in ATTACKS:
        losses = (found[attack.name, merge, share] for merge, share in product(MERGES, SHARES))
        table.add_row(attack.name, *(f"{loss:.2f}" for loss in losses))
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    report(
        "sybils",
        [
            Figure(
                f"{attack}, {merge}, share {share:g}",
                loss,
                "nats",
                "none: shares are to be compared",
                {"without a cap": found[attack, merge, 1.0], "nobody lies": found["nobody lies", merge, share]},
                conditions,
            )
            for (attack, merge, share), loss in found.items()
        ],
    )


def _loss(attack: Attack, merge: str, share: float, seed: int) -> float:
    owners = dict.fromkeys(SITES[-attack.liars :], "owner")
    room = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=room if room.is_dir() else None) as folder:
        rule = Rule.parse(CODEC, "average", MERGES[merge], "mean")
        limits = Limits(owners=owners, owner_share=share)
        return after_hours(Path(folder), attack, rule, seed, canary=CANARY, limits=limits).loss


if __name__ == "__main__":
    main()
