"""Whether a site and each of its nodes does for a gang, whatever else is there, and the words in which it does not."""

from collections.abc import Sequence
from decimal import Decimal

from windfall.contracts.jurisdiction import within
from windfall.provisioner.placement.gpus import Gpu, canonical_model
from windfall.provisioner.placement.need import Need, Pool
from windfall.provisioner.placement.nodes import NodeCapacity, Resources
from windfall.provisioner.placement.profile import Profile
from windfall.provisioner.placement.site import Site


def barred(need: Need, site: Site) -> str:
    """Why a site may not be used at all; empty when it may."""
    if not need.jurisdictions or within(site.jurisdiction, need.jurisdictions):
        return ""
    allowed = ", ".join(need.jurisdictions)
    if not site.jurisdiction:
        return f"jurisdiction: it says under no law, and the data may be used under {allowed} only"
    return f"jurisdiction: {site.jurisdiction} is not within {allowed}"


def unfit(need: Need, node: NodeCapacity, gpu: Gpu | None, profile: Profile) -> str:
    """Why a node does not do, whatever is free on it; empty when it does."""
    if not node.ready:
        return "is not ready"
    if not node.schedulable:
        return "is cordoned"
    if taint := node.unborne(need.tolerations):
        key, value, effect = taint
        return f"has the taint {key}{f'={value}' if value else ''}:{effect}, which is not tolerated"
    if missing := [f"{key}={value}" for key, value in need.node_selector.items() if node.labels.get(key) != value]:
        return f"does not have the label {missing[0]}"
    if need.pools and pool_of(need, node, gpu) is None:
        return f"is in no pool that the site lends ({', '.join(pool.name for pool in need.pools)})"
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


def pool_of(need: Need, node: NodeCapacity, gpu: Gpu | None) -> Pool | None:
    """The first pool that a node is in; none where it is in none, or the site has none."""
    return next((pool for pool in need.pools if _in(pool, node, gpu)), None)


def _in(pool: Pool, node: NodeCapacity, gpu: Gpu | None) -> bool:
    if any(node.labels.get(key) != value for key, value in pool.node_selector.items()):
        return False
    if gpu is None:
        return True
    model = canonical_model(pool.model) if pool.model else gpu.model
    return (pool.vendor or gpu.vendor, model) == (gpu.vendor, gpu.model)


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


def short(need: Need, node: NodeCapacity, gpu: Gpu | None) -> str:
    """What there is too little of on a node; empty when a worker fits."""
    for name, asked in _asked(need, gpu).amounts.items():
        free = max(node.free.of(name), Decimal(0))
        if free < asked:
            if name == "memory":
                return f"has {free / 2**30:.1f} GiB of memory free, a worker needs {asked / 2**30:.1f}"
            what = {"cpu": "CPU cores", "pods": "places for pods"}.get(name, name)
            return f"has {free.normalize():f} {what} free, a worker needs {asked.normalize():f}"
    return ""


def offers(need: Need, node: NodeCapacity, profile: Profile) -> Sequence[Gpu | None]:
    """The kinds of GPU that a node has, as they were measured; one none where no GPU is asked for."""
    if not need.gpus:
        return (None,)
    return [profile.corrected(gpu) for gpu in node.gpus]


def room(need: Need, node: NodeCapacity, gpu: Gpu | None) -> int:
    """How many workers fit on what is free of a node."""
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
