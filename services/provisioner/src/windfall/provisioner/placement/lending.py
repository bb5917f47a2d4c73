"""How much of its pools a site still lends: what its own leases hold counts against it, whoever else uses the nodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from windfall.provisioner.placement.arrangement import arranged
from windfall.provisioner.placement.fitness import pool_of
from windfall.provisioner.placement.gpus import Gpu
from windfall.provisioner.placement.need import Need, Pool
from windfall.provisioner.placement.nodes import Resources
from windfall.provisioner.placement.site import Site


@dataclass(frozen=True)
class Lent:
    """What the leases of a site hold of one pool."""

    pool: Pool
    devices: int
    nodes: frozenset[str]
    """On which anything is held."""

    def worker_limit(self, need: Need) -> int | None:
        """How many more workers it takes at most; none where it says nothing of GPUs, or of these workers."""
        if self.pool.count is None or self.pool.vendor is None or not need.gpus:
            return None
        return max(self.pool.count - self.devices, 0) // need.gpus

    def node_limit(self) -> int | None:
        """How many nodes it takes at most beside those that hold something already."""
        if self.pool.count is None or self.pool.vendor is not None:
            return None
        return max(self.pool.count - len(self.nodes), 0)


def lent(need: Need, site: Site) -> tuple[Lent, ...]:
    """What is held of each pool that says how much it lends, in their order."""
    return tuple(_lent(need, site, pool) for pool in need.pools if pool.count is not None)


def _lent(need: Need, site: Site, pool: Pool) -> Lent:
    devices, nodes = Decimal(0), set()
    for node in site.nodes:
        held = site.held.get(node.name, Resources())
        for gpu in node.gpus or (None,):
            if pool_of(need, node, gpu) is not pool:
                continue
            if any(held.amounts.values()):
                nodes.add(node.name)
            devices += held.of(gpu.resource) if gpu is not None else 0
    return Lent(pool, int(devices), frozenset(nodes))


def within_pools(need: Need, site: Site, gpus: Mapping[str, Gpu | None], fits: Mapping[str, int]) -> dict[str, int]:
    """How many workers go on each node, once no pool lends more than it says; the sum is the most that there is.

    Args:
        gpus: of each node, the kind that is asked of it.
        fits: how many workers each node has room for.
    """
    of = {node.name: pool_of(need, node, gpus[node.name]) for node in site.nodes if node.name in fits}
    allowed = {name: room for name, room in fits.items() if (pool := of[name]) is None or pool.count is None}
    for each in lent(need, site):
        rooms = {name: fits[name] for name in fits if of[name] is each.pool}
        if (more := each.node_limit()) is not None:
            new = sorted((name for name in rooms if name not in each.nodes), key=lambda name: (-rooms[name], name))
            rooms = {name: room for name, room in rooms.items() if name in each.nodes or name in new[:more]}
        if (most := each.worker_limit(need)) is not None:
            rooms = arranged(need.arrangement, min(most, need.workers, sum(rooms.values())), rooms)
        allowed |= rooms
    return {name: allowed[name] for name in fits if allowed.get(name)}


def used_up(need: Need, site: Site) -> str:
    """What the pools that say how much they lend have left, for an explanation; empty where none says it."""
    told = []
    for each in lent(need, site):
        if each.pool.vendor is None:
            told.append(_told(each.pool, len(each.nodes), "node"))
        elif need.gpus:
            told.append(_told(each.pool, each.devices, "GPU"))
    return "; ".join(told)


def _told(pool: Pool, held: int, what: str) -> str:
    return (
        f"the pool {pool.name} lends {pool.count} {what if pool.count == 1 else f'{what}s'}, of which {held} are held"
    )
