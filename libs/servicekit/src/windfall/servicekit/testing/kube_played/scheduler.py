"""Where a pod may run: a pure function over nodes and pods, as much of the scheduler as Windfall's pods ask of it."""

from collections.abc import Iterable

from windfall.servicekit.kube.kinds import Object


def fitting(pod: Object, nodes: Iterable[Object], pods: Iterable[Object]) -> str | None:
    """The first node, by name, that the pod may run on; none if there is none.

    Args:
        pods: all there are; those on a node take what they ask for.
    """
    placed = [other for other in pods if other["spec"].get("nodeName")]
    for candidate in sorted(nodes, key=lambda found: str(found["metadata"]["name"])):
        if admits(pod, candidate) and _has_room(pod, candidate, placed):
            return str(candidate["metadata"]["name"])
    return None


def admits(pod: Object, node: Object) -> bool:
    """By its name and labels, its taints and whether it is cordoned."""
    spec, labels = node.get("spec") or {}, node["metadata"].get("labels") or {}
    if spec.get("unschedulable"):
        return False
    wanted = pod["spec"].get("nodeSelector") or {}
    tolerations = pod["spec"].get("tolerations") or ()
    taints = [taint for taint in spec.get("taints") or () if taint.get("effect") in ("NoSchedule", "NoExecute")]
    borne = all(any(_tolerates(toleration, taint) for toleration in tolerations) for taint in taints)
    return wanted.items() <= labels.items() and borne and _drawn(pod, node["metadata"]["name"], labels)


def _drawn(pod: Object, name: str, labels: dict[str, str]) -> bool:
    """Whether the node affinity that the pod requires has a term for this node; of its operators, ``In`` alone."""
    towards = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = towards.get("requiredDuringSchedulingIgnoredDuringExecution")
    known = {"matchFields": {"metadata.name": name}, "matchExpressions": labels}
    return required is None or any(
        all(known[part].get(each["key"]) in each["values"] for part in known for each in term.get(part) or ())
        for term in required["nodeSelectorTerms"]
    )


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return bool(toleration.get("key") == taint["key"]) and toleration.get("value", "") == taint.get("value", "")


def _has_room(pod: Object, node: Object, placed: Iterable[Object]) -> bool:
    """Of devices alone; they are whole numbers."""
    held = (node.get("status") or {}).get("allocatable") or {}
    asked = _devices(pod)
    name = node["metadata"]["name"]
    taken = [_devices(other) for other in placed if other["spec"]["nodeName"] == name and not _is_over(other)]
    return all(
        count + sum(other.get(device, 0) for other in taken) <= int(held.get(device, 0))
        for device, count in asked.items()
    )


def _devices(pod: Object) -> dict[str, int]:
    """Extended resources, like ``nvidia.com/gpu``."""
    found: dict[str, int] = {}
    for container in pod["spec"]["containers"]:
        for name, count in ((container.get("resources") or {}).get("limits") or {}).items():
            if "/" in name:
                found[name] = found.get(name, 0) + int(count)
    return found


def _is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
