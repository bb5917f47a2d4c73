"""A lease's node as objects of a site's own cluster: a Job for each of its workers, and what they need.

    anchor of the site ──▶ ConfigMap of the lease ──▶ Secret, Service, PodDisruptionBudget, Jobs ──▶ pods
                       └─▶ PersistentVolumeClaim, which outlives the leases

The arrows are owner references: whoever deletes one takes along what is behind it.
"""

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import Any, Final

from windfall.provisioner.holdings import Lease
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.manifests.chosen import Chosen
from windfall.provisioner.manifests.labels import (
    TOKEN,
    Manifest,
    anchor,
    lease_annotations,
    lease_labels,
    site_labels,
)
from windfall.provisioner.manifests.pod import pod_template
from windfall.provisioner.manifests.variables import told

WORKER: Final = "windfall.dev/worker"
"""A label: which of a node's workers, counted from 0."""
WORKERS: Final = "windfall.dev/workers"
"""An annotation of the lease's ConfigMap: how many there are."""
ATTEMPT: Final = "windfall.dev/attempt"
"""An annotation of the lease's ConfigMap: which of the lease's starts made it."""

RENDEZVOUS_PORT: Final = 29400
"""torchrun's own default."""

_KEPT_AFTER_END: Final = timedelta(hours=1)
"""How long an ended Job stays where no provisioner clears it away."""


@dataclass(frozen=True)
class Made:
    """What the objects of a lease are made from.

    Args:
        settings: of the site's trainers.
        module: the Python module that a worker runs.
        drain_time: wall time that a worker may take to go, when somebody else asks it to.
        pdb_version: of the PodDisruptionBudget that the server knows.
        waits_for_pods: whether the server's Jobs can be told not to replace a pod that is going.
        chosen: the machines of its workers; none leaves them to the scheduler.
    """

    settings: TrainerSettings
    module: str
    drain_time: timedelta
    pdb_version: str = "policy/v1"
    waits_for_pods: bool = True
    chosen: Chosen | None = None

    @property
    def namespace(self) -> str:
        return self.settings.kube_namespace

    def workers(self, lease: Lease) -> int:
        return lease.workers or self.settings.kube_workers

    def accelerators(self, lease: Lease) -> int:
        """Of each worker."""
        return self.settings.accelerators if lease.accelerators is None else lease.accelerators


def site_anchor(lease: Lease, made: Made) -> Manifest:
    """What owns the site's objects. It says which lease is the youngest, so that an older one is refused."""
    manifest = anchor(lease.site, made.namespace)
    manifest["metadata"]["annotations"] = {TOKEN: str(lease.token)}
    return manifest


def state_claim(lease: Lease, made: Made) -> Manifest:
    """The first worker's state: the next lease's trainer goes on from it. Owned by the site's anchor."""
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": made.settings.kube_storage}},
    }
    if made.settings.kube_storage_class is not None:
        spec["storageClassName"] = made.settings.kube_storage_class
    metadata = {
        "name": claim_name(lease.site),
        "namespace": made.namespace,
        "labels": site_labels(lease.site),
    }
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def anchor_name(site: str) -> str:
    return f"windfall-{site}"


def claim_name(site: str) -> str:
    return f"windfall-{site}-state"


def lease_map(lease: Lease, environment: Mapping[str, str], made: Made) -> Manifest:
    """The lease itself: what its workers are told that is no secret. Owned by the site's anchor."""
    plain, _ = told(lease, environment)
    manifest = _object("v1", "ConfigMap", lease.node, lease, made)
    manifest["metadata"]["annotations"] |= {ATTEMPT: str(lease.attempts), WORKERS: str(made.workers(lease))}
    if made.chosen is not None:
        manifest["metadata"]["annotations"] |= made.chosen.annotation()
    return {**manifest, "data": dict(sorted(plain.items()))}


def workload(lease: Lease, environment: Mapping[str, str], made: Made) -> tuple[Manifest, ...]:
    """What the lease's ConfigMap owns, the Jobs last."""
    _, secret = told(lease, environment)
    workers = made.workers(lease)
    parts: list[Manifest] = []
    if secret:
        encoded = {name: b64encode(value.encode()).decode() for name, value in sorted(secret.items())}
        parts.append({**_object("v1", "Secret", lease.node, lease, made), "type": "Opaque", "data": encoded})
    if workers > 1:
        parts.append(_service(lease, made))
    parts.append(disruption_budget(lease, made))
    parts += [_job(lease, made, worker, workers, bool(secret)) for worker in range(workers)]
    return tuple(parts)


