"""What Jobs and pods say of a node's workers, read without asking anybody.

A worker ends once, however often its pod is replaced. A pod that somebody else deletes ends as by SIGTERM, even where
it went in good order: the window is open, and its lease wants another one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from signal import SIGKILL, SIGTERM
from typing import Any, Final

from windfall.contracts.message import instant
from windfall.provisioner.manifests.pod import CONTAINER
from windfall.provisioner.manifests.workload import WORKER

Found = Mapping[str, Any]
"""An object as the API server gave it."""

LOST_AFTER: Final = timedelta(seconds=30)
"""So long after its grace a pod that has not ended is on a machine that is lost."""
_COMING_UP: Final = frozenset({"ContainerCreating", "PodInitializing"})
_BY_SIGNAL: Final = 128


@dataclass(frozen=True)
class End:
    """How a worker ended. No code: nobody can know it."""

    exit_code: int | None


KILLED: Final = End(-SIGKILL)


@dataclass(frozen=True)
class Seen:
    """A node as its workers have it."""

    ready: bool = False
    """Each of them."""
    gone: bool = False
    """Each of them."""
    exit_code: int | None = None
    """The worst, once the node is gone."""
    broken: bool = False
    """One has failed, and others wait for it in vain."""
    comes_back: bool = False
    """A pod runs that nobody has asked to go."""
    trouble: str = ""
    lost_at: datetime | None = None
    """When a pod that is going counts as lost, unless it has ended."""


def worker_of(found: Found) -> int | None:
    """Which worker a Job or a pod belongs to."""
    label = (found["metadata"].get("labels") or {}).get(WORKER, "")
    return int(label) if label.isdecimal() else None


def leaving(pod: Found) -> bool:
    """Whether somebody has asked it to go."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def ended(pod: Found) -> bool:
    """Whether nothing of it runs any more and nothing will."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return True
    container = _container(pod)
    return container is not None and "terminated" in (container.get("state") or {})


def end(pod: Found, *, by_us: bool) -> End:
    """How a pod ended that has, or has vanished.

    Args:
        by_us: it was asked to go by its provisioner, or not at all.
    """
    if not by_us and (leaving(pod) or _disrupted(pod) or not ended(pod)):
        return End(-SIGTERM)
    container = _container(pod) or {}
    code = ((container.get("state") or {}).get("terminated") or {}).get("exitCode")
    if code is None:
        return End(0 if (pod.get("status") or {}).get("phase") == "Succeeded" else None)
    return End(_BY_SIGNAL - code if code > _BY_SIGNAL else code)


def finished(job: Found) -> bool:
    """Whether a Job will start no more pods."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(each["type"] in ("Complete", "Failed") and each["status"] == "True" for each in conditions)


def is_ready(pod: Found) -> bool:
    return not leaving(pod) and not ended(pod) and _condition(pod, "Ready").get("status") == "True"


def look(
    workers: int, jobs: Iterable[Found], pods: Iterable[Found], ends: Mapping[int, End], events: Mapping[str, str]
) -> Seen:
    """
    Args:
        workers: how many the node has.
        jobs: of the node, that are there.
        pods: of the node, that are there.
        ends: of its workers so far.
        events: warnings about its Jobs, by their names.
    """
    job_of = {worker_of(job): job for job in jobs}
    alive = [pod for pod in pods if not ended(pod)]
    over: dict[int, End] = dict(ends)
    for worker in range(workers):
        job = job_of.get(worker)
        if worker not in over and (job is None or finished(job)) and all(worker_of(pod) != worker for pod in alive):
            over[worker] = End(None)
    codes = [over[worker].exit_code for worker in sorted(over)]
    worst = next((code for code in codes if code), 0 if None not in codes else None)
    running = [pod for pod in alive if worker_of(pod) not in ends]
    return Seen(
        ready=not over and {worker_of(pod) for pod in running if is_ready(pod)} == set(range(workers)),
        gone=len(over) == workers,
        exit_code=worst if over else None,
        broken=bool(over) and worst != 0 and len(over) < workers,
        comes_back=any(not leaving(pod) for pod in alive),
        trouble=_trouble(running, job_of, events),
        lost_at=min((lost for pod in running if (lost := _lost_at(pod))), default=None),
    )


def _trouble(pods: list[Found], jobs: Mapping[int | None, Found], events: Mapping[str, str]) -> str:
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"])):
        if said := _pod_trouble(pod):
            return said
    with_pods = {worker_of(pod) for pod in pods}
    for worker, job in sorted(jobs.items(), key=lambda item: item[0] or 0):
        if worker not in with_pods and (event := events.get(job["metadata"]["name"])):
            return event
    return ""


def _pod_trouble(pod: Found) -> str:
    if leaving(pod):
        holding = pod["metadata"].get("finalizers")
        return f"Terminating: {pod['metadata']['name']} is held by {', '.join(holding)}" if holding else ""
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _line(scheduled)
    status = pod.get("status") or {}
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") and waiting["reason"] not in _COMING_UP:
            return _line(waiting)
    return ""


def _line(said: Found) -> str:
    return ": ".join(" ".join(str(part).split()) for part in (said.get("reason"), said.get("message")) if part)


def _lost_at(pod: Found) -> datetime | None:
    # The server sets it to the end of the pod's grace.
    asked = pod["metadata"].get("deletionTimestamp")
    return instant(asked) + LOST_AFTER if asked else None


def _disrupted(pod: Found) -> bool:
    return _condition(pod, "DisruptionTarget").get("status") == "True"


def _condition(found: Found, kind: str) -> Found:
    conditions = (found.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), {})


def _container(pod: Found) -> Found | None:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return next((each for each in statuses if each["name"] == CONTAINER), None)
