"""Trains a task with PyTorch, on the CPU or on a GPU.

What leaves the engine is fp32 on the CPU, whatever the device and the precision of the passes.
"""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from windfall.lowcomm.layout import Layout, check_flat, digest
from windfall.site_trainer.checkpoint import Checkpoint, read, write
from windfall.site_trainer.engine import Device, Precision, Progress, StepReport
from windfall.site_trainer.flat_model import FlatModel
from windfall.site_trainer.tensor_file import Unusable
from windfall.tasks.task import Batch, Task

log = logging.getLogger(__name__)

LOCAL: Final = "local"
MOMENTS: Final = "optimizer"


class TorchEngine:
    """The engine of a real site.

    Args:
        task: what is trained.
        layout: the federation's layout, which the task's model must have.
        data_dir: the site's own data.
        seed: decides the order of the data, and what a model draws while it trains (dropout).
        threads: for torch, in the whole process.
        device: where to train.
        precision: of forward and backward pass; ``bf16`` is PyTorch's autocast.
        accumulation: parts into which a step's samples are cut. The gradient is the same up to rounding, but for
            layers that look at a batch as a whole (batch normalisation).

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
    ) -> None:
        torch.set_num_threads(threads)
        self._device = _device(device)
        self._autocast = precision == "bf16"
        self._accumulation = accumulation
        self._task = task
        self._layout = layout
        self._model = FlatModel(task.model(seed), layout, self._device)
        self._optimizer = task.optimizer(self._model.module)
        self._highest = [group["lr"] for group in self._optimizer.param_groups]
        self._loader = task.loader(data_dir, seed)
        self._data_dir, self._seed = data_dir, seed
        self._base: Tensor | None = None
        self._base_digest = ""
        self._tokens, self._sites = 0, 1
        self._progress = Progress()
        self._owner = {
            "task": task.name,
            "layout": hashlib.sha256(repr((layout.tensors, layout.tied)).encode()).hexdigest(),
            "optimizer": type(self._optimizer).__name__,
            "seed": str(seed),
        }

    @property
    def progress(self) -> Progress:
        return self._progress

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        check_flat(base, self._layout.elements)
        self._model.put(base)
        self._base, self._base_digest = base, ""
        self._tokens, self._sites = tokens, sites
        self._progress = Progress()

    def step(self, micro_batch: int) -> StepReport:
        self._loaded()
        rate = self._task.rate(self._tokens + self._sites * self._progress.tokens)
        for group, highest in zip(self._optimizer.param_groups, self._highest, strict=True):
            group["lr"] = highest * rate
        aside = self._model.exact()
        with self._own_chance():
            loss, tokens = self._gradients(micro_batch)
        norm = torch.nn.utils.clip_grad_norm_(self._model.module.parameters(), self._task.gradient_norm).item()
        sound = isfinite(loss) and isfinite(norm)
        if sound:
            self._optimizer.step()
        else:
            # Running statistics have seen what the weights must not.
            self._model.put_exact(aside)
            log.warning("step skipped: loss %s, gradient norm %s", loss, norm)
        self._optimizer.zero_grad()
        report = StepReport(tokens if sound else 0, loss, skipped=not sound)
        self._progress = self._progress.after(report)
        return report

    def pseudo_gradient(self) -> Tensor:
        return self._loaded() - self._model.take()

    def model_digest(self) -> str:
        return digest(self._model.take())

    def save(self, path: Path) -> None:
        scalars, tensors = self._moments()
        write(
            path,
            Checkpoint(
                owner=self._owner,
                base_digest=self._digest_of_base(),
                cursor=self._loader.cursor,
                progress=self._progress,
                scalars=scalars,
                tensors={LOCAL: self._model.take(), **tensors},
            ),
        )

    def restore(self, path: Path, base_digest: str) -> bool:
        if self._digest_of_base() != base_digest:
            raise RuntimeError("load the base before restoring work that stands on it")
        try:
            found = read(path, self._owner)
        except FileNotFoundError:
            log.info("no checkpoint at %s; starting from the base", path)
            return False
        except (Unusable, OSError) as error:
            log.warning("checkpoint %s left aside: %s", path, error)
            return False
        self._take_moments(found)
        self._loader = self._task.loader(self._data_dir, self._seed, found.cursor)
        if found.base_digest != base_digest:
            log.info("checkpoint %s stands on another base; optimizer state and cursor go on", path)
            return False
        self._model.put(found.tensors[LOCAL])
        self._progress = found.progress
        return True

    def _gradients(self, micro_batch: int) -> tuple[float, int]:
        """Mean loss over the next samples, whose gradient the parameters hold afterwards, and their tokens."""
        model = self._model.module
        shares = [micro_batch * part // self._accumulation for part in range(self._accumulation + 1)]
        sizes = [end - begin for begin, end in pairwise(shares) if end > begin]
        batches = [self._loader.batch(size, model) for size in sizes]
        tokens = sum(batch.tokens for batch in batches)
        total = 0.0
        for batch in batches:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
                loss = self._task.loss(model, _moved(batch, self._device)) * (batch.tokens / tokens)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        return total, tokens

    @contextmanager
    def _own_chance(self) -> Iterator[None]:
        """What draws from torch's global generator (dropout) draws the same after a restart, and leaves it alone."""
        word = hashlib.blake2b(f"{self._seed}:{self._loader.cursor}".encode(), digest_size=8).digest()
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(int.from_bytes(word, "little"))
            yield

    def _loaded(self) -> Tensor:
        if self._base is None:
            raise RuntimeError("no base is loaded")
        return self._base

    def _digest_of_base(self) -> str:
        self._base_digest = self._base_digest or digest(self._loaded())
        return self._base_digest

    def _moments(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Optimizer state under names that survive another order or grouping of the parameters."""
        names = {id(parameter): name for name, parameter in self._model.module.named_parameters()}
        scalars: dict[str, object] = {}
        tensors: dict[str, Tensor] = {}
        for parameter, state in self._optimizer.state.items():
            for key, value in state.items():
                name = f"{MOMENTS}/{names[id(parameter)]}/{key}"
                if isinstance(value, Tensor):
                    tensors[name] = value.cpu()
                else:
                    scalars[name] = value
        return scalars, tensors

    def _take_moments(self, found: Checkpoint) -> None:
        moments: dict[str, dict[str, object]] = {}
        for name, value in (*found.tensors.items(), *found.scalars.items()):
            if name != LOCAL:
                parameter, key = name.removeprefix(f"{MOMENTS}/").rsplit("/", 1)
                moments.setdefault(parameter, {})[key] = value
        names = {id(parameter): name for name, parameter in self._model.module.named_parameters()}
        order = [names[id(each)] for group in self._optimizer.param_groups for each in group["params"]]
        # Learning rate and the like come from the settings of today, so only the state is taken from the file.
        own: dict[str, Any] = self._optimizer.state_dict()
        own["state"] = {index: moments[name] for index, name in enumerate(order) if name in moments}
        self._optimizer.load_state_dict(own)


def warm_up(device: Device) -> None:
    """Make the device ready: its context and its libraries load with the first multiplication.

    Raises:
        ValueError: the device is not there.
    """
    square = torch.ones((8, 8), device=_device(device))
    (square @ square).sum().item()


def _device(name: Device) -> torch.device:
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise ValueError("no CUDA or ROCm device is there. Set WINDFALL_DEVICE=auto, or install its driver and torch")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _moved(batch: Batch, device: torch.device) -> Batch:
    """Every tensor of a batch on the device; a task may add some of its own."""
    values: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
    moved = {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}
    return replace(batch, **{**values, **moved})
