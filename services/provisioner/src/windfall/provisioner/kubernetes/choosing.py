"""On which machines of the cluster a lease's workers go: asked of :mod:`windfall.provisioner.placement`, which is told
what is free on each machine now.

What another lease of the same site holds counts as taken first. Where nothing is free otherwise it counts as free: a
site has one window at a time, so its machines are on their way back.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from windfall.provisioner.backend import NoRoom
from windfall.provisioner.dedicated import as_open
from windfall.provisioner.holdings import Lease
from windfall.provisioner.manifests.chosen import Chosen
from windfall.provisioner.manifests.labels import LEASE, site_labels
from windfall.provisioner.manifests.pod import tolerations
from windfall.provisioner.manifests.workload import Made
from windfall.provisioner.placement import Need, Placement, Profile, Site, explain, held_by_node, node_capacities, place
from windfall.provisioner.placement.explanation import Verdict
from windfall.provisioner.placement.fitness import barred
from windfall.provisioner.placement.gpus import amount
from windfall.provisioner.placement.nodes import tolerations_of
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Cluster, Object
from windfall.servicekit.kube.kinds import NODE, POD

_LIVING: Final = "status.phase!=Succeeded,status.phase!=Failed"
_MOST_TOLD: Final = 20
"""Machines of which is told why each does not do; of the others, how many they are."""


async def choose(cluster: Cluster, lease: Lease, made: Made) -> Chosen | None:
    """The machines of a lease; none where the scheduler is left to choose, because the site has said no need.

    Raises:
        NoRoom: no machine does now; of each is said why.
        Mistake: the site may not be used at all, or the server does not let us look.
    """
    need = need_of(lease, made)
    if need is None:
        return None
    jurisdiction = made.settings.jurisdiction or ""
    _permitted(need, lease.site, jurisdiction)
    nodes = [as_open(node, lease.site) for node in (await cluster.list(NODE)).items]
    pods = (await cluster.list(POD, fields=_LIVING)).items
    others = [pod for pod in pods if not _goes(pod, lease)]
    placed = None
    for counted in (pods, others):
        site = _site(lease.site, jurisdiction, nodes, counted)
        placed = placed or place(need, [site])
    if placed is None:
        raise no_room(explain(need, [_site(lease.site, jurisdiction, nodes, pods)]))
    return chosen(placed)


def need_of(lease: Lease, made: Made) -> Need | None:
    """What is asked of the machines: what the site needs, and what the pods of this lease ask for anyway."""
    settings, gpus = made.settings, made.accelerators(lease)
    said = settings.kube_need
    if said is None:
        return None
    return Need(
        workers=made.workers(lease),
        gpus=gpus,
        cpu_cores=float(amount(settings.kube_cpu or 0)),
        memory_bytes=int(amount(settings.kube_memory or 0)),
        vendors=frozenset({settings.kube_vendor} if gpus and settings.kube_vendor != "none" else ()),
        models=frozenset(said.models if gpus else ()),
        gpu_memory_bytes=said.gpu_memory_bytes if gpus else 0,
        interconnects=said.interconnects if gpus else frozenset(),
        interconnect_gb_per_s=said.interconnect_gb_per_s if gpus else 0,
        samples_per_s=said.samples_per_s,
        jurisdictions=said.jurisdictions,
        arrangement=said.arrangement,
        tolerations=tuple(tolerations_of(tolerations(settings, gpus))),
        node_selector=settings.kube_node_selector,
        pools=said.pools,
    )


def chosen(placed: Placement) -> Chosen:
    """A machine for each worker, in the order of their names."""
    nodes = tuple(name for name, count in placed.workers.items() for _ in range(count))
    resource = placed.gpu.resource if placed.gpu else None
    return Chosen(nodes=nodes, resource=resource, node_selector=dict(placed.node_selector))


def no_room(verdicts: Sequence[Verdict]) -> NoRoom:
    """Why no machine does: of each, and of how many each reason holds."""
    whole = next(said for said in verdicts if not said.node)
    machines = [said for said in verdicts if said.node]
    if not machines:
        return NoRoom("the cluster has no machine")
    counts = Counter(said.why for said in machines)
    reasons = [f"{count} {'machine' if count == 1 else 'machines'}: {why}" for why, count in counts.most_common()]
    lines = [f"{said.node}: {said.why}" for said in machines[:_MOST_TOLD]]
    more = [f"and {len(machines) - _MOST_TOLD} more"] if len(machines) > _MOST_TOLD else []
    return NoRoom("; ".join((whole.why, *reasons)), (*lines, *more))


def _permitted(need: Need, name: str, jurisdiction: str) -> None:
    if why := barred(need, Site(name, (), jurisdiction)):
        raise Mistake(
            f"{name} may not be used: {why}",
            "Leave the site out, or mend WINDFALL_JURISDICTION or the jurisdictions of WINDFALL_KUBE_NEED",
            ExitCode.RESOURCE,
        )


def _site(name: str, jurisdiction: str, nodes: Iterable[Object], pods: Sequence[Object]) -> Site:
    capacities = node_capacities(nodes, pods)
    profiles = {node.name: known for node in capacities if (known := Profile.labelled(node.labels)) is not None}
    return Site(name, capacities, jurisdiction, profiles, held_by_node(pod for pod in pods if _ours(pod, name)))


def _goes(pod: Object, lease: Lease) -> bool:
    """Whether it is of another lease of this site."""
    return _ours(pod, lease.site) and pod["metadata"]["labels"].get(LEASE) not in (None, str(lease.lease_id))


def _ours(pod: Object, site: str) -> bool:
    return site_labels(site).items() <= (pod["metadata"].get("labels") or {}).items()
