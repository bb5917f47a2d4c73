"""Trains a task with PyTorch on the CPU.

The model's tensors are views into one flat vector, so that loading a base, taking a pseudo-gradient and a digest are
single passes over memory, without gathering.

A checkpoint is one safetensors file: the vector, the optimizer's state by parameter name, and metadata that says whose
it is and holds a SHA-256 of everything. Nothing is ever unpickled.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from windfall.lowcomm.layout import Layout, check_flat, digest, flatten, layout_of, unflatten
from windfall.site_trainer.engine import Progress, StepReport
from windfall.tasks.task import Task

log = logging.getLogger(__name__)

FORMAT: Final = "windfall-site-trainer/1"
GRADIENT_NORM: Final = 1.0
"""A step's gradient is scaled down to this Euclidean norm when it is longer."""
LOCAL: Final = "local"
MOMENTS: Final = "optimizer"


class Unusable(Exception):
    """A checkpoint cannot be gone on from; the text says why in one line."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. ``tensors`` are named ``local`` or ``optimizer/<parameter>/<key>``."""

    owner: Mapping[str, str]
    """Task, layout, optimizer and seed of the engine that wrote it: another's is of no use."""
    base_digest: str
    cursor: int
    progress: Progress
    scalars: Mapping[str, object]
    """Optimizer state that is not tensors, by the same names."""
    tensors: Mapping[str, Tensor]


class TorchEngine:
    """The engine of a real site.

    Args:
        task: what is trained.
        layout: the federation's layout, which the task's model must have.
        data_dir: the site's own data.
        seed: decides the order of the data.
        threads: for torch, in the whole process.

    Raises:
        ValueError: the model has another layout, or (``DataError``) the data cannot be trained on.
    """

    def __init__(self, task: Task, layout: Layout, data_dir: Path, seed: int, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._task = task
        self._layout = layout
        self._model = task.model(seed)
        self._local = _gather(self._model, layout)
        self._optimizer = task.optimizer(self._model)
        self._loader = task.loader(data_dir, seed)
        self._data_dir, self._seed = data_dir, seed
        self._base: Tensor | None = None
        self._base_digest = ""
        self._progress = Progress()
        self._owner = {
            "task": task.name,
            "layout": hashlib.sha256(repr(layout.tensors).encode()).hexdigest(),
            "optimizer": type(self._optimizer).__name__,
            "seed": str(seed),
        }

    @property
    def progress(self) -> Progress:
        return self._progress

    def load(self, base: Tensor) -> None:
        check_flat(base, self._layout.elements)
        self._local.copy_(base)
        self._base, self._base_digest = base, ""
        self._progress = Progress()

    def step(self, micro_batch: int) -> StepReport:
        self._loaded()
        batch = self._loader.batch(micro_batch)
        loss = self._task.loss(self._model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), GRADIENT_NORM)
        sound = isfinite(loss.item()) and isfinite(norm.item())
        if sound:
            self._optimizer.step()
        else:
            log.warning("step skipped: loss %s, gradient norm %s", loss.item(), norm.item())
        self._optimizer.zero_grad()
        report = StepReport(batch.tokens if sound else 0, loss.item(), skipped=not sound)
        self._progress = self._progress.after(report)
        return report

    def pseudo_gradient(self) -> Tensor:
        return self._loaded() - self._local

    def model_digest(self) -> str:
        return digest(self._local)

    def save(self, path: Path) -> None:
        scalars, tensors = self._moments()
        _write(
            path,
            Checkpoint(
                owner=self._owner,
                base_digest=self._digest_of_base(),
                cursor=self._loader.cursor,
                progress=self._progress,
                scalars=scalars,
                tensors={LOCAL: self._local, **tensors},
            ),
        )

    def restore(self, path: Path, base_digest: str) -> bool:
        if self._digest_of_base() != base_digest:
            raise RuntimeError("load the base before restoring work that stands on it")
        try:
            found = _read(path, self._owner)
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
        self._local.copy_(found.tensors[LOCAL])
        self._progress = found.progress
        return True

    def _loaded(self) -> Tensor:
        if self._base is None:
            raise RuntimeError("no base is loaded")
        return self._base

    def _digest_of_base(self) -> str:
        self._base_digest = self._base_digest or digest(self._loaded())
        return self._base_digest

    def _moments(self) -> tuple[dict[str, object], dict[str, Tensor]]:
        """Optimizer state under names that survive another order or grouping of the parameters."""
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        scalars: dict[str, object] = {}
        tensors: dict[str, Tensor] = {}
        for parameter, state in self._optimizer.state.items():
            for key, value in state.items():
                kept: dict[str, Any] = tensors if isinstance(value, Tensor) else scalars
                kept[f"{MOMENTS}/{names[id(parameter)]}/{key}"] = value
        return scalars, tensors

    def _take_moments(self, found: Checkpoint) -> None:
        moments: dict[str, dict[str, object]] = {}
        for name, value in (*found.tensors.items(), *found.scalars.items()):
            if name != LOCAL:
                parameter, key = name.removeprefix(f"{MOMENTS}/").rsplit("/", 1)
                moments.setdefault(parameter, {})[key] = value
        names = {id(parameter): name for name, parameter in self._model.named_parameters()}
        order = [names[id(each)] for group in self._optimizer.param_groups for each in group["params"]]
        # Learning rate and the like come from the settings of today, so only the state is taken from the file.
        own = self._optimizer.state_dict()
        own["state"] = {index: moments[name] for index, name in enumerate(order) if name in moments}
        self._optimizer.load_state_dict(own)


