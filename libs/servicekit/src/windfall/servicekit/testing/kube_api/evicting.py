"""Whether disruption budgets allow a pod to be evicted now."""

import math
from collections.abc import Iterable
from typing import Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import Refused
from windfall.servicekit.testing.kube_api.selectors import by_label_selector
from windfall.servicekit.testing.kube_api.store import Store

_UNGUARDED: Final = ("Pending", "Succeeded", "Failed")


def eviction_refused(store: Store, pod: Object) -> Refused | None:
    """Why it may not be evicted: it would leave fewer healthy pods than a budget wants."""
    namespace = pod["metadata"]["namespace"]
    if "deletionTimestamp" in pod["metadata"] or (pod.get("status") or {}).get("phase") in _UNGUARDED:
        return None
    labels = pod["metadata"].get("labels") or {}
    for budget in store.all("policy", "poddisruptionbudgets", namespace):
        selects = by_label_selector((budget.get("spec") or {}).get("selector"))
        if not selects(labels):
            continue
        pods = [found for found in store.all("", "pods", namespace) if selects(found["metadata"].get("labels") or {})]
        if disruptions_allowed(budget, pods, expected_count(store, pods)) <= 0:
            name = budget["metadata"]["name"]
            cause = {
                "reason": "DisruptionBudget",
                "message": f"The disruption budget {name} needs more healthy pods than there would be",
            }
            message = "Cannot evict pod as it would violate the pod's disruption budget."
            return Refused(429, "TooManyRequests", message, {"causes": [cause]})
    return None


def disruptions_allowed(budget: Object, pods: Iterable[Object], expected: int) -> int:
    """How many healthy pods it can do without now."""
    spec = budget["spec"]
    healthy = sum(is_healthy(pod) for pod in pods)
    if "maxUnavailable" in spec:
        return healthy - (expected - _count(spec["maxUnavailable"], expected))
    return healthy - _count(spec.get("minAvailable", 0), expected)


def is_healthy(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def expected_count(store: Store, pods: Iterable[Object]) -> int:
    """As many as their controllers want; a pod without one counts for itself."""
    wanted: dict[str, int] = {}
    for pod in pods:
        owner = next((ref for ref in pod["metadata"].get("ownerReferences") or () if ref.get("controller")), None)
        wanted[owner["uid"] if owner else pod["metadata"]["uid"]] = _wanted(store, pod, owner)
    return sum(wanted.values())


def _wanted(store: Store, pod: Object, owner: Object | None) -> int:
    if owner is None:
        return 1
    for plural in ("statefulsets", "replicasets"):
        for found in store.all("apps", plural, pod["metadata"]["namespace"]):
            if found["metadata"]["uid"] == owner["uid"]:
                return int(found["spec"].get("replicas", 1))
    return 1


def _count(said: int | str, of: int) -> int:
    """A number, or a percentage rounded up."""
    return math.ceil(int(said.rstrip("%")) * of / 100) if isinstance(said, str) else said
