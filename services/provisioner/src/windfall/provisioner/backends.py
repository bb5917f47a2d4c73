"""The backends that there are: one file and one entry each."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from windfall.provisioner.backend import Backend
from windfall.provisioner.process import ProcessBackend, running

if TYPE_CHECKING:
    from windfall.provisioner.settings import ProvisionerSettings


def _process(settings: "ProvisionerSettings") -> Backend:
    return ProcessBackend(settings.state_dir, running(settings.node_module))


BACKENDS: Final[dict[str, Callable[["ProvisionerSettings"], Backend]]] = {
    "process": _process,
}
"""How each known backend is made from the settings of its site. One that needs more reads it from variables of its own,
and imports what only it needs when it is made: a site of processes has no client of Kubernetes installed."""