def disruption_budget(lease: Lease, made: Made) -> Manifest:
    """Whoever empties a machine takes one worker at a time, and waits until it has gone in good order. Once the node is
    to go it has none. A whole number, because Jobs have no scale that a share could be taken of."""
    spec = {"minAvailable": made.workers(lease) - 1, "selector": {"matchLabels": lease_labels(lease, lease.site)}}
    return {**_object(made.pdb_version, "PodDisruptionBudget", lease.node, lease, made), "spec": spec}


def shown(manifest: Manifest) -> str:
    """A manifest for a person, with what is secret left out."""
    hidden = {"data": dict.fromkeys(manifest["data"], "…")} if manifest["kind"] == "Secret" else {}
    return json.dumps({**manifest, **hidden}, ensure_ascii=False)


def _service(lease: Lease, made: Made) -> Manifest:
    """Names the workers to each other before any of them is ready."""
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": lease_labels(lease, lease.site),
        "ports": [{"name": "rendezvous", "port": RENDEZVOUS_PORT, "protocol": "TCP"}],
    }
    return {**_object("v1", "Service", lease.node, lease, made), "spec": spec}


def _job(lease: Lease, made: Made, worker: int, workers: int, has_secret: bool) -> Manifest:
    manifest = _object("batch/v1", "Job", worker_name(lease.node, worker), lease, made)
    labels = {**manifest["metadata"]["labels"], WORKER: str(worker)}
    manifest["metadata"]["labels"] = labels
    template = pod_template(
        made.settings,
        labels=labels,
        annotations=lease_annotations(lease),
        module=made.module,
        claim=claim_name(lease.site) if worker == 0 else None,
        sources=_sources(lease, made, has_secret),
        variables=_rendezvous(lease, made, worker, workers) if workers > 1 else {},
        accelerators=made.accelerators(lease),
        resource=made.chosen.resource if made.chosen else None,
        drain_time_s=max(1, ceil(made.drain_time.total_seconds())),
    )
    if made.chosen is not None:
        template["spec"] = made.chosen.pinned(template["spec"], worker)
    if workers > 1:
        template["spec"] |= {"hostname": worker_name(lease.node, worker), "subdomain": lease.node}
    spec: dict[str, Any] = {
        "parallelism": 1,
        "completions": 1,
        # The lease machine tries again, and counts.
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": int(_KEPT_AFTER_END.total_seconds()),
        "template": template,
    }
    if made.waits_for_pods:
        # A pod that is going is not replaced while it finishes.
        spec["podReplacementPolicy"] = "Failed"
    return {**manifest, "spec": spec}


def worker_name(node: str, worker: int) -> str:
    return f"{node}-w{worker}"


def _sources(lease: Lease, made: Made, has_secret: bool) -> list[Manifest]:
    """Where the variables come from; of two that say the same one, the later counts."""
    sources: list[Manifest] = [{"configMapRef": {"name": lease.node}}]
    if has_secret:
        sources.append({"secretRef": {"name": lease.node}})
    return sources + [{"secretRef": {"name": name}} for name in made.settings.kube_secrets]


def _rendezvous(lease: Lease, made: Made, worker: int, workers: int) -> dict[str, str]:
    """By what torchrun forms one group of the workers."""
    first = f"{worker_name(lease.node, 0)}.{lease.node}.{made.namespace}.svc"
    return {
        "MASTER_ADDR": first,
        "MASTER_PORT": str(RENDEZVOUS_PORT),
        "PET_NNODES": str(workers),
        "PET_NODE_RANK": str(worker),
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"{first}:{RENDEZVOUS_PORT}",
        "PET_RDZV_ID": str(lease.lease_id),
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }


def _object(api_version: str, kind: str, name: str, lease: Lease, made: Made) -> Manifest:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": made.namespace,
            "labels": lease_labels(lease, lease.site),
            "annotations": lease_annotations(lease),
        },
    }
