"""The pod of one worker: as little power as a pod can have, and the devices that it trains on."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from windfall.provisioner.kube_settings import RESOURCES, TrainerSettings
from windfall.provisioner.manifests.labels import Manifest

STATE_DIR: Final = "/var/lib/windfall"
READY_FILE: Final = "/run/windfall/ready"
CONTAINER: Final = "trainer"
_TLS_DIR: Final = "/etc/windfall/tls"
_NATS_TLS_DIR: Final = "/etc/windfall/nats-tls"
_NKEY_DIR: Final = "/etc/windfall/nkey"
_NKEY: Final = "site-trainer.nk"
_TLS_FILES: Final = {"CERTIFICATE": "tls.crt", "KEY": "tls.key", "AUTHORITY": "ca.crt"}
_LOST_AFTER_S: Final = 60
"""How long a worker stays on a machine that does not answer before the cluster lets it go."""


def pod_template(
    settings: TrainerSettings,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    module: str,
    claim: str | None,
    sources: Sequence[Manifest],
    variables: Mapping[str, str],
    accelerators: int,
    resource: str | None,
    drain_time_s: int,
) -> Manifest:
    """
    Args:
        settings: of the site's trainers.
        labels: of the pod.
        annotations: of the pod.
        module: the Python module that it runs.
        claim: of its state; none for state that goes with it.
        sources: ``envFrom``.
        variables: plain ones, this worker's own.
        accelerators: how many GPUs.
        resource: what Kubernetes calls them; none for what the vendor's device plugin calls a whole one.
        drain_time_s: from being asked to go until being killed.
    """
    volumes, mounts = _volumes(settings, claim)
    plain = {"WINDFALL_READY_FILE": READY_FILE, "HOME": "/tmp", **variables}  # noqa: S108 - a volume of its own
    if settings.kube_data_claim is not None:
        plain["WINDFALL_DATA_DIR"] = settings.kube_data_dir
    if settings.kube_tls_secret is not None:
        plain |= {f"WINDFALL_TLS_{name}": f"{_TLS_DIR}/{file}" for name, file in _TLS_FILES.items()}
    if settings.kube_nats_tls_secret is not None:
        plain |= {f"WINDFALL_NATS_{name}": f"{_NATS_TLS_DIR}/{file}" for name, file in _TLS_FILES.items()}
    if settings.kube_nkey_secret is not None:
        plain["WINDFALL_NATS_NKEY_FILE"] = f"{_NKEY_DIR}/{_NKEY}"
    if settings.kube_metrics_port is not None:
        plain["OTEL_EXPORTER_PROMETHEUS_HOST"] = "0.0.0.0"  # noqa: S104 - of a pod, whose ways in a policy decides
        plain["OTEL_EXPORTER_PROMETHEUS_PORT"] = str(settings.kube_metrics_port)
    container = {
        "name": CONTAINER,
        "image": settings.kube_image,
        "command": ["python", "-m", module],
        "envFrom": list(sources),
        "env": [{"name": name, "value": value} for name, value in sorted(plain.items())],
        "resources": _resources(settings, accelerators, resource),
        "volumeMounts": mounts,
        "readinessProbe": {
            "exec": {"command": ["test", "-e", READY_FILE]},
            "periodSeconds": 2,
            "failureThreshold": 1,
        },
        # Asked to go it is not ready any more, at once; then SIGTERM, by which a trainer pushes what it has.
        "lifecycle": {"preStop": {"exec": {"command": ["rm", "-f", READY_FILE]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if settings.kube_metrics_port is not None:
        container["ports"] = [{"name": "metrics", "containerPort": settings.kube_metrics_port, "protocol": "TCP"}]
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": drain_time_s,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _security(settings),
        "tolerations": tolerations(settings, accelerators),
        "containers": [container],
        "volumes": volumes,
    }
    if settings.kube_node_selector:
        spec["nodeSelector"] = dict(sorted(settings.kube_node_selector.items()))
    if settings.kube_service_account is not None:
        spec["serviceAccountName"] = settings.kube_service_account
    if settings.kube_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.kube_pull_secrets]
    if accelerators and settings.runtime_class is not None:
        spec["runtimeClassName"] = settings.runtime_class
    return {"metadata": {"labels": dict(labels), "annotations": dict(annotations)}, "spec": spec}


def _security(settings: TrainerSettings) -> Manifest:
    user = settings.kube_user
    context: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return context | ({"supplementalGroups": list(settings.groups)} if settings.groups else {})


def _resources(settings: TrainerSettings, accelerators: int, resource: str | None) -> Manifest:
    requests = {"cpu": settings.kube_cpu, "memory": settings.kube_memory}
    asked = {name: quantity for name, quantity in requests.items() if quantity is not None}
    devices = {resource or RESOURCES[settings.kube_vendor]: str(accelerators)} if accelerators else {}
    # Memory has its limit, so that a worker falls rather than its neighbours; processor time is shared out.
    limits = {name: quantity for name, quantity in asked.items() if name == "memory"}
    parts = {"requests": asked | devices, "limits": limits | devices}
    return {name: part for name, part in parts.items() if part}


def tolerations(settings: TrainerSettings, accelerators: int) -> list[Manifest]:
    """Which taints a worker bears."""
    gone = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    borne: list[Manifest] = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _LOST_AFTER_S} for key in gone
    ]
    if accelerators:
        borne.append({"key": RESOURCES[settings.kube_vendor], "operator": "Exists", "effect": "NoSchedule"})
    return borne + [dict(toleration) for toleration in settings.kube_tolerations]


def _volumes(settings: TrainerSettings, claim: str | None) -> tuple[list[Manifest], list[Manifest]]:
    state: Manifest = {"emptyDir": {}} if claim is None else {"persistentVolumeClaim": {"claimName": claim}}
    volumes: list[Manifest] = [
        {"name": "state", **state},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.kube_shared_memory}},
    ]
    mounts: list[Manifest] = [
        {"name": "state", "mountPath": STATE_DIR},
        {"name": "run", "mountPath": "/run/windfall"},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of its own
        {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
    ]
    if settings.kube_data_claim is not None:
        source = {"claimName": settings.kube_data_claim, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": source})
        mounts.append({"name": "data", "mountPath": settings.kube_data_dir, "readOnly": True})
    secrets = (
        ("tls", settings.kube_tls_secret, _TLS_DIR, None),
        ("nats-tls", settings.kube_nats_tls_secret, _NATS_TLS_DIR, None),
        # This one alone of the seeds that lie there.
        ("nkey", settings.kube_nkey_secret, _NKEY_DIR, [{"key": _NKEY, "path": _NKEY}]),
    )
    for name, secret, folder, items in secrets:
        if secret is not None:
            told = {"secretName": secret, "defaultMode": 0o440} | ({} if items is None else {"items": items})
            volumes.append({"name": name, "secret": told})
            mounts.append({"name": name, "mountPath": folder, "readOnly": True})
    return volumes, mounts
