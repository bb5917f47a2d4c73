"""What the controllers of workloads do next: pure functions from a workload and its pods to what to make, what to end
and what to report. Pods have names that follow from their place, so that nothing is made twice.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.evicting import is_healthy
from windfall.servicekit.testing.kube_played.scheduler import admits

REVISION: Final = "controller-revision-hash"


@dataclass(frozen=True)
class Step:
    """What to do about one workload."""

    status: Object
    make: list[Object] = field(default_factory=list)
    end: list[Object] = field(default_factory=list)


def revision(template: Object) -> str:
    text = json.dumps(template, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:10]


def stateful_set_step(workload: Object, pods: Sequence[Object]) -> Step:
    spec, name = workload["spec"], workload["metadata"]["name"]
    wanted, current = spec.get("replicas", 1), revision(spec["template"])
    by_ordinal = {int(pod["metadata"]["name"].rpartition("-")[2]): pod for pod in pods}
    ordered = spec.get("podManagementPolicy") != "Parallel"
    make, end = [], []
    for ordinal in range(wanted):
        pod = by_ordinal.get(ordinal)
        if pod is None:
            labels = {"statefulset.kubernetes.io/pod-name": f"{name}-{ordinal}", REVISION: current}
            make.append(pod_of(workload, f"{name}-{ordinal}", spec["template"], labels))
        elif _phase(pod) in ("Succeeded", "Failed"):
            end.append(pod)
        if ordered and (pod is None or not is_healthy(pod)):
            break
    surplus = [pod for ordinal, pod in sorted(by_ordinal.items(), reverse=True) if ordinal >= wanted]
    end += surplus[:1] if ordered else surplus
    old = [pod for ordinal, pod in sorted(by_ordinal.items(), reverse=True) if not _is_of(pod, current)]
    rolling = (spec.get("updateStrategy") or {}).get("type") != "OnDelete"
    if old and rolling and not end and not make and all(is_healthy(pod) for pod in pods):
        end.append(old[0])
    fresh = sum(_is_of(pod, current) for pod in pods)
    status = {
        "replicas": len(pods),
        "readyReplicas": sum(is_healthy(pod) for pod in pods),
        "currentReplicas": fresh,
        "updatedReplicas": fresh,
        "currentRevision": f"{name}-{current}",
        "updateRevision": f"{name}-{current}",
    }
    return Step(_observed(workload, status), make, _not_ending(end))


def replica_set_step(workload: Object, pods: Sequence[Object]) -> Step:
    spec, name = workload["spec"], workload["metadata"]["name"]
    alive = [pod for pod in pods if _phase(pod) not in ("Succeeded", "Failed") and not _ends(pod)]
    wanted = spec.get("replicas", 1)
    used = {pod["metadata"]["name"] for pod in pods}
    free = (f"{name}-{index}" for index in range(wanted + len(used)) if f"{name}-{index}" not in used)
    make = [pod_of(workload, next(free), spec["template"], {}) for _ in range(wanted - len(alive))]
    idle_first = sorted(alive, key=is_healthy)
    end = idle_first[: max(0, len(alive) - wanted)] + [pod for pod in pods if _phase(pod) == "Failed"]
    ready = sum(is_healthy(pod) for pod in pods)
    status = {"replicas": len(alive), "readyReplicas": ready, "availableReplicas": ready}
    return Step(_observed(workload, status), make, _not_ending(end))


def deployment_step(workload: Object, sets: Sequence[Object]) -> tuple[Step, list[Object]]:
    """As well: the replica sets that are to be scaled, as they are to be."""
    spec, name = workload["spec"], workload["metadata"]["name"]
    current, wanted = revision(spec["template"]), spec.get("replicas", 1)
    make, scale = [], []
    if not any(_is_of(found, current) for found in sets):
        labels = {"pod-template-hash": current}
        template = _labelled(spec["template"], labels)
        selector = {"matchLabels": (spec["selector"].get("matchLabels") or {}) | labels}
        made = _owned(workload, f"{name}-{current}", (template.get("metadata") or {}).get("labels") or {})
        made |= {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
        made["metadata"]["labels"] |= {REVISION: current}
        make.append(made | {"spec": {"replicas": wanted, "selector": selector, "template": template}})
    for found in sets:
        count = wanted if _is_of(found, current) else 0
        if found["spec"].get("replicas", 1) != count:
            scale.append({**found, "spec": found["spec"] | {"replicas": count}})

    def total(field: str, among: Iterable[Object]) -> int:
        return sum((found.get("status") or {}).get(field, 0) for found in among)

    ready = total("readyReplicas", sets)
    available = "True" if ready >= wanted else "False"
    status = {
        "replicas": total("replicas", sets),
        "updatedReplicas": total("replicas", [found for found in sets if _is_of(found, current)]),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "conditions": [{"type": "Available", "status": available, "reason": "MinimumReplicasAvailable"}],
    }
    return Step(_observed(workload, status), make), scale


def daemon_set_step(workload: Object, pods: Sequence[Object], nodes: Iterable[Object]) -> Step:
    spec, name = workload["spec"], workload["metadata"]["name"]
    current = revision(spec["template"])
    wanted = {found["metadata"]["name"] for found in nodes if admits(spec["template"], found)}
    there = {pod["spec"].get("nodeName"): pod for pod in pods}
    make = []
    for place in sorted(wanted - there.keys()):
        pod = pod_of(workload, f"{name}-{place}", spec["template"], {REVISION: current})
        pod["spec"]["nodeName"] = place
        make.append(pod)
    end = [pod for place, pod in there.items() if place not in wanted or _phase(pod) in ("Failed", "Succeeded")]
    rolling = (spec.get("updateStrategy") or {}).get("type") != "OnDelete"
    old = [pod for pod in pods if not _is_of(pod, current)]
    if rolling and old and not end and not make:
        end.append(old[0])
    ready = sum(is_healthy(pod) for pod in pods)
    status = {
        "desiredNumberScheduled": len(wanted),
        "currentNumberScheduled": len(pods),
        "updatedNumberScheduled": sum(_is_of(pod, current) for pod in pods),
        "numberReady": ready,
        "numberAvailable": ready,
        "numberMisscheduled": 0,
    }
    return Step(_observed(workload, status), make, _not_ending(end))


def job_step(workload: Object, pods: Sequence[Object], now: str) -> Step:
    spec, name = workload["spec"], workload["metadata"]["name"]
    before = workload.get("status") or {}
    if any(
        item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in before.get("conditions") or ()
    ):
        return Step(before)
    succeeded = sum(_phase(pod) == "Succeeded" for pod in pods)
    failed = sum(_phase(pod) == "Failed" for pod in pods)
    active = [pod for pod in pods if _phase(pod) not in ("Succeeded", "Failed") and not _ends(pod)]
    completions = spec.get("completions")
    status: Object = {"startTime": before.get("startTime", now), "active": len(active)}
    status |= {"succeeded": succeeded, "failed": failed}
    if failed > spec.get("backoffLimit", 6):
        reason = {"reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
        return Step(status | {"active": 0, "conditions": [_condition("Failed", now) | reason]}, end=active)
    if succeeded and not active if completions is None else succeeded >= completions:
        done = {"active": 0, "completionTime": now, "conditions": [_condition("Complete", now)]}
        return Step(status | done, end=active)
    if spec.get("suspend"):
        return Step(status | {"active": 0}, end=active)
    parallel = spec.get("parallelism", 1)
    wanted = parallel if completions is None else min(parallel, completions - succeeded)
    if completions is None and succeeded:
        wanted = 0
    used = {pod["metadata"]["name"] for pod in pods}
    free = (f"{name}-{index}" for index in range(wanted + len(used)) if f"{name}-{index}" not in used)
    make = [pod_of(workload, next(free), spec["template"], {}) for _ in range(wanted - len(active))]
    return Step(status, make, active[wanted:] if wanted < len(active) else [])


def _condition(kind: str, now: str) -> Object:
    return {"type": kind, "status": "True", "lastTransitionTime": now, "lastProbeTime": now}


def pod_of(workload: Object, name: str, template: Object, labels: dict[str, str]) -> Object:
    """A pod by a template, owned by its workload."""
    metadata = template.get("metadata") or {}
    pod = _owned(workload, name, (metadata.get("labels") or {}) | labels)
    if metadata.get("annotations"):
        pod["metadata"]["annotations"] = dict(metadata["annotations"])
    if metadata.get("finalizers"):
        pod["metadata"]["finalizers"] = list(metadata["finalizers"])
    spec = {"hostname": name} | template["spec"] if workload["kind"] == "StatefulSet" else dict(template["spec"])
    return pod | {"apiVersion": "v1", "kind": "Pod", "spec": spec}


def _owned(workload: Object, name: str, labels: dict[str, str]) -> Object:
    owner = {
        "apiVersion": workload["apiVersion"],
        "kind": workload["kind"],
        "name": workload["metadata"]["name"],
        "uid": workload["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    namespace = workload["metadata"]["namespace"]
    return {"metadata": {"name": name, "namespace": namespace, "labels": dict(labels), "ownerReferences": [owner]}}


def _labelled(template: Object, labels: dict[str, str]) -> Object:
    metadata = dict(template.get("metadata") or {})
    return {**template, "metadata": metadata | {"labels": (metadata.get("labels") or {}) | labels}}


def _observed(workload: Object, status: dict[str, Any]) -> Object:
    return {"observedGeneration": workload["metadata"].get("generation", 1)} | status


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase", "Pending"))


def _ends(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def _not_ending(pods: Iterable[Object]) -> list[Object]:
    return [pod for pod in pods if not _ends(pod)]


def _is_of(obj: Object, current: str) -> bool:
    return bool((obj["metadata"].get("labels") or {}).get(REVISION) == current)
