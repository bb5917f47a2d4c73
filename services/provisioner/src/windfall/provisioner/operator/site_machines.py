"""The machines that a Site names in its pools, as its provisioner is told of them."""

import json
from typing import Any, Final

from windfall.contracts.resources.site import Site
from windfall.provisioner.machine_settings import cluster_api_parameters

BACKEND: Final = "cluster-api"
_PARAMETER: Final = "clusterApi"
VARIABLE: Final = "WINDFALL_CLUSTER_API"


def faults(site: Site) -> list[str]:
    """What a schema cannot say: each with its cure."""
    backend, machines = site.spec.backend, site.spec.machines
    if backend.name != BACKEND:
        wrong = "pools: machines are for the backend cluster-api; say backend.name: cluster-api, or leave them out"
        return [wrong] if machines else []
    if not machines:
        return []
    try:
        given = _given(site)
        if "machines" in given:
            return [f"backend.parameters.{_PARAMETER}: machines are said by the pools; leave them out"]
        cluster_api_parameters(told(site)[VARIABLE])
    except ValueError as error:
        return [f"backend.parameters.{_PARAMETER}: {error}"]
    return []


def told(site: Site) -> dict[str, str]:
    """Of the provisioner's environment, what its machines make of it; nothing where the pools name none.

    Raises:
        ValueError: the backend's parameters are no JSON object.
    """
    if site.spec.backend.name != BACKEND or not site.spec.machines:
        return {}
    machines = [machine.model_dump(by_alias=True, exclude_defaults=True) for machine in site.spec.machines]
    return {VARIABLE: json.dumps({**_given(site), "machines": machines}, sort_keys=True)}


def _given(site: Site) -> dict[str, Any]:
    text = site.spec.backend.parameters.get(_PARAMETER, "{}")
    try:
        given = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not JSON") from error
    if not isinstance(given, dict):
        raise ValueError(f"{text!r} is not a JSON object")
    return given
