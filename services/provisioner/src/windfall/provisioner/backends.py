"""The backends that there are: one file and one entry each."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from windfall.provisioner.backend import Backend
from windfall.provisioner.process import ProcessBackend, running
from windfall.servicekit.clock import parse_clock
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.settings import load

if TYPE_CHECKING:
    from windfall.provisioner.settings import ProvisionerSettings


def _process(settings: "ProvisionerSettings") -> Backend:
    return ProcessBackend(settings.state_dir, running(settings.node_module))


def _kubernetes(settings: "ProvisionerSettings") -> Backend:
    with _installed("kubernetes"):
        from windfall.provisioner.kube_settings import TrainerSettings
        from windfall.provisioner.kubernetes import KubernetesBackend

    trainers = load(TrainerSettings, os.environ)
    clock = parse_clock(settings.clock)
    return KubernetesBackend(settings.site, trainers, settings.node_module, settings.grace, clock)


def _cluster_api(settings: "ProvisionerSettings") -> Backend:
    with _installed("cluster-api"):
        from windfall.provisioner import machine_backends

    return machine_backends.cluster_api(settings, os.environ)


def _k0rdent(settings: "ProvisionerSettings") -> Backend:
    with _installed("k0rdent"):
        from windfall.provisioner import machine_backends

    return machine_backends.k0rdent(settings, os.environ)


@contextmanager
def _installed(backend: str) -> Iterator[None]:
    """
    Raises:
        Mistake: the client of Kubernetes is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise Mistake(
            f"WINDFALL_BACKEND is {backend!r}, and {error.name} is not installed",
            "Install windfall-provisioner[kube]",
            ExitCode.RESOURCE,
        ) from error


BACKENDS: Final[dict[str, Callable[["ProvisionerSettings"], Backend]]] = {
    "process": _process,
    "kubernetes": _kubernetes,
    "cluster-api": _cluster_api,
    "k0rdent": _k0rdent,
}
"""How each known backend is made from the settings of its site. One that needs more reads it from variables of its own,
and imports what only it needs when it is made: a site of processes has no client of Kubernetes installed."""
