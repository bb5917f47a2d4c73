"""Which engine a site trains with: PyTorch in the trainer's own process, or in several under torchrun.

What needs torch is imported where it stands, in a thread: a site that comes back is counted in before torch is loaded.
"""

import logging

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.ranks.group import RankGroup
from windfall.site_trainer.settings import TrainerSettings

log = logging.getLogger(__name__)


class Engines:
    """Makes the engines of one trainer, one at a time. Every method blocks."""

    def __init__(self, settings: TrainerSettings) -> None:
        self._settings = settings
        self._processes = 0
        """How many train together; 0 while nobody has counted the GPUs."""
        self._group: RankGroup | None = None

    def warm(self) -> None:
        """Load what can be loaded before it is known what is trained.

        Raises:
            Mistake: the device is not there.
        """
        if (group := self._ranks()) is not None:
            group.start()
            return
        from windfall.site_trainer.device import warm_up

        try:
            warm_up(self._settings.device)
        except ValueError as error:
            raise Mistake(f"cannot train: {error}", "Mend it and start again") from error

    def make(self, membership: Membership) -> Engine:
        """The engine for what the coordinator trains.

        Raises:
            Mistake: it cannot be trained here.
        """
        group = self._ranks()
        if group is not None and membership.corpus is not None:
            log.warning("rows of a shared corpus are trained by one process, not by %d", group.processes)
            group.close()
            group = self._group = None
            self._processes = 1
        try:
            return self._alone(membership) if group is None else self._together(membership, group)
        except ValueError as error:
            raise Mistake(f"cannot train: {error}", "Mend the site's data, or run the coordinator's version") from error

    def close(self) -> None:
        """End the processes, if there are several."""
        if self._group is not None:
            self._group.close()

    def _ranks(self) -> RankGroup | None:
        """The processes, where there are to be several."""
        if not self._processes:
            from windfall.site_trainer.device import gpus

            settings = self._settings
            self._processes = gpus(settings.device) if settings.processes == "auto" else settings.processes
            if self._processes > 1:
                self._group = RankGroup(self._processes, settings.torch_threads)
        return self._group

    def _alone(self, membership: Membership) -> Engine:
        from windfall.site_trainer.torch_engine import TorchEngine
        from windfall.tasks.registry import load_task
        from windfall.tasks.rows import row_loader

        settings = self._settings
        task = load_task(membership.task, membership.task_settings)
        shared = membership.corpus
        return TorchEngine(
            task,
            membership.layout,
            settings.data_dir,
            settings.seed,
            settings.torch_threads,
            settings.device,
            settings.precision or "fp32",
            settings.accumulation or 1,
            settings.compile,
            rows=None if shared is None else row_loader(task, settings.data_dir, shared.rows, shared.seed),
        )

    def _together(self, membership: Membership, group: RankGroup) -> Engine:
        from windfall.site_trainer.ranks.engine import Order, RanksEngine

        settings = self._settings
        order = Order(
            membership.task,
            membership.task_settings,
            membership.layout,
            settings.data_dir,
            settings.seed,
            settings.torch_threads,
            settings.device,
            settings.precision or "fp32",
            settings.accumulation or 1,
            settings.compile,
            settings.sharding,
        )
        try:
            return RanksEngine(order, group)
        except OSError as error:
            raise Mistake(
                f"no memory that {group.processes} processes could share: {error}",
                "Train a smaller model, or on a larger node",
                ExitCode.RESOURCE,
            ) from error
