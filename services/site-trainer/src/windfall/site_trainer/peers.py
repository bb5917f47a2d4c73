"""The processes of one site that train one model together, as one of them sees it: PyTorch's DDP or FSDP2 around a
task's loss, and the few numbers that all must agree on.

What a step is judged by (loss, gradient norm) is of all samples, and the same bits in each, so that all come to one
verdict.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from windfall.site_trainer.engine import Sharding
from windfall.tasks.task import Batch, Loader, Skipping, Task

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.nn.parallel import DistributedDataParallel


class LossOf(nn.Module):
    """A task's loss as a module, so that what is wrapped around it lies outside of the model that the task knows."""

    def __init__(self, task: Task, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._task = task

    def forward(self, batch: Batch) -> Tensor:
        return self._task.loss(self.model, batch)


@dataclass(frozen=True)
class Peers:
    """Where one process stands among those that train together."""

    rank: int = 0
    size: int = 1
    sharding: Sharding = "ddp"

    @property
    def sharded(self) -> bool:
        """Each holds a part of every weight."""
        return self.size > 1 and self.sharding == "fsdp"

    def wrap(self, loss: LossOf, device: torch.device) -> nn.Module:
        """The loss whose backward pass leaves in every process the mean of all gradients."""
        if self.size == 1:
            return loss
        # Loaded by who needs them: see ``shards``.
        if self.sharding == "fsdp":
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(device.type, (self.size,))
            for unit in units(loss.model):
                fully_shard(unit, mesh=mesh)
            fully_shard(loss, mesh=mesh)
            return loss
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(loss)

    @contextmanager
    def pass_(self, loss: nn.Module, last: bool) -> Iterator[None]:
        """A forward and backward pass: gradients meet in a step's last one."""
        quiet: AbstractContextManager[None] = nullcontext()
        if self.sharded:
            cast("FSDPModule", loss).set_requires_gradient_sync(last)
        elif self.size > 1 and not last:
            quiet = cast("DistributedDataParallel", loss).no_sync()
        with quiet:
            yield

    def sum(self, *values: float) -> tuple[float, ...]:
        """Each value summed over all processes."""
        if self.size == 1:
            return values
        summed = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(summed)
        return tuple(summed.tolist())

    def agreed(self, *values: float) -> tuple[float, ...]:
        """The first process's values, to the bit: what all decide by, whatever a device's reductions round to."""
        if self.size == 1:
            return values
        said = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(said, 0)
        return tuple(said.tolist())

    def draw(self, loader: Loader, model: nn.Module, sizes: Sequence[int]) -> list[Batch]:
        """This process's batches of a step; the loader stands where the next step begins, afterwards.

        Process r of n takes samples ``[r·m, (r + 1)·m)`` of the next ``n·m``: together those of one process that
        takes n times as many.
        """
        share = sum(sizes)
        pass_over(loader, self.rank * share, model)
        batches = [loader.batch(size, model) for size in sizes]
        pass_over(loader, (self.size - 1 - self.rank) * share, model)
        return batches


ALONE: Final = Peers()


def pass_over(loader: Loader, samples: int, model: nn.Module) -> None:
    """Go on behind samples that others take. A loader that cannot skip reads them for nothing."""
    if not samples:
        return
    if isinstance(loader, Skipping):
        loader.skip(samples)
    else:
        loader.batch(samples, model)


def units(model: nn.Module) -> list[nn.Module]:
    """The blocks that are gathered and compiled one by one: the members of every ``nn.ModuleList``, outermost only."""
    found: list[nn.Module] = []
    for child in model.children():
        found.extend(child.children() if isinstance(child, nn.ModuleList) else units(child))
    return found
