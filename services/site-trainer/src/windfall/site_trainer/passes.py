"""Forward and backward passes over the samples of one step, in the precision, the parts and the way that fit."""

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from windfall.site_trainer.engine import Precision
from windfall.site_trainer.peers import LossOf, Peers, units
from windfall.site_trainer.room import Room
from windfall.tasks.task import Batch, Loader, Task

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Passed:
    """What a step's passes came to; the gradient is in the parameters, scaled where the precision wants it."""

    loss_nats: float
    """Mean per token, over the samples of all processes."""
    tokens: int
    """Of all processes."""
    passes: int
    """Of this process."""


class Passes:
    """How one model is passed through.

    Args:
        accumulation: parts into which a step's samples are cut at least.
        compiled: by ``torch.compile``. The model itself stays what it is, name by name.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        device: torch.device,
        seed: int,
        precision: Precision,
        accumulation: int,
        compiled: bool,
        peers: Peers,
    ) -> None:
        if precision == "fp16" and peers.sharded:
            raise ValueError("fp16 is not scaled over shards. Set WINDFALL_PRECISION=bf16, or WINDFALL_SHARDING=ddp")
        self._model, self._device, self._seed, self._peers = model, device, seed, peers
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self._dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        self.tune(accumulation, precision)
        self.room = Room()
        # Sharded weights are gathered block by block, around what is compiled.
        self._compiled = (units(model) or [model]) if compiled and peers.sharded else [model] if compiled else []
        for unit in self._compiled:
            unit.compile()
        self._loss = peers.wrap(LossOf(task, model), device)

    def tune(self, accumulation: int, precision: Precision) -> None:
        """From the next step on: so many parts at least, in this precision.

        Raises:
            ValueError: to ``fp16`` or from it; its gradient scale is there from the beginning.
        """
        if (precision == "fp16") != self.scaler.is_enabled():
            raise ValueError("fp16 has a gradient scale, which is there from the beginning or not at all")
        self._accumulation, self._autocast = accumulation, precision != "fp32"

    def over(self, loader: Loader, samples: int) -> Passed:
        """Pass through the next samples of the loader.

        Raises:
            RuntimeError, MemoryError: what :meth:`give_way` may know another way around. Gradients and the loader are
                then where they happened to be.
        """
        peers, sizes = self._peers, self.room.cut(samples, self._accumulation)
        with self._own_chance(loader.cursor + peers.rank * samples):
            batches = peers.draw(loader, self._model, sizes)
            (tokens,) = peers.sum(sum(batch.tokens for batch in batches))
            total = 0.0
            for number, batch in enumerate(batches, start=1):
                # What is wrapped around the loss takes the mean over processes.
                weight = batch.tokens * peers.size / tokens
                with peers.pass_(self._loss, last=number == len(batches)):
                    with torch.autocast(self._device.type, self._dtype, enabled=self._autocast):
                        loss = self._loss(self._moved(batch)) * weight
                    self.scaler.scale(loss).backward()
                total += loss.item()
        return Passed(peers.sum(total)[0] / peers.size, int(tokens), len(sizes))

    def give_way(self, error: Exception, samples: int) -> bool:
        """Whether the same samples may be tried again, another way: in smaller parts, or without the compiler.

        Processes that train together do not try again by themselves: one alone would wait for the others.

        Raises:
            MemoryError: memory refused a single sample.
        """
        if is_out_of_memory(error) and self._peers.size == 1:
            before = max(self.room.cut(samples, self._accumulation))
            self.room = self.room.without(before)
            log.warning(
                "%d samples do not fit into memory at once: passes of %d from now on", before, self.room.samples
            )
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            return True
        if self._compiled and _is_of_the_compiler(error):
            log.warning("not compiled: %s. Training goes on without", str(error).strip().splitlines()[0])
            for unit in self._compiled:
                unit._compiled_call_impl = None
            self._compiled = []
            return True
        return False

    @property
    def place(self) -> str:
        """What decides how much fits, beside the task: another place learns anew."""
        kind = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else "cpu"
        return f"{kind} {self._dtype if self._autocast else 'fp32'} {self._peers.size} {self._peers.sharding}"

    def _moved(self, batch: Batch) -> Batch:
        """Every tensor of a batch on the device; a task may add some of its own."""
        values: dict[str, Any] = {field.name: getattr(batch, field.name) for field in fields(batch)}
        moved = {name: value.to(self._device) for name, value in values.items() if isinstance(value, Tensor)}
        for tensor in moved.values() if self._compiled else ():
            if tensor.layout is torch.strided and tensor.ndim:
                # Another number of samples is no other program.
                torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return replace(batch, **{**values, **moved})

    @contextmanager
    def _own_chance(self, cursor: int) -> Iterator[None]:
        """What draws from torch's global generator (dropout) draws the same after a restart, and leaves it alone."""
        word = hashlib.blake2b(f"{self._seed}:{cursor}".encode(), digest_size=8).digest()
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(int.from_bytes(word, "little"))
            yield


def is_out_of_memory(error: BaseException) -> bool:
    """Memory was refused, on the device or on the host: torch's CPU allocator has no class of its own for it."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _is_of_the_compiler(error: Exception) -> bool:
    # Loaded by now, and by who compiles alone: see ``shards``.
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException)
