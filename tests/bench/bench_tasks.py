"""``make bench-tasks``: what each model family reaches, centralised and over three sites, with the same samples in all.

Runs that are done are kept in ``bench-results/runs`` and not repeated. ``WINDFALL_DATA`` names the folder of the data
that do not ship; a family whose data are not there is left out.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

from tests.bench.figures import Figure, report
from tests.bench.lowcomm_data import share_folders, shipped, text_folders
from tests.bench.lowcomm_pool import outcomes
from tests.bench.lowcomm_run import DDP, Outcome, Plan, run

SITES: Final = 3
POINTS: Final = 4
DATA: Final = Path(os.environ.get("WINDFALL_DATA", "../shared/data")).resolve()


@dataclass(frozen=True)
class Family:
    """A task with its small preset, as it is trained for the figure."""

    figure: str
    task: str
    goal: str
    samples: int
    """Of all sites together; a sample is what the task counts as one."""
    batch: int
    site_batch: int
    round_steps: int
    site_batches: tuple[int, ...] = ()
    """Where sites take steps of different sizes."""
    settings: Mapping[str, object] = field(default_factory=dict)
    codec: str = "topk-ef"
    outer: str = ""
    folder: Path | None = None
    """Where the data are; none: text that ships, or no data."""
    shares: Sequence[Mapping[str, object]] = ({}, {}, {})
    """What each site's ``share.json`` says beside the folder."""
    unit: str = "share"

    def plan(self, federated: bool) -> Plan:
        """A centralised run is one site that has everything and synchronises with nobody."""
        return Plan(
            task=self.task,
            settings=json.dumps(self.settings, sort_keys=True),
            codec=self.codec if federated else DDP,
            outer=self.outer if federated else "",
            samples=self.samples,
            sites=SITES if federated else 1,
            batch=self.site_batch if federated else self.batch,
            round_steps=self.round_steps if federated else 1,
            points=POINTS,
            batches=self.site_batches if federated else (),
        )


FAMILIES: Final = (
    Family(
        "gpt-neox nats per byte",
        "gpt-neox",
        "under 1.65; federated at most 5 % above",
        samples=96_000,
        batch=32,
        site_batch=16,
        round_steps=10,
        settings={
            "preset": "small",
            "optimizer": "muon",
            "learning_rate": 6e-3,
            "rate": "cosine:total=6144000,warmup=122880",
            "evaluation_windows": 1024,
        },
        unit="nats",
    ),
    Family(
        "resnet accuracy",
        "resnet",
        "over 0.97; federated at most 0.02 below",
        samples=48_000,
        batch=32,
        site_batch=16,
        round_steps=5,
        settings={
            "preset": "small",
            "holdout": "8000-9999",
            "learning_rate": 0.01,
            "rate": "cosine:total=48000,warmup=1000",
        },
        folder=DATA / "images/mnist-t10k",
        shares=[{"part": f"{site}/{SITES}"} for site in range(SITES)],
    ),
    Family(
        "gcn accuracy",
        "gcn",
        "over 0.8; federated at most 0.02 below",
        samples=140 * 800,
        batch=140,
        site_batch=46,
        # A site's labelled nodes, all of them in every step.
        site_batches=(44, 34, 62),
        round_steps=20,
        settings={"preset": "small"},
        codec="fp32",
        outer="average",
        folder=shipped("cora"),
        shares=[{"site": site} for site in range(SITES)],
    ),
    Family(
        "ppo mean return",
        "ppo",
        "at least 475; federated at most 2 % below",
        samples=1_310_720,
        batch=256,
        site_batch=256,
        round_steps=40,
        settings={"preset": "cartpole"},
        unit="return",
    ),
    Family(
        "wav2vec2 accuracy",
        "wav2vec2",
        "over 0.85; federated at most 0.02 below",
        samples=36_000,
        batch=8,
        site_batch=8,
        round_steps=10,
        settings={"preset": "small"},
        codec="int8-block",
        folder=DATA / "audio/fsdd/recordings",
        shares=[{"speakers": two} for two in (["george", "theo"], ["jackson", "nicolas"], ["lucas", "yweweler"])],
    ),
)


def runner(plan: Plan, folder: Path) -> Outcome:
    """Furnish the sites and train."""
    family = next(each for each in FAMILIES if each.task == plan.task)
    folders, held_out = furnish(family, folder, plan.sites)
    return run(plan, folders, held_out)


def furnish(family: Family, folder: Path, sites: int) -> tuple[list[Path], Path]:
    """A folder for each site, which says what of the data is its own, and the one that is evaluated on."""
    if family.task == "gpt-neox":
        return text_folders(folder, sites, "own")
    if family.folder is None:
        return [folder] * sites, folder
    shares = family.shares if sites == SITES else [{}]
    return share_folders(folder, family.folder, shares), family.folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=[family.task for family in FAMILIES])
    asked = parser.parse_args()
    families = [family for family in FAMILIES if not asked.only or family.task in asked.only]
    ready = [family for family in families if family.folder is None or family.folder.is_dir()]
    plans = [(family.plan(False), family.plan(True)) for family in ready]
    found = outcomes(list(chain.from_iterable(plans)), runner)
    figures = [
        _figure(family, found[alone], found[together]) for family, (alone, together) in zip(ready, plans, strict=True)
    ]
    report("tasks", [*figures, *(_skipped(family) for family in families if family not in ready)])


def _figure(family: Family, alone: Outcome, together: Outcome) -> Figure:
    better = -1 if family.unit == "nats" else 1
    below = better * (alone.value - together.value)
    relative = family.unit in ("nats", "return")
    return Figure(
        family.figure,
        alone.value,
        family.unit,
        family.goal,
        {
            "federated": together.value,
            "worse by": f"{below / alone.value:.2%}" if relative else f"{below * 100:.2f} points",
            "seconds, centralised": alone.seconds,
            "federated, three sites in turn": together.seconds,
            "bit per parameter up": together.bits_per_parameter,
        },
        f"{alone.parameters:,} parameters, {family.samples:,} samples in steps of {family.batch}; federated: {SITES} "
        f"sites, steps of {family.site_batch}, {family.codec}, H {family.round_steps}",
    )


def _skipped(family: Family) -> Figure:
    return Figure(
        family.figure,
        float("nan"),
        family.unit,
        family.goal,
        {},
        f"skipped: {family.folder} is not there; set WINDFALL_DATA",
    )


if __name__ == "__main__":
    main()
