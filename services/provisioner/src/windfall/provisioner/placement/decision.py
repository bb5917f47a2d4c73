"""Which site takes a gang, on which of its nodes: decided from values alone, the same whatever order they come in.

A gang is all or nothing, stays within one site, and runs on one kind of GPU. Capacity is counted on each node: eight
GPUs that lie free on eight nodes are no node of eight.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated

from windfall.contracts.jurisdiction import within
from windfall.provisioner.placement.gpus import Gpu, Interconnect, Vendor, canonical_model
from windfall.provisioner.placement.nodes import NodeCapacity, Resources, Toleration
from windfall.provisioner.placement.profile import Profile

Arrangement = Literal["pack", "spread"]

_UNKNOWN: Final = Profile()


@validated(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Need:
    """What a gang asks for. Every bound of 0 and every empty set asks for nothing."""

    workers: int = 1
    """Size of the gang: all of them, or none."""
    gpus: int = 0
    """Of one worker, all on one node."""
    cpu_cores: float = 0
    """Of one worker."""
    memory_bytes: int = 0
    """Of one worker, in the node's memory."""
    vendors: frozenset[Vendor] = frozenset()
    models: frozenset[str] = frozenset()
    """Any name of a model will do: they are compared in their canonical form."""
    gpu_memory_bytes: int = 0
    """Of each GPU, at least."""
    interconnects: frozenset[Interconnect] = frozenset()
    """How the GPUs of one node reach each other: one of these."""
    interconnect_gb_per_s: float = 0
    """Between GPUs of one node, as measured, at least. A node without a measurement does not do."""
    samples_per_s: float = 0
    """Of one node with the reference model, as measured, at least. A node without a measurement does not do."""
    jurisdictions: tuple[str, ...] = ()
    """Laws under which the data may be used; a site under none of them is never used. Empty: any."""
    arrangement: Arrangement = "pack"
    """On as few nodes as possible, or on as many."""
    tolerations: tuple[Toleration, ...] = ()

    def __post_init__(self) -> None:
        bounds = (self.gpus, self.cpu_cores, self.memory_bytes, self.gpu_memory_bytes, self.samples_per_s)
        if self.workers < 1 or min(*bounds, self.interconnect_gb_per_s) < 0:
            raise ValueError("a gang has at least one worker, and no bound is below zero")


@dataclass(frozen=True)
class Site:
    """A site as placement knows it."""

    name: str
    nodes: tuple[NodeCapacity, ...] = ()
    jurisdiction: str = ""
    """Under whose law it lies; empty where it says nothing, which no allowed set includes."""
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    """Newest measurement by node, as ``node.profiled`` names it: a lease's name, or that of the Kubernetes node."""

    def profile(self, node: NodeCapacity) -> Profile:
        """What was measured on a node; else the slowest measurement of another one with the same GPU model."""
        if node.name in self.profiles:
            return self.profiles[node.name]
        models = {gpu.model for gpu in node.gpus} or {""}
        alike = [each for each in self.profiles.values() if each.model in models]
        return min(
            alike, key=lambda each: (each.samples_per_s, each.gb_per_s or 0, each.memory_bytes), default=_UNKNOWN
        )


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
class Verdict:
    """One line of an explanation: about a node, or about the site when ``node`` is empty."""

    site: str
    node: str
    chosen: bool
    why: str


@dataclass(frozen=True)
class _Kind:
    """Nodes of one site that offer the same GPU, with how many workers fit on each."""

    gpu: Gpu | None
    fits: Mapping[str, int]

    @property
    def room(self) -> int:
        return sum(self.fits.values())


# --- the choice -------------------------------------------------------------------------------------------------------


def place(need: Need, sites: Iterable[Site]) -> Placement | None:
    """The best site for the gang; none when no site may and can take it whole."""
    return next(iter(placements(need, sites)), None)


def placements(need: Need, sites: Iterable[Site]) -> tuple[Placement, ...]:
    """Where the gang could go, at each site that may and can take it: the one that was measured fastest first, then by
    name."""
    found = [placed for site in sites if (placed := _placed(need, site)) is not None]
    return tuple(sorted(found, key=lambda placed: (-placed.samples_per_s, placed.site)))


