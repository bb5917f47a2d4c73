"""Whether the quotas of its namespace let a pod in: as much of it as a pod's numbers and its containers' requests and
limits take."""

from collections.abc import Mapping
from decimal import Decimal

from kubernetes.utils.quantity import parse_quantity

from windfall.servicekit.kube.kinds import POD, Object
from windfall.servicekit.testing.kube_api.refused import Refused, forbidden
from windfall.servicekit.testing.kube_api.store import Store

Amounts = Mapping[str, Decimal]


def quota_refused(store: Store, pod: Object) -> Refused | None:
    """Why it may not be created: with it there would be more of something than a quota says."""
    namespace = pod["metadata"]["namespace"]
    for quota in store.all("", "resourcequotas", namespace):
        hard: Amounts = {
            name: parse_quantity(said) for name, said in ((quota.get("spec") or {}).get("hard") or {}).items()
        }
        living = [found for found in store.all("", "pods", namespace) if not _is_over(found)]
        used = {name: sum((_asked(found, name) for found in living), Decimal(0)) for name in hard}
        asked = {name: _asked(pod, name) for name in hard}
        over = [name for name in sorted(hard) if asked[name] and used[name] + asked[name] > hard[name]]
        if over:
            parts = {"requested": asked, "used": used, "limited": hard}
            said = (f"{word}: {','.join(f'{name}={of[name]:f}' for name in over)}" for word, of in parts.items())
            why = f"exceeded quota: {quota['metadata']['name']}, {', '.join(said)}"
            return forbidden(POD, pod["metadata"].get("name", ""), why)
    return None


def _asked(pod: Object, name: str) -> Decimal:
    """How much of what a quota counts a pod takes."""
    if name in ("pods", "count/pods"):
        return Decimal(1)
    part, dot, resource = name.partition(".")
    part, resource = (part, resource) if dot and part in ("requests", "limits") else ("requests", name)
    return sum((_of(container, part, resource) for container in pod["spec"].get("containers") or ()), Decimal(0))


def _of(container: Object, part: str, resource: str) -> Decimal:
    resources = container.get("resources") or {}
    # A limit is the request where none is made.
    said = (resources.get(part) or {}).get(resource) or (resources.get("limits") or {}).get(resource)
    return Decimal(0) if said is None else parse_quantity(said)


def _is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
