"""What the played controllers write alike."""

from typing import Any, Final

from windfall.provisioner.manifests.contracts import V1BETA1
from windfall.servicekit.kube import Object

THEN: Final = "2026-01-01T00:00:00Z"


def condition(version: str, kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
    """As each contract of Cluster API has it."""
    made = {"type": kind, "status": status, "lastTransitionTime": THEN}
    if version == V1BETA1:
        # An empty reason or message is not allowed there, and a missing one not in the newer contract.
        return made | ({"reason": reason, "message": message} if message else {})
    return made | {"reason": reason, "message": message}


def owner(found: Object) -> Object:
    """A reference to it."""
    metadata = found["metadata"]
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "name": metadata["name"], "uid": metadata["uid"]}


def joined(version: str, name: str) -> Object:
    """The status of a Machine that is a node."""
    if version == V1BETA1:
        reference: Object = {"apiVersion": "v1", "kind": "Node", "name": name}
        started: Object = {"bootstrapReady": True, "infrastructureReady": True}
        kinds = ["Ready", "BootstrapReady", "InfrastructureReady", "NodeHealthy"]
    else:
        reference = {"name": name}
        started = {"initialization": {"bootstrapDataSecretCreated": True, "infrastructureProvisioned": True}}
        kinds = ["Ready", "BootstrapConfigReady", "InfrastructureReady", "NodeHealthy", "NodeReady"]
    conditions = [condition(version, kind, "True", "Ready", "") for kind in kinds]
    return {**started, "nodeRef": reference, "phase": "Running", "conditions": conditions}


def failed(version: str) -> Object:
    """The status of a Machine of which nothing will come."""
    failure = {"failureReason": "CreateError", "failureMessage": "the machine does not answer on port 22"}
    if version == V1BETA1:
        return {**failure, "phase": "Failed"}
    return {"deprecated": {"v1beta1": failure}, "phase": "Failed"}


def stalled(version: str) -> Object:
    """The status of a Machine that does not come."""
    why = condition(version, "InfrastructureReady", "False", "NotReady", "it does not come")
    return {"conditions": [why], "phase": "Provisioning"}


def unprovisioned(version: str, why: str) -> Object:
    """The status of a Machine whose infrastructure is not there: the older contract has a word that ends it for good,
    and the newer one has none.

    Args:
        why: as the infrastructure's provider says it; empty where it says nothing.
    """
    if why and version == V1BETA1:
        reason, _, message = why.partition(": ")
        return {"failureReason": reason, "failureMessage": message, "phase": "Failed"}
    said = "" if version == V1BETA1 else "RemoteMachine status.initialization.provisioned is false"
    return {
        "conditions": [condition(version, "InfrastructureReady", "False", "NotReady", said)],
        "phase": "Provisioning",
    }