def _placed(need: Need, site: Site) -> Placement | None:
    if _barred(need, site):
        return None
    options = [_arranged(need, site, kind) for kind in _kinds(need, site) if kind.room >= need.workers]
    return min(options, key=lambda each: (-each.samples_per_s, len(each.workers), _order(each.gpu)), default=None)


def _arranged(need: Need, site: Site, kind: _Kind) -> Placement:
    chosen = _packed(need.workers, kind.fits) if need.arrangement == "pack" else _spread(need.workers, kind.fits)
    rate = math.fsum(site.profile(node).samples_per_s for node in site.nodes if node.name in chosen)
    selector = dict(kind.gpu.selector) if kind.gpu else {}
    return Placement(site.name, dict(sorted(chosen.items())), kind.gpu, selector, rate)


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


def _kinds(need: Need, site: Site) -> list[_Kind]:
    fits: dict[Gpu | None, dict[str, int]] = {}
    for node in site.nodes:
        profile = site.profile(node)
        for gpu in _offers(need, node, profile):
            if not _unfit(need, node, gpu, profile) and (room := _room(need, node, gpu)):
                fits.setdefault(_kind(gpu), {})[node.name] = room
    return [_Kind(gpu, rooms) for gpu, rooms in sorted(fits.items(), key=lambda item: _order(item[0]))]


def _kind(gpu: Gpu | None) -> Gpu | None:
    """Two nodes offer the same kind when vendor, model, resource and labels agree; memory is checked on each."""
    return None if gpu is None else Gpu(gpu.vendor, gpu.model, gpu.resource, 0, gpu.interconnect, gpu.selector)


def _offers(need: Need, node: NodeCapacity, profile: Profile) -> Sequence[Gpu | None]:
    if not need.gpus:
        return (None,)
    return [profile.corrected(gpu) for gpu in node.gpus]


def _room(need: Need, node: NodeCapacity, gpu: Gpu | None) -> int:
    return _asked(need, gpu).times_within(node.free)


def _asked(need: Need, gpu: Gpu | None) -> Resources:
    amounts = {
        "pods": Decimal(1),
        "cpu": Decimal(str(need.cpu_cores)),
        "memory": Decimal(need.memory_bytes),
    }
    if gpu is not None:
        amounts[gpu.resource] = Decimal(need.gpus)
    return Resources({name: asked for name, asked in amounts.items() if asked})


def _order(gpu: Gpu | None) -> tuple[Any, ...]:
    return () if gpu is None else (gpu.vendor, gpu.model, gpu.resource, gpu.interconnect, gpu.selector)


def affinity(placement: Placement) -> dict[str, Any]:
    """The node affinity that holds a pod to the chosen nodes, for ``spec.affinity.nodeAffinity``."""
    names = {"key": "metadata.name", "operator": "In", "values": sorted(placement.workers)}
    # One name per term: matchFields takes a single value.
    terms = [{"matchFields": [{**names, "values": [name]}]} for name in names["values"]]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


# --- why --------------------------------------------------------------------------------------------------------------


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
    if why := _barred(need, site):
        return Verdict(site.name, "", False, why)
    if here is not None:
        where = ", ".join(f"{count} on {node}" for node, count in here.workers.items())
        rate = f", measured {here.samples_per_s:.1f} samples/s" if here.samples_per_s else ""
        return Verdict(site.name, "", True, f"takes {_gang(need)}: {where}{rate}")
    able = _placed(need, site)
    if able is not None and best is not None:
        faster = best.samples_per_s > able.samples_per_s
        why = f"{best.site} was measured faster" if faster else f"{best.site} comes first by name"
        return Verdict(site.name, "", False, f"could take {_gang(need)}, but {why}")
    kinds = _kinds(need, site)
    room = max((kind.room for kind in kinds), default=0)
    many = " of one kind of GPU" if need.gpus and len(kinds) > 1 else ""
    why = f"has room for {room} of {need.workers} workers{many}: each is counted on its node"
    return Verdict(site.name, "", False, why)


