"""Trains a task with PyTorch, on the CPU or on a GPU, alone or as one of the processes of a site.

What leaves the engine is fp32 on the CPU, whatever the device and the precision of the passes.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from math import isfinite
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from windfall.lowcomm import overlap
from windfall.lowcomm.layout import Layout, check_flat, digest
from windfall.site_trainer import optimizer_state, spikes
from windfall.site_trainer.checkpoint import Checkpoint, read, write
from windfall.site_trainer.device import chosen
from windfall.site_trainer.engine import Device, Precision, Progress, Skip, StepReport
from windfall.site_trainer.flat_model import FlatModel
from windfall.site_trainer.passes import Passed, Passes
from windfall.site_trainer.peers import ALONE, Peers
from windfall.site_trainer.room import Room
from windfall.site_trainer.samples import Samples
from windfall.site_trainer.sharded_model import ShardedModel
from windfall.site_trainer.shards import whole
from windfall.site_trainer.spikes import Average, Recent
from windfall.site_trainer.tensor_file import newest_whole
from windfall.tasks.ranges import Ranges, size, union
from windfall.tasks.rows import RowLoader
from windfall.tasks.task import Task

log = logging.getLogger(__name__)

LOCAL: Final = "local"


class TorchEngine:
    """The engine of a real site.

    Args:
        task: what is trained.
        layout: the federation's layout, which the task's model must have.
        data_dir: the site's own data.
        seed: decides the order of the data, and what a model draws while it trains (dropout).
        threads: for torch, in the whole process.
        device: where to train.
        precision: of forward and backward pass: PyTorch's autocast, and its gradient scaler for ``fp16``.
        accumulation: parts into which a step's samples are cut. The gradient is the same up to rounding, but for
            layers that look at a batch as a whole (batch normalisation).
        compiled: by ``torch.compile``, where a compiler is at hand. What is saved and what leaves is the same.
        peers: the processes that train together. A step of n of them on m samples each has the gradient of one on
            n·m, up to rounding, with the same exception.
        rows: the site's copy of a shared corpus; none trains the samples of ``data_dir`` as the site's own.

    Raises:
        ValueError: the model has another layout, the device is not there, or (``DataError``) the data cannot be trained
            on.
    """

    def __init__(
        self,
        task: Task,
        layout: Layout,
        data_dir: Path,
        seed: int,
        threads: int = 1,
        device: Device = "cpu",
        precision: Precision = "fp32",
        accumulation: int = 1,
        compiled: bool = False,
        peers: Peers = ALONE,
        rows: RowLoader | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        where = chosen(device)
        self._task, self._layout, self._peers = task, layout, peers
        self._model: FlatModel | ShardedModel
        if peers.sharded:
            self._model = ShardedModel(task.model(seed), layout, where, lead=peers.rank == 0)
        else:
            self._model = FlatModel(task.model(seed), layout, where)
        self._passes = Passes(task, self._model.module, where, seed, precision, accumulation, compiled, peers)
        self._optimizer = task.optimizer(self._model.module)
        self._highest = [group["lr"] for group in self._optimizer.param_groups]
        self._samples = Samples(task, data_dir, seed, rows)
        self._base: Tensor | None = None
        self._base_digest = ""
        self._tokens, self._sites = 0, 1
        self._progress = Progress()
        self._said: tuple[slice, Tensor] | None = None
        """Of which part the site spoke, and its local model as it was then, while what it said is on its way."""
        self._told = Progress()
        self._recent = Recent()
        self._owner = {
            "task": task.name,
            "layout": hashlib.sha256(repr((layout.tensors, layout.tied)).encode()).hexdigest(),
            "optimizer": type(self._optimizer).__name__,
            "seed": str(seed),
        }

    @property
    def progress(self) -> Progress:
        return self._progress

    @property
    def room(self) -> Room:
        """What is known to fit into memory at once."""
        return self._passes.room

    def limit(self, room: Room) -> None:
        """Take on what is known elsewhere of what fits."""
        self._passes.room = self._passes.room.and_(room)

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        check_flat(base, self._layout.elements)
        self._model.put(base)
        self._base, self._base_digest = base, ""
        self._tokens, self._sites = tokens, sites
        self._progress = Progress()
        self._said, self._told = None, Progress()
        self._recent = spikes.on_new_base(self._recent)

    def tell(self, part: slice | None = None) -> None:
        self._loaded()
        if self._said is not None:
            raise RuntimeError("what was told last is still on its way")
        part = part or slice(0, self._layout.elements)
        self._said = part, self._model.take()[part].clone()
        self._told, self._progress = self._progress, Progress()

    def rebase(self, base: Tensor, counted: bool, tokens: int = 0, sites: int = 1) -> None:
        if self._said is None:
            raise RuntimeError("nothing was told")
        before, (part, _) = self._loaded(), self._said
        local = overlap.go_over(self._model.take(), before, base, self._said if counted else None)
        exact = slice(self._layout.split.trained, None)
        if part.stop == self._layout.elements or not torch.equal(before[exact], base[exact]):
            # A running variance moved by a difference may fall below zero: statistics are the new model's, as they are.
            local[exact] = base[exact]
        self._model.put(local)
        self._base, self._base_digest, self._said = base, "", None
        self._tokens, self._sites = tokens, sites
        self._progress = self._progress if counted else self._told.then(self._progress)
        self._told = Progress()
        self._recent = spikes.on_new_base(self._recent)

    def step(self, micro_batch: int) -> StepReport:
        self._loaded()
        rate = self._task.rate(self._tokens + self._sites * (self._told.tokens + self._progress.tokens))
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * rate
        # Running statistics must not see what the weights must not.
        put_back = self._model.aside()
        passed, refused = self._passed(micro_batch, put_back)
        scaler = self._passes.scaler
        scaler.unscale_(self._optimizer)
        clipped = torch.nn.utils.clip_grad_norm_(self._model.module.parameters(), self._task.gradient_norm)
        loss, norm = self._peers.agreed(passed.loss_nats, whole(clipped).item())
        skip = self._verdict(loss, norm)
        if skip is None:
            scaler.step(self._optimizer)
        else:
            put_back()
            log.warning("step skipped (%s): loss %s, gradient norm %s", skip, loss, norm)
        if scaler.is_enabled():
            scaler.update()
        self._optimizer.zero_grad()
        report = StepReport(0 if skip else passed.tokens, loss, skip, passed.passes, refused)
        self._progress = replace(self._progress.after(report), cursor=self._samples.drawn)
        return report

    def tune(self, accumulation: int, precision: Precision) -> None:
        self._passes.tune(accumulation, precision)

    def step_on(self, rows: Ranges) -> StepReport:
        self._samples.give(rows)
        report = self.step(size(rows))
        self._progress = replace(self._progress, rows=union(self._progress.rows, rows))
        return report

    def pseudo_gradient(self) -> Tensor:
        return self._loaded() - self._model.take()

    def model_digest(self) -> str:
        return digest(self._model.take())

    def local(self) -> Tensor:
        """The local model as a flat fp32 vector on the CPU, to be read before the next step."""
        return self._model.take()

    def snapshot(self) -> Callable[[Path], None]:
        taken = self.checkpoint()
        return lambda path: write(path, taken)

    def save(self, path: Path) -> None:
        self.snapshot()(path)

    def checkpoint(self) -> Checkpoint:
        """What a snapshot is: nothing in it changes when training goes on. Where weights are in parts, all processes
        must ask alike, and the first gets what there is."""
        base_digest = self._digest_of_base()
        lead, scalars = self._peers.rank == 0, dict[str, object]()
        tensors = {LOCAL: self._model.take().clone()} if lead or self._peers.sharded else {}
        for name, value in optimizer_state.named(self._optimizer, self._model.module):
            if isinstance(value, Tensor):
                if lead:
                    # A copy even where the device is the host.
                    tensors[name] = value.detach().to("cpu", copy=True)
            else:
                scalars[name] = value
        return Checkpoint(
            owner=self._owner,
            base_digest=base_digest,
            cursor=self._samples.loader.cursor,
            progress=self._told.then(self._progress),
            scalars=scalars,
            tensors=tensors,
            learnt={
                "recent": asdict(self._recent),
                "scale": self._passes.scaler.state_dict(),
                "room": {self._passes.place: self._passes.room.samples},
            },
        )

    def restore(self, path: Path, base_digest: str) -> bool:
        if self._digest_of_base() != base_digest:
            raise RuntimeError("load the base before restoring work that stands on it")
        found = newest_whole(path, lambda each: read(each, self._owner))
        if found is None:
            return False
        state = {name: tensor for name, tensor in found.tensors.items() if name != LOCAL}
        optimizer_state.take(self._optimizer, self._model.module, {**state, **found.scalars})
        self._samples.open(found.cursor)
        self._take_learnt(found.learnt)
        if found.base_digest != base_digest:
            log.info("checkpoint %s stands on another base; optimizer state and cursor go on", path)
            return False
        self._model.put(found.tensors[LOCAL])
        self._progress = found.progress
        self._said, self._told = None, Progress()
        return True

    def _take_learnt(self, learnt: Mapping[str, Any]) -> None:
        if recent := learnt.get("recent"):
            averages = {name: Average(**recent[name]) for name in ("loss", "log_norm")}
            self._recent = Recent(**{**recent, **averages})
        if (scale := learnt.get("scale")) and self._passes.scaler.is_enabled():
            self._passes.scaler.load_state_dict(scale)
        self.limit(Room(learnt.get("room", {}).get(self._passes.place, 0)))

    def _passed(self, micro_batch: int, put_back: Callable[[], None]) -> tuple[Passed, int]:
        """The step's passes, and how often memory refused them."""
        began, refused = self._samples.loader.cursor, 0
        while True:
            try:
                return self._passes.over(self._samples.loader, micro_batch), refused
            except (RuntimeError, MemoryError) as error:
                before = self.room
                if not self._passes.give_way(error, micro_batch):
                    raise
                refused += self.room != before
            # Behind the handler: the error held what had been allocated.
            self._optimizer.zero_grad()
            put_back()
            self._samples.open(began)

    def _verdict(self, loss: float, norm: float) -> Skip | None:
        if not (isfinite(loss) and isfinite(norm)):
            return Skip.OVERFLOW if isfinite(loss) and self._passes.scaler.is_enabled() else Skip.NOT_FINITE
        self._recent, spike = spikes.judged(self._recent, loss, norm)
        return Skip.SPIKE if spike else None

    def _loaded(self) -> Tensor:
        if self._base is None:
            raise RuntimeError("no base is loaded")
        return self._base

    def _digest_of_base(self) -> str:
        self._base_digest = self._base_digest or digest(self._loaded())
        return self._base_digest
