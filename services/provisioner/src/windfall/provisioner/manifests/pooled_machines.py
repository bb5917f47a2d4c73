"""The machines of a site that are reached by SSH, as k0smotron's pool has them.

Labels of a pooled machine travel with it to the machine that it becomes: so none of them speaks of a lease.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from windfall.contracts.resources.machines import SshMachine
from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
from windfall.provisioner.manifests.contracts import POOLED_MACHINE, REMOTE_TEMPLATE, V1BETA1, Contract
from windfall.provisioner.manifests.labels import Manifest
from windfall.provisioner.manifests.spoken_object import made

UNREACHABLE: Final = "windfall.dev/unreachable"
"""An annotation: why k0smotron could not make a node of the machine when it last tried."""


@dataclass(frozen=True)
class Place:
    """Where a machine stands.

    Args:
        pool: under whose name it waits.
        unreachable: as :data:`UNREACHABLE`; empty when it was made a node of, or has not been tried.
    """

    pool: str
    unreachable: str = ""


NOWHERE: Final[Mapping[str, Place]] = MappingProxyType({})


def pooled_name(cluster: str, machine: SshMachine) -> str:
    """What the object of a machine is called."""
    return f"{cluster}-{machine.name}"


def pooled(
    site: str,
    namespace: str,
    said: ClusterApiParameters,
    spoken: Contract,
    machine: SshMachine,
    places: Mapping[str, Place] = NOWHERE,
) -> Manifest:
    """One machine, waiting.

    Args:
        site: whose it is.
        namespace: where its objects are.
        said: with every name.
        spoken: the versions that the server is spoken to in.
        machine: what a person says of it.
        places: by the name of the object; in the pool itself where nothing is said.
    """
    spec: dict[str, Any] = {
        "address": machine.address,
        "port": machine.port,
        "user": machine.user,
        "useSudo": machine.use_sudo,
        "sshKeyRef": {"name": machine.ssh_key_secret},
    }
    if machine.clean_up:
        old = spoken[POOLED_MACHINE].version == V1BETA1
        spec["customCleanUpCommands" if old else "cleanUpCommands"] = list(machine.clean_up)
    name = pooled_name(str(said.cluster), machine)
    place = places.get(name, Place(str(said.pool)))
    whole = made(spoken, POOLED_MACHINE, site, namespace, name, {"pool": place.pool, "machine": spec})
    if place.unreachable:
        whole["metadata"]["annotations"] = {UNREACHABLE: place.unreachable}
    return whole


def remote_template(site: str, namespace: str, said: ClusterApiParameters, spoken: Contract) -> Manifest:
    """By which each machine of the MachineDeployment takes one from the pool."""
    spec = {"template": {"spec": {"pool": said.pool}}}
    return made(spoken, REMOTE_TEMPLATE, site, namespace, str(said.machine_deployment), spec)