def _node_verdict(need: Need, site: Site, node: NodeCapacity, here: Placement | None) -> Verdict:
    if here is not None and node.name in here.workers:
        count = here.workers[node.name]
        return Verdict(site.name, node.name, True, f"takes {count} of {need.workers} workers")
    if why := _barred(need, site):
        return Verdict(site.name, node.name, False, f"its site is not used: {why}")
    profile = site.profile(node)
    offers = _offers(need, node, profile)
    if not offers:
        return Verdict(site.name, node.name, False, "has no GPU")
    whys = [_unfit(need, node, gpu, profile) or _short(need, node, gpu) for gpu in offers]
    if all(whys):
        return Verdict(site.name, node.name, False, "; ".join(dict.fromkeys(whys)))
    room = max(_room(need, node, gpu) for gpu, why in zip(offers, whys, strict=True) if not why)
    reason = "the gang is placed without it" if here else "not all of the gang fits at this site"
    if here is None and _placed(need, site) is not None:
        reason = "another site takes the gang"
    return Verdict(site.name, node.name, False, f"has room for {room} workers, but {reason}")


def _barred(need: Need, site: Site) -> str:
    if not need.jurisdictions or within(site.jurisdiction, need.jurisdictions):
        return ""
    allowed = ", ".join(need.jurisdictions)
    if not site.jurisdiction:
        return f"jurisdiction: it says under no law, and the data may be used under {allowed} only"
    return f"jurisdiction: {site.jurisdiction} is not within {allowed}"


def _unfit(need: Need, node: NodeCapacity, gpu: Gpu | None, profile: Profile) -> str:
    """Why a node does not do, whatever is free on it; empty when it does."""
    if not node.ready:
        return "is not ready"
    if not node.schedulable:
        return "is cordoned"
    if taint := node.unborne(need.tolerations):
        key, value, effect = taint
        return f"has the taint {key}{f'={value}' if value else ''}:{effect}, which is not tolerated"
    if gpu is not None and (why := _wrong_gpu(need, gpu)):
        return why
    if need.interconnect_gb_per_s:
        measured = profile.gb_per_s
        if measured is None:
            return "its interconnect was not measured"
        if measured < need.interconnect_gb_per_s:
            return f"its interconnect was measured at {measured:g} GB/s, {need.interconnect_gb_per_s:g} are needed"
    if need.samples_per_s:
        rate = profile.samples_per_s
        if not rate:
            return "its throughput was not measured"
        if rate < need.samples_per_s:
            return f"was measured at {rate:.1f} samples/s, {need.samples_per_s:g} are needed"
    return ""


def _wrong_gpu(need: Need, gpu: Gpu) -> str:
    name = f"{gpu.vendor} {gpu.model or 'of unknown model'}"
    models = {canonical_model(model) for model in need.models}
    if need.vendors and gpu.vendor not in need.vendors:
        return f"has {name}, needed is {' or '.join(sorted(need.vendors))}"
    if models and gpu.model not in models:
        return f"has {name}, needed is {' or '.join(sorted(models))}"
    if need.gpu_memory_bytes and gpu.memory_bytes < need.gpu_memory_bytes:
        known = f"{gpu.memory_bytes / 2**30:.0f} GiB" if gpu.memory_bytes else "memory of unknown size"
        return f"its GPUs have {known}, {need.gpu_memory_bytes / 2**30:.0f} GiB are needed"
    if need.interconnects and gpu.interconnect not in need.interconnects:
        return f"its GPUs are joined by {gpu.interconnect}, needed is {' or '.join(sorted(need.interconnects))}"
    return ""


def _short(need: Need, node: NodeCapacity, gpu: Gpu | None) -> str:
    """What there is too little of on a node; empty when a worker fits."""
    for name, asked in _asked(need, gpu).amounts.items():
        free = max(node.free.of(name), Decimal(0))
        if free < asked:
            if name == "memory":
                return f"has {free / 2**30:.1f} GiB of memory free, a worker needs {asked / 2**30:.1f}"
            what = {"cpu": "CPU cores", "pods": "places for pods"}.get(name, name)
            return f"has {free.normalize():f} {what} free, a worker needs {asked.normalize():f}"
    return ""


def _gang(need: Need) -> str:
    each = f" of {need.gpus} GPUs" if need.gpus > 1 else " of one GPU" if need.gpus else ""
    return f"all {need.workers} workers{each}" if need.workers > 1 else f"the worker{each}"
