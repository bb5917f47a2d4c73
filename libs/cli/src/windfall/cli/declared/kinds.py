"""The kinds that a person declares, and where they are."""

import os
from collections.abc import Mapping
from typing import Final

import yaml
from kubernetes.aio.config import ConfigException, list_kube_config_contexts
from pydantic import BaseModel

from windfall.contracts.resources import GROUP, VERSION, Federation, Site
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Connection, Kind

SITE: Final = Kind(GROUP, VERSION, "Site", "sites")
FEDERATION: Final = Kind(GROUP, VERSION, "Federation", "federations")
KINDS: Final = (SITE, FEDERATION)
"""In the order in which they are applied: what selects stands behind what is selected."""
MODELS: Final[Mapping[str, type[BaseModel]]] = {"Site": Site, "Federation": Federation}

MANAGER: Final = "windfall"
"""Owns the fields that are applied."""


def namespace_of(connection: Connection) -> str:
    """The one that the kubeconfig's context names, or else ``default``, as with ``kubectl``."""
    paths = [str(path) for path in connection.paths() if path.is_file()]
    if connection.in_cluster or not paths:
        return "default"
    try:
        known, current = list_kube_config_contexts(os.pathsep.join(paths))
    except (ConfigException, OSError, yaml.YAMLError, TypeError):
        # Whoever connects says what is wrong with it.
        return "default"
    counts = next((one for one in known if one["name"] == connection.context), current)
    return str(((counts or {}).get("context") or {}).get("namespace") or "default")


def away(error: Transient) -> Mistake:
    """The API server does not answer."""
    return Mistake(
        f"the API server does not answer ({error})",
        "Start it, or name another with --kubeconfig and --context, as `kubectl` has them",
        ExitCode.SERVER,
    )
