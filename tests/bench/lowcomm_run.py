"""One simulated training run: every site in this process, one after the other, the same bits every time.

What travels is what would travel: each contribution is encoded, its bytes are counted with their headers, and the model
moves by what was decoded from them. Only time is not simulated.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from windfall.lowcomm import compressor as compressors
from windfall.lowcomm.layout import Layout, digest, flatten, layout_of_model, unflatten
from windfall.lowcomm.mergedform import merged_form
from windfall.lowcomm.outerlog import Accepted, smallest
from windfall.lowcomm.rule import Rule, Said
from windfall.tasks.registry import load_task
from windfall.tasks.task import Batch, Loader, Task

DDP: Final = "ddp"
ATTEMPT: Final = 1


@dataclass(frozen=True)
class Plan:
    """All that decides a run; two plans that are equal give the same bits."""

    task: str
    settings: str
    """The task's settings, JSON."""
    codec: str
    """A setting of ``Rule``, or ``ddp``: gradients in fp32 after every step."""
    samples: int
    """Of all sites together."""
    sites: int = 4
    batch: int = 8
    """Samples of a site's step."""
    round_steps: int = 10
    outer: str = ""
    clip: bool = False
    seed: int = 0
    split: str = "iid"
    """How the data are shared out; a name for whoever furnishes the folders."""
    churn: bool = False
    """Sites come and go by the shipped trace; otherwise all are there all the time."""
    points: int = 12
    """How often the model is evaluated on its way, the end included."""
    batches: tuple[int, ...] = ()
    """Samples of each site's step, where they differ; empty: all take ``batch``."""

    @property
    def rule(self) -> Rule:
        return Rule.parse(self.codec, self.outer, self.clip)

    def batch_of(self, site: int) -> int:
        """Samples of this site's step."""
        return self.batches[site] if self.batches else self.batch


@dataclass(frozen=True)
class Point:
    """The model after so many samples."""

    samples: int
    bytes_up: float
    """Of one site, on average, since the beginning."""
    loss: float
    value: float
    """The task's metric."""


@dataclass(frozen=True)
class Outcome:
    """What a run gave."""

    metric: str
    points: tuple[Point, ...]
    sites: int
    parameters: int
    rounds: int
    contributions: int
    """Of all sites together; with DDP, one per site and step."""
    bytes_up: int
    """Of all sites together."""
    bytes_down: int
    model: str
    """SHA-256 of the final model."""
    seconds: float = field(compare=False)

    @property
    def loss(self) -> float:
        return self.points[-1].loss

    @property
    def value(self) -> float:
        return self.points[-1].value

    @property
    def bits_per_parameter(self) -> float:
        """Of one contribution."""
        return self.bytes_up * 8 / self.contributions / self.parameters


