"""What is free on each node: allocatable less what pods claim, from Node and Pod objects as the API server has them.

Claims are counted as the scheduler counts them (containers and sidecars together, or the largest init container where
that is more, plus overhead). A pod that waits for a node claims one already: it was there first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from windfall.provisioner.placement.affinity import admitted, pinned_to
from windfall.provisioner.placement.gpus import Gpu, amount, gpus_of

Object = Mapping[str, Any]

_ENDED: Final = ("Succeeded", "Failed")
_KEEPS_AWAY: Final = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class Resources:
    """Amounts by Kubernetes resource name, in base units: cores, bytes, devices."""

    amounts: Mapping[str, Decimal] = field(default_factory=dict)

    def of(self, resource: str) -> Decimal:
        return self.amounts.get(resource, Decimal(0))

    def plus(self, other: "Resources") -> "Resources":
        return Resources({name: self.of(name) + other.of(name) for name in {*self.amounts, *other.amounts}})

    def minus(self, other: "Resources") -> "Resources":
        """What is left of ours; below zero where more is claimed than there is."""
        return Resources({name: left - other.of(name) for name, left in self.amounts.items()})

    def largest(self, other: "Resources") -> "Resources":
        return Resources({name: max(self.of(name), other.of(name)) for name in {*self.amounts, *other.amounts}})

    def times_within(self, free: "Resources") -> int:
        """How often these fit into what is free; 0 when nothing is asked."""
        fits = [int(max(free.of(name), Decimal(0)) // asked) for name, asked in self.amounts.items() if asked > 0]
        return min(fits, default=0)


@dataclass(frozen=True)
class Toleration:
    """Which taints a pod bears, with Kubernetes' meanings: an empty key with ``Exists`` bears all."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def bears(self, key: str, value: str, effect: str) -> bool:
        if self.effect and self.effect != effect:
            return False
        if self.operator == "Exists":
            return not self.key or self.key == key
        return self.key == key and self.value == value


@dataclass(frozen=True)
class NodeCapacity:
    """One node: what it is, and what is free on it now."""

    name: str
    gpus: tuple[Gpu, ...] = ()
    free: Resources = field(default_factory=Resources)
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[tuple[str, str, str], ...] = ()
    """Key, value and effect of those that keep pods away."""
    ready: bool = True
    schedulable: bool = True

    def unborne(self, tolerations: Iterable[Toleration]) -> tuple[str, str, str] | None:
        """The first taint that nobody bears."""
        borne = tuple(tolerations)
        return next((taint for taint in self.taints if not any(each.bears(*taint) for each in borne)), None)


def node_capacities(nodes: Iterable[Object], pods: Iterable[Object]) -> tuple[NodeCapacity, ...]:
    """What is free on each node, by name. Pods that ended claim nothing."""
    living = [pod for pod in pods if pod.get("status", {}).get("phase") not in _ENDED]
    claims: dict[str, Resources] = {}
    waiting: list[Object] = []
    for pod in living:
        if where := _bound(pod):
            claims[where] = claims.get(where, Resources()).plus(claimed(pod))
        else:
            waiting.append(pod)
    free = {node.name: node for node in sorted((_node(each, claims) for each in nodes), key=lambda each: each.name)}
    for pod in sorted(waiting, key=_age):
        node = next((node for node in free.values() if _would_take(node, pod)), None)
        if node is not None:
            left = node.free.minus(claimed(pod))
            free[node.name] = NodeCapacity(
                node.name, node.gpus, left, node.labels, node.taints, node.ready, node.schedulable
            )
    return tuple(free.values())


def held_by_node(pods: Iterable[Object]) -> dict[str, Resources]:
    """What pods hold on the nodes that they are bound or pinned to. Pods that ended hold nothing."""
    held: dict[str, Resources] = {}
    for pod in pods:
        where = _bound(pod) or pinned_to(pod.get("spec", {}))
        if where and pod.get("status", {}).get("phase") not in _ENDED:
            held[where] = held.get(where, Resources()).plus(claimed(pod))
    return held


def _bound(pod: Object) -> str | None:
    """The node that a pod is on, or that was emptied for it."""
    where = pod.get("spec", {}).get("nodeName") or pod.get("status", {}).get("nominatedNodeName")
    return str(where) if where else None


def claimed(pod: Object) -> Resources:
    """What a pod takes of its node, one place for a pod among it."""
    spec = pod.get("spec", {})
    steady = Resources({"pods": Decimal(1)})
    peak = Resources()
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            steady = steady.plus(asked)
            peak = peak.largest(steady)
        else:
            peak = peak.largest(steady.plus(asked))
    for container in spec.get("containers") or ():
        steady = steady.plus(_asked(container))
    return steady.largest(peak).plus(_amounts(spec.get("overhead") or {}))


def _node(node: Object, claims: Mapping[str, Resources]) -> NodeCapacity:
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    labels: Mapping[str, str] = metadata.get("labels") or {}
    allocatable = status.get("allocatable") or {}
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ())
    taints = [
        (each["key"], each.get("value") or "", each["effect"])
        for each in spec.get("taints") or ()
        if each.get("effect") in _KEEPS_AWAY
    ]
    name = metadata["name"]
    free = _amounts(allocatable).minus(claims.get(name, Resources()))
    return NodeCapacity(
        name,
        gpus_of(labels, allocatable),
        free,
        dict(labels),
        tuple(sorted(taints)),
        ready,
        not spec.get("unschedulable", False),
    )


def _would_take(node: NodeCapacity, pod: Object) -> bool:
    spec = pod.get("spec", {})
    if not (node.ready and node.schedulable and admitted(spec, node.name, node.labels)):
        return False
    return (
        node.unborne(tolerations_of(spec.get("tolerations") or ())) is None
        and claimed(pod).times_within(node.free) >= 1
    )


def tolerations_of(said: Iterable[Object]) -> Sequence[Toleration]:
    """As a pod's spec has them."""
    return [
        Toleration(
            each.get("key") or "", each.get("operator") or "Equal", each.get("value") or "", each.get("effect") or ""
        )
        for each in said
    ]


def _asked(container: Object) -> Resources:
    resources = container.get("resources") or {}
    # A limit without a request is the request: that is how extended resources are usually written.
    return _amounts({**(resources.get("limits") or {}), **(resources.get("requests") or {})})


def _amounts(quantities: Mapping[str, object]) -> Resources:
    return Resources({name: amount(quantity) for name, quantity in quantities.items()})


def _age(pod: Object) -> tuple[str, str, str]:
    metadata = pod.get("metadata", {})
    return (metadata.get("creationTimestamp") or "", metadata.get("uid") or "", metadata.get("name") or "")
