"""One line about each site and each of its nodes, for whoever asks why not."""

from collections.abc import Iterable
from dataclasses import dataclass

from windfall.provisioner.placement.decision import Placement, kinds, place, placed_at
from windfall.provisioner.placement.fitness import barred, offers, room, short, unfit
from windfall.provisioner.placement.lending import used_up
from windfall.provisioner.placement.need import Need
from windfall.provisioner.placement.nodes import NodeCapacity
from windfall.provisioner.placement.site import Site


@dataclass(frozen=True)
class Verdict:
    """One line of an explanation: about a node, or about the site when ``node`` is empty."""

    site: str
    node: str
    chosen: bool
    why: str


def explain(need: Need, sites: Iterable[Site]) -> tuple[Verdict, ...]:
    """One line for each site and each of its nodes, sites and nodes by name."""
    known = sorted(sites, key=lambda site: site.name)
    best = place(need, known)
    said: list[Verdict] = []
    for site in known:
        here = best if best is not None and best.site == site.name else None
        said.append(_site_verdict(need, site, best, here))
        for node in sorted(site.nodes, key=lambda node: node.name):
            said.append(_node_verdict(need, site, node, here))
    return tuple(said)


def _site_verdict(need: Need, site: Site, best: Placement | None, here: Placement | None) -> Verdict:
    if why := barred(need, site):
        return Verdict(site.name, "", False, why)
    if here is not None:
        where = ", ".join(f"{count} on {node}" for node, count in here.workers.items())
        rate = f", measured {here.samples_per_s:.1f} samples/s" if here.samples_per_s else ""
        return Verdict(site.name, "", True, f"takes {_gang(need)}: {where}{rate}")
    able = placed_at(need, site)
    if able is not None and best is not None:
        faster = best.samples_per_s > able.samples_per_s
        why = f"{best.site} was measured faster" if faster else f"{best.site} comes first by name"
        return Verdict(site.name, "", False, f"could take {_gang(need)}, but {why}")
    found = kinds(need, site)
    most = max((kind.room for kind in found), default=0)
    many = " of one kind of GPU" if need.gpus and len(found) > 1 else ""
    why = f"has room for {most} of {need.workers} workers{many}: each is counted on its node"
    if pools := used_up(need, site):
        why += f"; {pools}"
    return Verdict(site.name, "", False, why)


def _node_verdict(need: Need, site: Site, node: NodeCapacity, here: Placement | None) -> Verdict:
    if here is not None and node.name in here.workers:
        count = here.workers[node.name]
        return Verdict(site.name, node.name, True, f"takes {count} of {need.workers} workers")
    if why := barred(need, site):
        return Verdict(site.name, node.name, False, f"its site is not used: {why}")
    profile = site.profile(node)
    offered = offers(need, node, profile)
    if not offered:
        return Verdict(site.name, node.name, False, "has no GPU")
    whys = [unfit(need, node, gpu, profile) or short(need, node, gpu) for gpu in offered]
    if all(whys):
        return Verdict(site.name, node.name, False, "; ".join(dict.fromkeys(whys)))
    most = max(room(need, node, gpu) for gpu, why in zip(offered, whys, strict=True) if not why)
    reason = "the gang is placed without it" if here else "not all of the gang fits at this site"
    if here is None and placed_at(need, site) is not None:
        reason = "another site takes the gang"
    return Verdict(site.name, node.name, False, f"has room for {most} workers, but {reason}")


def _gang(need: Need) -> str:
    each = f" of {need.gpus} GPUs" if need.gpus > 1 else " of one GPU" if need.gpus else ""
    return f"all {need.workers} workers{each}" if need.workers > 1 else f"the worker{each}"
