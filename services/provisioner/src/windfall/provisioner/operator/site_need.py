"""What a site needs of the nodes that its workers are placed on, as the provisioner's settings have it."""

import json
from collections.abc import Collection
from typing import Final

from windfall.contracts.resources.site import NodeNeed, Site
from windfall.provisioner.placement.gpus import amount

NEED: Final = "WINDFALL_KUBE_NEED"
_VENDOR: Final = "WINDFALL_KUBE_VENDOR"


def faults(site: Site, said: Collection[str]) -> list[str]:
    """What a schema cannot say: each with its cure.

    Args:
        said: the variables that the site's parameters and settings name.
    """
    need, found = site.spec.backend.need, []
    if need is None:
        return []
    if NEED in said:
        found.append(f"settings: {NEED} is said by backend.need; leave it out")
    if site.spec.backend.name == "process":
        found.append("backend.need: a process is not placed; leave it out, or name the backend kubernetes")
    if need.gpu_memory is not None and amount(need.gpu_memory) <= 0:
        found.append(f"backend.need.gpuMemory: {need.gpu_memory!r} is no quantity of memory; write it like 79Gi")
    vendors = _vendors(site)
    if need.gpus and _VENDOR not in said and len(vendors) != 1:
        which = " and ".join(vendors) or "none"
        found.append(f"backend.need: pools do not say whose GPUs are meant ({which}); say kubeVendor in parameters")
    return found


def told(site: Site) -> dict[str, str]:
    """What follows for the provisioner's environment; its own parameters win."""
    need, vendors = site.spec.backend.need, _vendors(site)
    if need is None:
        return {}
    vendor = {_VENDOR: vendors[0]} if len(vendors) == 1 else {}
    return {NEED: json.dumps(_need(site, need), sort_keys=True), **vendor}


def _need(site: Site, need: NodeNeed) -> dict[str, object]:
    said = need.model_dump(exclude={"gpu_memory"}, exclude_defaults=True)
    if need.gpu_memory is not None:
        said["gpu_memory_bytes"] = int(amount(need.gpu_memory))
    pools = [
        {"name": pool.name}
        | ({"node_selector": dict(pool.node_selector)} if pool.node_selector else {})
        | ({"vendor": pool.gpu_vendor} if pool.gpu_vendor != "none" else {})
        | ({"model": pool.gpu_model} if pool.gpu_model else {})
        | ({"count": pool.count} if pool.count is not None else {})
        for pool in site.spec.pools
    ]
    return said | ({"pools": pools} if pools else {})


def _vendors(site: Site) -> list[str]:
    """Of the GPUs that the site lends."""
    return sorted({pool.gpu_vendor for pool in site.spec.pools} - {"none"})
