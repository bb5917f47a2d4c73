"""Which versions an API server speaks of what we write and read."""

import logging
from collections.abc import Iterable

from windfall.provisioner.manifests.contracts import Contract, Resource, chosen, offered
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Kind
from windfall.servicekit.kube.kinds import CRD

log = logging.getLogger(__name__)


async def spoken(cluster: Cluster, resources: Iterable[Resource]) -> Contract:
    """The version of each.

    Raises:
        Transient: the server cannot say now.
        Mistake: it serves none that fits.
    """
    return {resource: await _version(cluster, resource) for resource in resources}


async def _version(cluster: Cluster, resource: Resource) -> Kind:
    try:
        definition = await cluster.get(CRD, resource.definition)
    except Mistake as refused:
        # Definitions belong to the whole server, and not everybody may read them. What is served everybody is told, but
        # not what is stored: the newest, as a rule.
        log.info("asks what is served instead: %s", refused)
        served = [version for version in resource.versions if await cluster.serves(resource.at(version))]
        return chosen(resource, [(version, False) for version in served])
    return chosen(resource, offered(definition) if definition else ())