def _gather(model: torch.nn.Module, layout: Layout) -> Tensor:
    """Move a model's tensors into one flat vector and let them be views of it."""
    state = model.state_dict(keep_vars=True)
    own = layout_of(state)
    if own != layout:
        ours, theirs = ([f"{spec.name}{list(spec.shape)}" for spec in each.tensors] for each in (own, layout))
        here = next((f"{a} here, {b} there" for a, b in zip(ours, theirs, strict=False) if a != b), "their number")
        raise ValueError(f"the task's model differs from the federation's layout: {here}. Run the same version of it")
    flat = flatten(state, layout)
    for name, view in unflatten(flat, layout).items():
        state[name].data = view
    return flat


def _write(path: Path, checkpoint: Checkpoint) -> None:
    about = json.dumps(
        {
            "format": FORMAT,
            "owner": checkpoint.owner,
            "base_digest": checkpoint.base_digest,
            "cursor": checkpoint.cursor,
            "progress": asdict(checkpoint.progress),
            "scalars": checkpoint.scalars,
        }
    )
    tensors = dict(checkpoint.tensors)
    draft = path.with_name(f"{path.name}.new")
    try:
        save_file(tensors, draft, {"about": about, "sha256": _seal(about, tensors)})
        with draft.open("rb") as written:
            os.fsync(written.fileno())
        draft.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except SafetensorError as error:
        draft.unlink(missing_ok=True)
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else 0, f"checkpoint not written: {error}", str(path)) from error


def _read(path: Path, owner: Mapping[str, str]) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise Unusable(f"not whole: {error}") from error
    about = metadata.get("about", "")
    if metadata.get("sha256") != _seal(about, tensors):
        raise Unusable("its SHA-256 is not the one it names")
    fields: dict[str, Any] = json.loads(about)
    if fields["format"] != FORMAT:
        raise Unusable(f"its format is {fields['format']!r}, not {FORMAT!r}")
    if fields["owner"] != owner:
        other = ", ".join(name for name, value in owner.items() if fields["owner"].get(name) != value)
        raise Unusable(f"it was written under another {other}")
    return Checkpoint(
        owner=owner,
        base_digest=fields["base_digest"],
        cursor=fields["cursor"],
        progress=Progress(**fields["progress"]),
        scalars=fields["scalars"],
        tensors=tensors,
    )


def _seal(about: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the metadata and every tensor, in the order of their names."""
    whole = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        whole.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
