"""What a kubelet says of a pod that it runs."""

from datetime import UTC, datetime

from windfall.servicekit.kube import Object


def running(pod: Object, *, ready: bool) -> Object:
    now, word = _now(), "True" if ready else "False"
    containers = [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }
        for container in pod["spec"]["containers"]
    ]
    conditions = [
        {"type": kind, "status": word if kind in ("Ready", "ContainersReady") else "True", "lastTransitionTime": now}
        for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    return {
        "phase": "Running",
        "podIP": "10.1.0.1",
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": containers,
    }


def waiting(pod: Object, reason: str, message: str) -> Object:
    containers = [
        {
            "name": container["name"],
            "image": container.get("image", ""),
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": message}},
        }
        for container in pod["spec"]["containers"]
    ]
    return {"phase": "Pending", "containerStatuses": containers}


def ended(pod: Object, exit_code: int) -> Object:
    now = _now()
    over = {"terminated": {"exitCode": exit_code, "finishedAt": now, "reason": "Error" if exit_code else "Completed"}}
    containers = [
        {
            "name": item["name"],
            "image": item.get("image", ""),
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": over,
        }
        for item in pod["spec"]["containers"]
    ]
    conditions = [{"type": "Ready", "status": "False", "reason": "PodCompleted", "lastTransitionTime": now}]
    return {
        "phase": "Failed" if exit_code else "Succeeded",
        "conditions": conditions,
        "containerStatuses": containers,
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
