"""The engine of a site with several GPUs, as the trainer sees it: it commands ranks, and goes on when one falls.

What the ranks hold in memory dies with any of them. They are started anew by torchrun, load the base that they had, and
go on from the last checkpoint: what was trained since is trained again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from windfall.lowcomm.layout import Layout, check_flat, digest
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.site_trainer.checkpoint import from_about, write
from windfall.site_trainer.engine import Device, Precision, Progress, Sharding, Skip, StepReport
from windfall.site_trainer.ranks.flats import SharedFile, left, mapped, shared_vector
from windfall.site_trainer.ranks.group import Broke, NoRoom, RankGroup
from windfall.site_trainer.room import Room

log = logging.getLogger(__name__)

VAIN_GROUPS: Final = 3
"""Groups in a row that fell before they took a step, after which a person must look."""


@dataclass(frozen=True)
class Order:
    """What ranks are to train, and how: as for one process, but for what is said of several."""

    task: str
    task_settings: str
    layout: Layout
    data_dir: Path
    seed: int
    threads: int = 1
    device: Device = "cpu"
    precision: Precision = "fp32"
    accumulation: int = 1
    compiled: bool = False
    sharding: Sharding = "ddp"
    """``ddp``: every process holds the whole model, and gradients meet. ``fsdp``: each holds a part of every weight and
    of the optimizer's state (FSDP2), for models that do not fit one GPU."""


class RanksEngine:
    """Trains with every process of a group.

    A step of n processes on ``micro_batch`` samples each sees the samples that one process sees in a step of n times
    as many, and its gradient is the same up to rounding, but for layers that look at a batch as a whole.

    Args:
        group: may have been started ahead; it outlives this engine.

    Raises:
        ValueError: as one process says it: another layout, no such device, data that cannot be trained on.
        Mistake: the processes do not meet.
        OSError: no room for the vectors that are exchanged.
    """

    def __init__(self, order: Order, group: RankGroup) -> None:
        self._order, self._group = order, group
        self._files = [shared_vector(name, order.layout.elements) for name in ("base", "local")]
        self._shared_base, self._local = (mapped(file.path, order.layout.elements) for file in self._files)
        self._base: Tensor | None = None
        self._tokens, self._sites = 0, 1
        self._progress = Progress()
        self._refused = 0
        self._room = Room()
        self._checkpoint: Path | None = None
        self._vain = 0
        self._stand_up()

    @property
    def progress(self) -> Progress:
        return replace(self._progress, refused=self._progress.refused + self._refused)

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        check_flat(base, self._order.layout.elements)
        self._shared_base.copy_(base)
        self._base, self._tokens, self._sites = base, tokens, sites
        self._progress, self._refused = Progress(), 0
        self._ask("load", tokens=tokens, sites=sites)

    def step(self, micro_batch: int) -> StepReport:
        self._loaded()
        before = self._refused
        while True:
            try:
                answer = self._ask("step", samples=micro_batch)
                break
            except NoRoom as error:
                self._room = self._room.and_(Room().without(error.samples))
                log.warning("%s: passes of %d samples from now on", error, self._room.samples)
                self._refused += 1
            self._vain = 0
            self._stand_up()
        self._vain = 0
        said = answer["report"]
        skipped = None if said["skipped"] is None else Skip(said["skipped"])
        self._progress = Progress(**answer["progress"])
        return StepReport(**{**said, "skipped": skipped, "refused": self._refused - before})

    def tune(self, accumulation: int, precision: Precision) -> None:
        # A group that forms anew begins with it.
        self._order = replace(self._order, accumulation=accumulation, precision=precision)
        self._ask("tune", accumulation=accumulation, precision=precision)

    def pseudo_gradient(self) -> Tensor:
        base = self._loaded()
        self._ask("take")
        return base - self._local

    def model_digest(self) -> str:
        self._ask("take")
        return digest(self._local)

    def snapshot(self) -> Callable[[Path], None]:
        self._loaded()
        draft = SharedFile("snapshot")
        answer = self._ask("snapshot", path=str(draft.path))
        taken = from_about(answer["about"], left(draft.path, answer["tensors"]))

        def written(path: Path) -> None:
            write(path, taken)
            self._checkpoint = path

        return written

    def save(self, path: Path) -> None:
        self.snapshot()(path)

    def restore(self, path: Path, base_digest: str) -> bool:
        if digest(self._loaded()) != base_digest:
            raise RuntimeError("load the base before restoring work that stands on it")
        self._checkpoint = path
        answer = self._ask("restore", path=str(path), base_digest=base_digest)
        self._progress = Progress(**answer["progress"])
        return bool(answer["restored"])

    def _ask(self, do: str, **what: object) -> dict[str, Any]:
        """The first rank's answer, of this group or, when it breaks, of the next that stands where this one did."""
        while True:
            try:
                return self._group.ask({"do": do, **what})[0]
            except Broke as error:
                log.warning("the ranks are started anew: %s", error)
            self._stand_up()

    def _stand_up(self) -> None:
        """Have a group that stands where the last one did, as far as that was saved."""
        while True:
            self._vain += 1
            try:
                self._group.meet()
                self._group.ask({"do": "begin", **self._orders()})
                if self._base is not None:
                    self._group.ask({"do": "load", "tokens": self._tokens, "sites": self._sites})
                    self._progress = Progress()
                if self._base is not None and self._checkpoint is not None:
                    base_digest = digest(self._base)
                    word = {"do": "restore", "path": str(self._checkpoint), "base_digest": base_digest}
                    self._progress = Progress(**self._group.ask(word)[0]["progress"])
                return
            except Broke as error:
                if self._vain >= VAIN_GROUPS:
                    raise Mistake(
                        f"{self._vain} groups of processes fell before a step was done; {error}",
                        "Look for the rank's own error in the log; WINDFALL_PROCESSES=1 trains without a group",
                        ExitCode.FAILED,
                    ) from error
                log.warning("the ranks are started anew: %s", error)

    def _orders(self) -> dict[str, object]:
        order = self._order
        return {
            "task": order.task,
            "task_settings": order.task_settings,
            "tensors": [(spec.name, spec.shape, spec.dtype, spec.exact) for spec in order.layout.tensors],
            "tied": order.layout.tied,
            **{name: str(file.path) for name, file in zip(("base", "local"), self._files, strict=True)},
            "data_dir": str(order.data_dir),
            "seed": order.seed,
            "threads": order.threads,
            "device": order.device,
            "precision": order.precision,
            "accumulation": order.accumulation,
            "compiled": order.compiled,
            "sharding": order.sharding,
            "room": self._room.samples,
        }

    def _loaded(self) -> Tensor:
        if self._base is None:
            raise RuntimeError("no base is loaded")
        return self._base
