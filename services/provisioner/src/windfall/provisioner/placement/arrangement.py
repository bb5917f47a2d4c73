"""How a gang is spread over the room that nodes have."""

from collections.abc import Mapping

from windfall.provisioner.placement.need import Arrangement


def arranged(arrangement: Arrangement, workers: int, fits: Mapping[str, int]) -> dict[str, int]:
    """Workers by node, only of nodes that get some; there is room for all of them.

    Args:
        fits: how many workers each node has room for.
    """
    return _packed(workers, fits) if arrangement == "pack" else _spread(workers, fits)


def _packed(workers: int, fits: Mapping[str, int]) -> dict[str, int]:
    """The largest nodes are filled first, and what is left goes where the least stays free."""
    chosen: dict[str, int] = {}
    while workers:
        open_ = {node: room for node, room in fits.items() if node not in chosen}
        enough = [node for node, room in open_.items() if room >= workers]
        node = min(enough, key=lambda n: (fits[n], n)) if enough else min(open_, key=lambda n: (-fits[n], n))
        chosen[node] = min(workers, fits[node])
        workers -= chosen[node]
    return chosen


def _spread(workers: int, fits: Mapping[str, int]) -> dict[str, int]:
    """One worker after the other to the node that has the fewest, and the most room among those."""
    chosen = dict.fromkeys(fits, 0)
    for _ in range(workers):
        open_ = [node for node in fits if chosen[node] < fits[node]]
        chosen[min(open_, key=lambda n: (chosen[n], -fits[n], n))] += 1
    return {node: count for node, count in chosen.items() if count}