class Workshop:
    """One model, whose tensors are views of one flat vector, and an optimizer for each site that trains it in turn."""

    def __init__(self, task: Task, layout: Layout, seed: int, sites: int = 1) -> None:
        self.task, self.model = task, task.model(seed)
        state = self.model.state_dict(keep_vars=True)
        self.flat = flatten(state, layout)
        views = unflatten(self.flat, layout)
        # What is no fp32 tensor is copied to and fro.
        self._copied = [(state[spec.name], views[spec.name]) for spec in layout.tensors if spec.dtype != "float32"]
        for name, view in views.items():
            if state[name].dtype == torch.float32:
                state[name].data = view
        self._optimizers = [task.optimizer(self.model) for _ in range(sites)]
        self._highest = [float(group["lr"]) for group in self._optimizers[0].param_groups]

    def load(self, flat: Tensor) -> None:
        self.flat.copy_(flat)
        for own, view in self._copied:
            own.data.copy_(view.round())

    def read(self) -> Tensor:
        for own, view in self._copied:
            view.copy_(own.data)
        return self.flat

    def step(self, loaders: Sequence[Loader], samples: int, tokens: int, site: int = 0) -> int:
        """A step on so many samples of every loader, after so many tokens of the federation; gives its tokens."""
        batches = [loader.batch(samples, self.model) for loader in loaders]
        batch = batches[0]
        if len(batches) > 1:
            # Of batches that have no more than samples.
            inputs, targets = (torch.cat([getattr(one, name) for one in batches]) for name in ("inputs", "targets"))
            batch = Batch(inputs, targets, sum(one.tokens for one in batches))
        optimizer, share = self._optimizers[site], self.task.rate(tokens)
        for group, highest in zip(optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * share
        self.task.loss(self.model, batch).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.task.gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        return batch.tokens


class Track:
    """Evaluates the model on its way, and remembers."""

    def __init__(self, plan: Plan, shop: Workshop, held_out: Path) -> None:
        self._plan, self._shop, self._held_out = plan, shop, held_out
        self._points: list[Point] = []
        self._metric = ""

    def at(self, samples: int, bytes_up: float) -> None:
        """Look at the model if it is time to."""
        total, points = self._plan.samples, self._plan.points
        before = self._points[-1].samples if self._points else 0
        if min(samples, total) * points // total > before * points // total:
            seen = self._shop.task.evaluate(self._shop.model, self._held_out)
            self._metric = seen.metric
            self._points.append(Point(samples, bytes_up, seen.loss, seen.value))

    def outcome(self, layout: Layout, rounds: int, contributions: int, up: int, down: int, model: Tensor) -> Outcome:
        return Outcome(
            self._metric,
            tuple(self._points),
            self._plan.sites,
            layout.elements,
            rounds,
            contributions,
            up,
            down,
            digest(model),
            0.0,
        )


def run(
    plan: Plan, folders: Sequence[Path], held_out: Path, present: Callable[[int], Sequence[int]] | None = None
) -> Outcome:
    """Train until the samples are used up.

    Args:
        folders: of each site's data.
        held_out: what the model is evaluated on.
        present: which sites take part in a round, at least one; none: all of them.
    """
    started = time.perf_counter()
    task = load_task(plan.task, plan.settings)
    layout = layout_of_model(task.model(plan.seed))
    loaders = [task.loader(folder, seed=1000 * plan.seed + site) for site, folder in enumerate(folders)]
    if plan.codec == DDP:
        outcome = _every_step(plan, Workshop(task, layout, plan.seed), layout, loaders, held_out)
    else:
        shop, everybody = Workshop(task, layout, plan.seed, plan.sites), range(plan.sites)
        outcome = _by_rounds(plan, shop, layout, loaders, held_out, present or (lambda _: everybody))
    return replace(outcome, seconds=time.perf_counter() - started)


def _every_step(plan: Plan, shop: Workshop, layout: Layout, loaders: Sequence[Loader], held_out: Path) -> Outcome:
    """Synchronous data-parallel training: the mean of the sites' gradients is the gradient of their joint batch."""
    track = Track(plan, shop, held_out)
    tokens = steps = 0
    while steps * plan.batch * plan.sites < plan.samples:
        tokens += shop.step(loaders, plan.batch, tokens)
        steps += 1
        track.at(steps * plan.batch * plan.sites, steps * layout.nbytes)
    moved = steps * plan.sites * layout.nbytes
    return track.outcome(layout, steps, steps * plan.sites, moved, moved, shop.read())


def _by_rounds(
    plan: Plan,
    shop: Workshop,
    layout: Layout,
    loaders: Sequence[Loader],
    held_out: Path,
    present: Callable[[int], Sequence[int]],
) -> Outcome:
    """Local steps, then what was learned as a contribution of each site that is there."""
    rule, elements = plan.rule, layout.split
    track = Track(plan, shop, held_out)
    base, state = shop.read().clone(), rule.init(elements)
    unsent: dict[int, compressors.State] = {}
    tokens = samples = rounds = contributions = up = down = 0
    while samples < plan.samples:
        sites = present(rounds)
        # Whoever was away for a round begins without what it had not said.
        unsent = {site: unsent.get(site, rule.codec.init(elements.trained)) for site in sites}
        together = sum(plan.batch_of(site) for site in sites)
        steps = min(plan.round_steps, -(-(plan.samples - samples) // together))
        said, accepted = [], []
        for site in sites:
            shop.load(base)
            own = 0
            for _ in range(steps):
                # The others train at the same time.
                own += shop.step([loaders[site]], plan.batch_of(site), tokens + own * len(sites), site)
            gradient = base - shop.read()
            unsent[site], message = rule.encode(unsent[site], gradient, elements, base=rounds, tokens=own, steps=steps)
            _, parts = rule.decode(message, elements)
            said.append(Said(f"site-{site}", ATTEMPT, own, parts))
            accepted.append(Accepted.of(f"site-{site}", ATTEMPT, own, message))
        merged = rule.merge(said, elements)
        state, moved = rule.step(state, base, merged, elements)
        names, whole = (digest(base), digest(moved)), merged_form(merged, elements)
        down += sum(len(smallest(rounds, *names, accepted, whole, held={one.sha256})) for one in accepted)
        up += sum(one.nbytes for one in accepted)
        base = moved
        contributions += len(said)
        tokens += sum(int(one.tokens) for one in said)
        samples += steps * together
        rounds += 1
        shop.load(base)
        track.at(samples, up / plan.sites)
    return track.outcome(layout, rounds, contributions, up, down, base)
