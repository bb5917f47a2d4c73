"""A double of the engine that ships: instant and deterministic, for fleets on virtual time.

Each site is pulled towards a target of its own, drawn from its seed around a centre that all sites share; so local
training lowers the local loss, and merging sites moves the model towards the centre.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from windfall.lowcomm import overlap
from windfall.lowcomm.layout import Layout, TensorSpec, check_flat, digest
from windfall.site_trainer.engine import Progress, Skip, StepReport
from windfall.site_trainer.tensor_file import Unusable, keep_previous, newest_whole
from windfall.tasks.ranges import Ranges, size, union

FORMAT: Final = "windfall-toy/1"
CENTRE: Final = 1.0
SPREAD: Final = 0.25
"""Standard deviation of the sites' targets around the centre."""


def toy_layout(elements: int) -> Layout:
    """The layout of a toy model."""
    return Layout((TensorSpec("point", (elements,)),))


class ToyEngine:
    """Gradient descent on the mean squared distance to a target.

    Args:
        elements: length of the flat vector.
        seed: decides the site's target.
        lr: share of the way that one step goes, in (0, 1].
        tokens_per_sample: what a sample counts for.
    """

    def __init__(self, elements: int, seed: int, lr: float = 0.1, tokens_per_sample: int = 64) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._target = torch.randn(elements, generator=generator).mul_(SPREAD).add_(CENTRE)
        self._lr, self._tokens_per_sample, self._seed = lr, tokens_per_sample, seed
        self._local = torch.zeros(elements)
        self._base: Tensor | None = None
        self._said: tuple[slice, Tensor] | None = None
        self._told = Progress()
        self._cursor = 0
        self._progress = Progress()

    @property
    def progress(self) -> Progress:
        return self._progress

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        check_flat(base, self._local.numel())
        self._base = base
        self._local = base.clone()
        self._said, self._told = None, Progress()
        self._progress = Progress()

    def tell(self, part: slice | None = None) -> None:
        self._loaded()
        if self._said is not None:
            raise RuntimeError("what was told last is still on its way")
        part = part or slice(0, self._local.numel())
        self._said = part, self._local[part].clone()
        self._told, self._progress = self._progress, Progress()

    def rebase(self, base: Tensor, counted: bool, tokens: int = 0, sites: int = 1) -> None:
        if self._said is None:
            raise RuntimeError("nothing was told")
        local = overlap.go_over(self._local, self._loaded(), base, self._said if counted else None)
        self._base, self._local, self._said = base, local, None
        self._progress = self._progress if counted else self._told.then(self._progress)
        self._told = Progress()

    def step(self, micro_batch: int) -> StepReport:
        self._loaded()
        away = self._local - self._target
        loss = away.square().mean().item()
        if not isfinite(loss):
            report = StepReport(0, loss, Skip.NOT_FINITE)
        else:
            self._local -= away.mul_(self._lr)
            report = StepReport(micro_batch * self._tokens_per_sample, loss)
        self._cursor += micro_batch
        self._progress = replace(self._progress.after(report), cursor=self._cursor)
        return report

    def step_on(self, rows: Ranges) -> StepReport:
        report = self.step(size(rows))
        self._progress = replace(self._progress, rows=union(self._progress.rows, rows))
        return report

    def pseudo_gradient(self) -> Tensor:
        return self._loaded() - self._local

    def model_digest(self) -> str:
        return digest(self._local)

    def snapshot(self) -> Callable[[Path], None]:
        document = json.dumps(self._document())

        def write(path: Path) -> None:
            # No fsync: a double outlives no power cut, and fleets save often.
            draft = path.with_name(f"{path.name}.new")
            draft.write_text(document)
            keep_previous(path)
            draft.replace(path)

        return write

    def save(self, path: Path) -> None:
        self.snapshot()(path)

    def _document(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "seed": self._seed,
            "base_digest": digest(self._loaded()),
            "model_digest": self.model_digest(),
            "progress": asdict(self._told.then(self._progress)),
            "local": self._local.tolist(),
        }

    def restore(self, path: Path, base_digest: str) -> bool:
        if digest(self._loaded()) != base_digest:
            raise RuntimeError("load the base before restoring work that stands on it")
        found = newest_whole(path, self._read)
        if found is None or found[0] != base_digest:
            return False
        _, self._local, self._progress = found
        self._said, self._told = None, Progress()
        self._cursor = self._progress.cursor
        return True

    def _read(self, path: Path) -> tuple[str, Tensor, Progress]:
        try:
            found = json.loads(path.read_text())
            local = torch.tensor(found["local"])
            if (found["format"], found["seed"], digest(local)) != (FORMAT, self._seed, found["model_digest"]):
                raise ValueError("it was written by another engine or has changed since")
            check_flat(local, self._local.numel())
            return str(found["base_digest"]), local, Progress(**found["progress"])
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, OverflowError) as error:
            # RuntimeError: torch's, of a list that is no vector; RecursionError is one as well.
            raise Unusable(str(error)) from error

    def _loaded(self) -> Tensor:
        if self._base is None:
            raise RuntimeError("no base is loaded")
        return self._base
