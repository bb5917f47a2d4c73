"""``make bench-lowcomm``: loss against bytes, each method with the same tokens, beginning and global batch.

The whole takes hours of a core; runs that are done are kept in ``bench-results/runs`` and not repeated.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import torch

from tests.bench import lowcomm_codec
from tests.bench.figures import RESULTS, report
from tests.bench.lowcomm_data import image_folders, present, text_folders
from tests.bench.lowcomm_plot import draw
from tests.bench.lowcomm_pool import outcomes
from tests.bench.lowcomm_report import CHURN, COMPARED, IMAGE_ROW, headline, panels, rows
from tests.bench.lowcomm_run import DDP, Outcome, Plan, run

SEEDS: Final = (0, 1, 2)
SITES: Final = 4
GLOBAL_BATCH: Final = 32
"""Samples of a step of all sites together, however many they are."""


@dataclass(frozen=True)
class Method:
    """A way to synchronise, with the learning rate that was found best for it."""

    codec: str
    outer: str = ""
    learning_rate: float = 6e-3


@dataclass(frozen=True)
class Matter:
    """What is trained, and on how much."""

    task: str
    settings: Mapping[str, object]
    samples: int
    sample_tokens: int
    round_steps: int
    methods: Mapping[str, Method]

    def plan(self, method: str, seed: int = 0, sites: int = SITES, split: str = "iid", churn: bool = False) -> Plan:
        """The plan of a run; the schedule ends with the samples."""
        asked, total = self.methods[method], self.samples * self.sample_tokens
        settings = {
            **self.settings,
            "learning_rate": asked.learning_rate,
            "rate": f"cosine:total={total},warmup={total // 50}",
        }
        return Plan(
            task=self.task,
            settings=json.dumps(settings, sort_keys=True),
            codec=asked.codec,
            outer=asked.outer,
            samples=self.samples,
            sites=sites,
            batch=GLOBAL_BATCH // sites,
            round_steps=1 if asked.codec == DDP else self.round_steps,
            seed=seed,
            split=split,
            churn=churn,
        )


METHODS: Final = {
    "DDP": Method(DDP),
    "FedAvg": Method("fp32", "average"),
    "DiLoCo": Method("fp32", "nesterov:lr=0.7,momentum=0.6"),
    "int4": Method("int4-block", "nesterov:lr=0.7,momentum=0.6"),
    "q2-ef": Method("q2-ef", "nesterov:lr=0.7,momentum=0.6"),
    "topk-ef": Method("topk-ef"),
    "dct-momentum": Method("dct-momentum"),
}
TEXT: Final = Matter(
    task="gpt-neox",
    settings={"preset": "small", "optimizer": "adamw", "evaluation_windows": 1024},
    samples=3000 * GLOBAL_BATCH,
    sample_tokens=64,
    round_steps=10,
    methods=METHODS,
)
IMAGES: Final = Matter(
    task="resnet",
    settings={"preset": "small", "holdout": "75-89/90"},
    samples=400 * GLOBAL_BATCH,
    sample_tokens=1,
    round_steps=10,
    methods=METHODS,
)


def runner(plan: Plan, folder: Path) -> Outcome:
    """Furnish the sites and train."""
    furnish = text_folders if plan.task == TEXT.task else image_folders
    folders, held_out = furnish(folder, plan.sites, plan.split)
    return run(plan, folders, held_out, present(plan.sites) if plan.churn else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--done", action="store_true", help="report what was run before, and run nothing")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    plans = _plans()
    # Seed by seed, so that the rows are there early.
    found = outcomes(sorted(chain.from_iterable(plans.values()), key=lambda plan: plan.seed), runner, asked.done)
    seen = {name: {one.seed: found[one] for one in each if one in found} for name, each in plans.items()}
    with tempfile.TemporaryDirectory() as folder:
        costs = lowcomm_codec.figures(Path(folder) / "text")
    draw(panels(seen), RESULTS / "lowcomm.png")
    print(f"drawn to {RESULTS / 'lowcomm.png'}")
    tokens = TEXT.samples * TEXT.sample_tokens / 1e6
    conditions = f"gpt-neox small on {tokens:.1f} M characters, {SITES} sites, H {TEXT.round_steps}"
    report("lowcomm", [*headline(seen, conditions), *costs, *rows(seen)])


def _plans() -> dict[str, list[Plan]]:
    """Every run by the name of its row."""
    plans = {name: [TEXT.plan(name, seed) for seed in SEEDS] for name in COMPARED}
    plans[CHURN] = [TEXT.plan("topk-ef", seed, churn=True) for seed in SEEDS]
    plans |= {name: [TEXT.plan(name)] for name in METHODS if name not in COMPARED}
    plans |= {f"topk-ef, {sites} sites": [TEXT.plan("topk-ef", sites=sites)] for sites in (2, 8)}
    plans["topk-ef, own plays"] = [TEXT.plan("topk-ef", split="own")]
    plans |= {f"{IMAGE_ROW}{name}": [IMAGES.plan(name)] for name in METHODS}
    plans[f"{IMAGE_ROW}{CHURN}"] = [IMAGES.plan("topk-ef", churn=True)]
    for sites in (2, 8):
        plans |= {f"{IMAGE_ROW}{name}, {sites} sites": [IMAGES.plan(name, sites=sites)] for name in ("DDP", "topk-ef")}
    return plans


if __name__ == "__main__":
    main()
