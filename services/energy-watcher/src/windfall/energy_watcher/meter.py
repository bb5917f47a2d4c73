"""The port to whatever counts the node's energy."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol

from windfall.energy.meter import Reading
from windfall.energy_watcher.ledger_settings import BookkeeperSettings
from windfall.energy_watcher.nvml_meter import NvmlMeter
from windfall.energy_watcher.prometheus_meter import PrometheusMeter
from windfall.energy_watcher.rapl_meter import RaplMeter
from windfall.energy_watcher.section import Means
from windfall.servicekit.errors import ExitCode, Mistake

log = logging.getLogger(__name__)


class Meter(Protocol):
    """Cumulative counters of everything that it meters."""

    name: str

    async def read(self, now: datetime) -> Reading:
        """Every counter as it stands. Raises ``Transient`` when it cannot be read now."""

    async def close(self) -> None:
        """Let go of the device."""


class Both:
    """Two meters of different parts of one machine, as one."""

    def __init__(self, first: Meter, second: Meter) -> None:
        self.name = f"{first.name}+{second.name}"
        self._first, self._second = first, second

    async def read(self, now: datetime) -> Reading:
        first, second = await self._first.read(now), await self._second.read(now)
        return Reading(now, self.name, {**first.counters, **second.counters})

    async def close(self) -> None:
        await self._first.close()
        await self._second.close()


COUNTERS: Final[dict[str, Callable[[], Meter | None]]] = {
    "nvml": NvmlMeter.of_this_machine,
    "rapl": RaplMeter.of_this_machine,
}
"""This machine's own, by the name that ``WINDFALL_METER`` gives them; none where it has no such counter."""


def meter_of(settings: BookkeeperSettings, environ: Mapping[str, str]) -> Meter | None:
    """The meter that was asked for; none leaves the power to the model.

    Raises:
        Mistake: it was asked for by name, and this machine does not have it.
    """
    name = settings.meter
    if name == "none":
        return None
    if name == "prometheus":
        assert settings.meter_prometheus is not None, "the settings ask for it"
        return PrometheusMeter.of(settings.meter_prometheus, Means(settings.site, "meter", environ))
    if name != "auto":
        found = COUNTERS[name]()
        if found is None:
            cure = "Set WINDFALL_METER to auto, or run the watcher on the node with the rights to read the counter"
            raise Mistake(f"this machine has no energy counter of {name}", cure, ExitCode.RESOURCE)
        return found
    gpus = COUNTERS["nvml"]()
    if gpus is None:
        # A processor's counter alone says nothing of the node: most watchers run on another machine than the training.
        log.info("no GPU with an energy counter is here: the ledger's power is modelled")
        return None
    processors = COUNTERS["rapl"]()
    return gpus if processors is None else Both(gpus, processors)
