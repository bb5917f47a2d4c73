"""``make bench-lowcomm``: loss against bytes, each method with the same tokens, beginning and global batch.

The whole takes hours of a core; runs that are done are kept in ``bench-results/runs`` and not repeated.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Final

import torch

from tests.bench import lowcomm_codec
from tests.bench.figures import RESULTS, Figure, report
from tests.bench.lowcomm_data import image_folders, present, text_folders
from tests.bench.lowcomm_plot import Panel, draw
from tests.bench.lowcomm_pool import outcomes
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
    settings={"preset": "small", "evaluation_windows": 1024},
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
HEADLINE: Final = ("DDP", "DiLoCo", "topk-ef", "dct-momentum")
FEWER_BYTES: Final = 16


def runner(plan: Plan, folder: Path) -> Outcome:
    """Furnish the sites and train."""
    furnish = text_folders if plan.task == TEXT.task else image_folders
    folders, held_out = furnish(folder, plan.sites, plan.split)
    return run(plan, folders, held_out, present(plan.sites) if plan.churn else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text-samples", type=int, default=TEXT.samples, help="fewer for a quick look")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    text, seeds = replace(TEXT, samples=asked.text_samples), SEEDS[: asked.seeds]
    runs = _plans(text, seeds)
    found = outcomes(list(chain.from_iterable(runs.values())), runner)
    seen = {name: [found[plan] for plan in plans] for name, plans in runs.items()}
    with tempfile.TemporaryDirectory() as folder:
        costs = lowcomm_codec.figures(Path(folder) / "text")
    draw(_panels(seen), RESULTS / "lowcomm.png")
    print(f"drawn to {RESULTS / 'lowcomm.png'}")
    report("lowcomm", [*_headline(seen, text), *costs, *_rows(seen)])


def _plans(text: Matter, seeds: Sequence[int]) -> dict[str, list[Plan]]:
    """Every run by the name of its row, what matters most first."""
    plans = {name: [text.plan(name, seed) for seed in seeds] for name in HEADLINE}
    plans["topk-ef, churn"] = [text.plan("topk-ef", seed, churn=True) for seed in seeds]
    plans |= {name: [text.plan(name)] for name in METHODS if name not in HEADLINE}
    for sites in (2, 8):
        plans[f"topk-ef, {sites} sites"] = [text.plan("topk-ef", sites=sites)]
    plans["topk-ef, own plays"] = [text.plan("topk-ef", split="own")]
    for sites in (2, 4, 8):
        names = METHODS if sites == SITES else ("DDP", "topk-ef")
        plans |= {f"images: {name}, {sites} sites": [IMAGES.plan(name, sites=sites)] for name in names}
    plans["images: topk-ef, churn, 4 sites"] = [IMAGES.plan("topk-ef", churn=True)]
    return plans


def _headline(seen: Mapping[str, Sequence[Outcome]], text: Matter) -> list[Figure]:
    tokens = text.samples * text.sample_tokens / 1e6
    seeds = len(seen["DDP"])
    conditions = f"gpt-neox small on {tokens:.2g} M characters, {SITES} sites, H {text.round_steps}, {seeds} seeds"
    ddp, dense, sparse, dct, churn = (seen[name] for name in (*HEADLINE, "topk-ef, churn"))
    return [
        Figure(
            "bytes against DDP",
            _up(ddp) / _up(sparse),
            "x fewer",
            "at least 2000",
            {"up MB, DDP": _up(ddp) / 1e6, "topk-ef": _up(sparse) / 1e6, "bit per parameter": _bits(sparse)},
            f"topk-ef, headers included, against fp32 gradients every step; {conditions}",
        ),
        _over("loss over DDP %", sparse, ddp, "at most 1.5", conditions),
        _over("topk-ef loss over dense %", sparse, dense, "at most 1", f"dense is DiLoCo in fp32; {conditions}"),
        _over(
            "dct-momentum loss over dense %",
            dct,
            dense,
            f"at most 1 at {FEWER_BYTES} x fewer bytes",
            f"with {_up(dense) / _up(dct):.0f} x fewer bytes; {conditions}",
        ),
        _over("churn loss over steady %", churn, sparse, "at most 2", f"topk-ef; {conditions}"),
    ]


def _over(figure: str, ours: Sequence[Outcome], theirs: Sequence[Outcome], goal: str, conditions: str) -> Figure:
    """How much higher the mean loss is, beside the single seeds."""
    each = [(a.loss / b.loss - 1) * 100 for a, b in zip(ours, theirs, strict=True)]
    beside: dict[str, float | str] = {"loss": _loss(ours), "against": _loss(theirs)}
    beside |= {f"seed {seed}": value for seed, value in enumerate(each)}
    return Figure(figure, (_loss(ours) / _loss(theirs) - 1) * 100, "%", goal, beside, conditions)


def _rows(seen: Mapping[str, Sequence[Outcome]]) -> list[Figure]:
    """A line for every method: its held-out loss, beside its bytes."""
    rows = []
    for name, runs in seen.items():
        images = name.startswith("images")
        against = seen["images: DDP, 4 sites" if images else "DDP"]
        beside: dict[str, float | str] = {
            "MB up": _up(runs) / 1e6,
            "x fewer than DDP": _up(against) / _up(runs),
            "bit per parameter": _bits(runs),
        }
        if images:
            beside["accuracy"] = fmean(one.value for one in runs)
        if len(runs) > 1:
            beside["seeds"] = ", ".join(f"{one.loss:.3f}" for one in runs)
        rows.append(Figure(f"held-out loss, {name}", _loss(runs), "nats", "", beside, ""))
    return rows


def _panels(seen: Mapping[str, Sequence[Outcome]]) -> list[Panel]:
    text = {name: seen[name] for name in (*METHODS, "topk-ef, churn")}
    images = {name: seen[f"images: {name}, 4 sites"] for name in (*METHODS, "topk-ef, churn")}
    return [
        Panel("gpt-neox, tinyshakespeare, 4 sites", text, "held-out loss, nats per byte"),
        Panel("resnet, Fashion-MNIST, 4 sites", images, "held-out loss, nats"),
    ]


def _loss(runs: Sequence[Outcome]) -> float:
    return fmean(one.loss for one in runs)


def _up(runs: Sequence[Outcome]) -> float:
    """Bytes that a site sends up, on average."""
    return fmean(one.bytes_up / one.sites for one in runs)


def _bits(runs: Sequence[Outcome]) -> float:
    return fmean(one.bits_per_parameter for one in runs)


if __name__ == "__main__":
    main()
