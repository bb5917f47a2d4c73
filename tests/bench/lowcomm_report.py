"""Figures from runs: what is compared with what."""

from collections.abc import Mapping
from statistics import fmean
from typing import Final

from tests.bench.figures import Figure
from tests.bench.lowcomm_plot import Panel
from tests.bench.lowcomm_run import Outcome

COMPARED: Final = ("DDP", "DiLoCo", "topk-ef", "dct-momentum")
"""Methods that are run with every seed."""
CHURN: Final = "topk-ef, churn"
IMAGE_ROW: Final = "images: "

Seeds = Mapping[int, Outcome]
"""A row's runs that are there, by their seeds."""


def headline(seen: Mapping[str, Seeds], conditions: str) -> list[Figure]:
    """What the goals speak of, as far as both sides were run with the same seed."""
    ddp, dense, sparse, dct = (seen[name] for name in COMPARED)
    figures = []
    if ddp and sparse:
        beside: dict[str, float | str] = {"MB up, DDP": up(ddp) / 1e6, "topk-ef": up(sparse) / 1e6}
        against = f"topk-ef with its headers against fp32 gradients every step; {conditions}"
        figures.append(Figure("bytes against DDP", up(ddp) / up(sparse), "x fewer", "at least 2000", beside, against))
    figures += [
        *_over("loss over DDP %", sparse, ddp, "at most 1.5", f"topk-ef; {conditions}"),
        *_over("topk-ef loss over dense %", sparse, dense, "at most 1", f"dense: DiLoCo in fp32; {conditions}"),
        *_over("dct-momentum loss over dense %", dct, dense, "at most 1 at 16 x fewer bytes", conditions),
        *_over("churn loss over steady %", seen[CHURN], sparse, "at most 2", f"topk-ef; {conditions}"),
    ]
    return figures


def rows(seen: Mapping[str, Seeds]) -> list[Figure]:
    """A line for every method: its held-out loss beside its bytes."""
    found = []
    for name, runs in seen.items():
        against = seen[f"{IMAGE_ROW}DDP" if name.startswith(IMAGE_ROW) else "DDP"]
        if not runs:
            continue
        beside: dict[str, float | str] = {"MB up": up(runs) / 1e6}
        if against:
            beside["x fewer than DDP"] = up(against) / up(runs)
        beside["bit per parameter"] = fmean(one.bits_per_parameter for one in runs.values())
        if name.startswith(IMAGE_ROW):
            beside["accuracy"] = fmean(one.value for one in runs.values())
        beside |= {f"seed {seed}": f"{one.loss:.4f}" for seed, one in runs.items() if len(runs) > 1}
        found.append(Figure(f"held-out loss, {name}", _mean_loss(runs), "nats", "", beside))
    return found


def panels(seen: Mapping[str, Seeds]) -> list[Panel]:
    """What is drawn: every method at four sites."""
    names = [name for name in seen if not name.startswith(IMAGE_ROW) and "sites" not in name and "plays" not in name]
    text = {name: list(seen[name].values()) for name in names}
    images = {name: list(seen[f"{IMAGE_ROW}{name}"].values()) for name in names}
    drawn = [
        Panel("gpt-neox, tinyshakespeare, 4 sites", text, "held-out loss, nats per byte"),
        Panel("resnet, Fashion-MNIST, 4 sites", images, "held-out loss, nats"),
    ]
    return [panel for panel in drawn if any(panel.runs.values())]


def up(runs: Seeds) -> float:
    """Bytes that a site sends up, on average."""
    return fmean(one.bytes_up / one.sites for one in runs.values())


def _over(figure: str, ours: Seeds, theirs: Seeds, goal: str, conditions: str) -> list[Figure]:
    """How much higher the mean loss is, beside the single seeds; nothing when no seed was run with both."""
    both = sorted(set(ours) & set(theirs))
    if not both:
        return []
    ours, theirs = ({seed: side[seed] for seed in both} for side in (ours, theirs))
    beside: dict[str, float | str] = {"loss": f"{_mean_loss(ours):.4f}", "against": f"{_mean_loss(theirs):.4f}"}
    beside["x fewer bytes"] = up(theirs) / up(ours)
    beside |= {f"seed {seed}": (ours[seed].loss / theirs[seed].loss - 1) * 100 for seed in both}
    value = (_mean_loss(ours) / _mean_loss(theirs) - 1) * 100
    return [Figure(figure, value, "%", goal, beside, f"{conditions}, {len(both)} seeds")]


def _mean_loss(runs: Seeds) -> float:
    return fmean(one.loss for one in runs.values())
