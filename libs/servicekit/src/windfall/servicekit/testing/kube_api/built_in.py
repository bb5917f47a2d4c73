"""What the server does to objects of the built-in kinds: defaults, and fields that cannot be changed.

As much of it as reconcilers run into; the rest of their schemas is not checked.
"""

import base64
from collections.abc import Callable
from typing import Any, Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import Cause

Rule = Callable[[Object], None]


def _pod_spec(spec: Object) -> None:
    _fill(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        schedulerName="default-scheduler",
        securityContext={},
    )
    spec["containers"] = [_container(item) for item in spec.get("containers") or ()]
    if "initContainers" in spec:
        spec["initContainers"] = [_container(item) for item in spec["initContainers"]]


def _container(container: Object) -> Object:
    container = dict(container)
    latest = ":" not in container.get("image", "").rpartition("/")[2] or container["image"].endswith(":latest")
    _fill(
        container,
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
        imagePullPolicy="Always" if latest else "IfNotPresent",
    )
    if "ports" in container:
        container["ports"] = [{"protocol": "TCP"} | port for port in container["ports"]]
    return container


def _pod(obj: Object) -> None:
    obj["spec"] = dict(obj.get("spec") or {})
    _pod_spec(obj["spec"])
    obj.setdefault("status", {"phase": "Pending"})


def _template(spec: Object) -> None:
    template = dict(spec.get("template") or {})
    template["spec"] = dict(template.get("spec") or {})
    _pod_spec(template["spec"])
    spec["template"] = template


def _deployment(obj: Object) -> None:
    spec = obj["spec"] = dict(obj.get("spec") or {})
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    _fill(spec, replicas=1, strategy=rolling, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    _template(spec)


def _stateful_set(obj: Object) -> None:
    spec = obj["spec"] = dict(obj.get("spec") or {})
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}
    _fill(spec, replicas=1, podManagementPolicy="OrderedReady", updateStrategy=rolling, revisionHistoryLimit=10)
    _template(spec)
    obj.setdefault("status", {"replicas": 0})


def _daemon_set(obj: Object) -> None:
    spec = obj["spec"] = dict(obj.get("spec") or {})
    _fill(spec, updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}})
    _fill(spec, revisionHistoryLimit=10)
    _template(spec)


def _replica_set(obj: Object) -> None:
    spec = obj["spec"] = dict(obj.get("spec") or {})
    _fill(spec, replicas=1)
    _template(spec)


def _job(obj: Object) -> None:
    spec = obj["spec"] = dict(obj.get("spec") or {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    _fill(spec, parallelism=1, backoffLimit=6)
    _template(spec)
    uid = obj["metadata"].get("uid")
    if uid and "selector" not in spec:
        spec["selector"] = {"matchLabels": {"controller-uid": uid}}
        metadata = dict(spec["template"].get("metadata") or {})
        metadata["labels"] = (metadata.get("labels") or {}) | {
            "controller-uid": uid,
            "job-name": obj["metadata"]["name"],
        }
        spec["template"]["metadata"] = metadata


def _service(obj: Object) -> None:
    spec = obj["spec"] = dict(obj.get("spec") or {})
    _fill(spec, type="ClusterIP", sessionAffinity="None")
    spec["ports"] = [{"protocol": "TCP", "targetPort": port.get("port")} | port for port in spec.get("ports") or ()]
    obj.setdefault("status", {"loadBalancer": {}})


def _secret(obj: Object) -> None:
    _fill(obj, type="Opaque")
    if "stringData" in obj:
        coded = {name: base64.b64encode(text.encode()).decode() for name, text in obj.pop("stringData").items()}
        obj["data"] = (obj.get("data") or {}) | coded


def _namespace(obj: Object) -> None:
    _fill(obj, spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})
    if "name" in obj["metadata"]:
        labels = {"kubernetes.io/metadata.name": obj["metadata"]["name"]} | (obj["metadata"].get("labels") or {})
        obj["metadata"] = obj["metadata"] | {"labels": labels}


_DEFAULTS: Final[dict[tuple[str, str], Rule]] = {
    ("", "pods"): _pod,
    ("", "services"): _service,
    ("", "secrets"): _secret,
    ("", "namespaces"): _namespace,
    ("apps", "deployments"): _deployment,
    ("apps", "statefulsets"): _stateful_set,
    ("apps", "daemonsets"): _daemon_set,
    ("apps", "replicasets"): _replica_set,
    ("batch", "jobs"): _job,
}


def defaulted(group: str, plural: str, obj: Object, *, has_status: bool) -> Object:
    """With what the server fills in."""
    filled = dict(obj)
    if (rule := _DEFAULTS.get((group, plural))) is not None:
        rule(filled)
    if has_status:
        filled.setdefault("status", {})
    return filled


def _fill(obj: Object, **defaults: Any) -> None:
    for name, value in defaults.items():
        obj.setdefault(name, value)


_CHANGEABLE: Final = {
    ("apps", "statefulsets"): frozenset(
        {
            "replicas",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "persistentVolumeClaimRetentionPolicy",
            "ordinals",
        }
    ),
    ("", "pods"): frozenset(
        {"containers", "initContainers", "activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"}
    ),
}
_LASTING: Final = {
    ("apps", "deployments"): frozenset({"selector"}),
    ("apps", "daemonsets"): frozenset({"selector"}),
    ("apps", "replicasets"): frozenset({"selector"}),
    ("batch", "jobs"): frozenset({"selector", "template", "completions", "completionMode"}),
}


def changes_refused(group: str, plural: str, before: Object, after: Object) -> list[Cause]:
    """What an update may not change."""
    old, new = before.get("spec") or {}, after.get("spec") or {}
    changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    allowed = _CHANGEABLE.get((group, plural))
    if allowed is not None and changed - allowed:
        text = f"updates to {plural} spec for fields other than {', '.join(sorted(allowed))} are forbidden"
        return [Cause("FieldValueForbidden", f"Forbidden: {text}", "spec")]
    if (group, plural) == ("", "pods") and _frozen(old) != _frozen(new):
        return [Cause("FieldValueForbidden", "Forbidden: pod updates may only change images of containers", "spec")]
    if plural in ("configmaps", "secrets") and not group and before.get("immutable"):
        kept = ("data", "binaryData", "immutable")
        if any(before.get(name) != after.get(name) for name in kept):
            return [Cause("FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set", "data")]
    lasting = sorted(changed & _LASTING.get((group, plural), frozenset()))
    return [Cause("FieldValueInvalid", "Invalid value: field is immutable", f"spec.{name}") for name in lasting]


def _frozen(spec: Object) -> list[Object]:
    return [
        {name: value for name, value in container.items() if name != "image"}
        for kind in ("containers", "initContainers")
        for container in spec.get(kind) or ()
    ]
