"""Which site takes a gang, on which of its nodes: decided from values alone, the same whatever order they come in.

A gang is all or nothing, stays within one site, and runs on one kind of GPU. Capacity is counted on each node: eight
GPUs that lie free on eight nodes are no node of eight.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from windfall.provisioner.placement.arrangement import arranged
from windfall.provisioner.placement.fitness import barred, offers, room, unfit
from windfall.provisioner.placement.gpus import Gpu
from windfall.provisioner.placement.lending import within_pools
from windfall.provisioner.placement.need import Need
from windfall.provisioner.placement.site import Site


@dataclass(frozen=True)
class Placement:
    """Where the gang goes."""

    site: str
    workers: Mapping[str, int]
    """By node, in the order of names; only nodes that get some."""
    gpu: Gpu | None
    """The kind that every worker gets; none when none was asked for."""
    node_selector: Mapping[str, str]
    """Labels that all chosen nodes have and that name the kind."""
    samples_per_s: float
    """Of all chosen nodes together, as far as they were measured."""


@dataclass(frozen=True)
class Kind:
    """Nodes of one site that offer the same GPU, with how many workers fit on each."""

    gpu: Gpu | None
    fits: Mapping[str, int]

    @property
    def room(self) -> int:
        return sum(self.fits.values())


def place(need: Need, sites: Iterable[Site]) -> Placement | None:
    """The best site for the gang; none when no site may and can take it whole."""
    return next(iter(placements(need, sites)), None)


def placements(need: Need, sites: Iterable[Site]) -> tuple[Placement, ...]:
    """Where the gang could go, at each site that may and can take it: the one that was measured fastest first, then by
    name."""
    found = [placed for site in sites if (placed := placed_at(need, site)) is not None]
    return tuple(sorted(found, key=lambda placed: (-placed.samples_per_s, placed.site)))


def placed_at(need: Need, site: Site) -> Placement | None:
    """Where the gang would go at this site; none when it may not or cannot take it whole."""
    if barred(need, site):
        return None
    options = [_arranged(need, site, kind) for kind in kinds(need, site) if kind.room >= need.workers]
    return min(options, key=lambda each: (-each.samples_per_s, len(each.workers), _order(each.gpu)), default=None)


def _arranged(need: Need, site: Site, kind: Kind) -> Placement:
    chosen = arranged(need.arrangement, need.workers, kind.fits)
    rate = math.fsum(site.profile(node).samples_per_s for node in site.nodes if node.name in chosen)
    selector = dict(kind.gpu.selector) if kind.gpu else {}
    return Placement(site.name, dict(sorted(chosen.items())), kind.gpu, selector, rate)


def kinds(need: Need, site: Site) -> list[Kind]:
    """What each kind of GPU at the site has room for, as far as its pools lend it, in one order."""
    fits: dict[Gpu | None, dict[str, int]] = {}
    seen: dict[Gpu | None, dict[str, Gpu | None]] = {}
    for node in site.nodes:
        profile = site.profile(node)
        for gpu in offers(need, node, profile):
            if not unfit(need, node, gpu, profile) and (fitting := room(need, node, gpu)):
                fits.setdefault(_kind(gpu), {})[node.name] = fitting
                seen.setdefault(_kind(gpu), {})[node.name] = gpu
    return [
        Kind(gpu, within_pools(need, site, seen[gpu], rooms))
        for gpu, rooms in sorted(fits.items(), key=lambda item: _order(item[0]))
    ]


def _kind(gpu: Gpu | None) -> Gpu | None:
    """Two nodes offer the same kind when vendor, model, resource and labels agree; memory is checked on each."""
    return None if gpu is None else Gpu(gpu.vendor, gpu.model, gpu.resource, 0, gpu.interconnect, gpu.selector)


def _order(gpu: Gpu | None) -> tuple[Any, ...]:
    return () if gpu is None else (gpu.vendor, gpu.model, gpu.resource, gpu.interconnect, gpu.selector)
