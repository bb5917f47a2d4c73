"""What becomes of an object when it is created, changed and asked to end: pure functions over one object."""

import re
import secrets
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import (
    Cause,
    Refused,
    bad_request,
    conflict,
    forbidden,
    invalid,
    stale,
)
from windfall.servicekit.testing.kube_api.resources import Resource

FOREGROUND: Final = "foregroundDeletion"
ORPHAN: Final = "orphan"
CRD_CLEANUP: Final = "customresourcecleanup.apiextensions.k8s.io"

_SUBDOMAIN: Final = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL_VALUE: Final = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_SYSTEM: Final = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
)
"""What the server alone says of an object."""
_KEEPS_STATUS: Final = frozenset({("", "nodes")})
"""Kinds that may be born with a status."""
_RBAC: Final = "rbac.authorization.k8s.io"


def instant(at: datetime) -> str:
    """As the API writes it: whole seconds of UTC."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def checked(resource: Resource, obj: Any, namespace: str, name: str = "") -> Object:
    """The object of a request's body: of this kind, in this namespace, under this name.

    Raises:
        Refused: it is another one, or none (400).
    """
    kind = resource.kind
    if not isinstance(obj, dict) or not isinstance(obj.get("metadata", {}), dict):
        raise bad_request("the body of the request is no object")
    said = obj.get("apiVersion", kind.api_version)
    if said != kind.api_version:
        raise bad_request(
            f"the API version in the data ({said}) does not match the expected API version ({kind.api_version})"
        )
    if obj.get("kind", kind.kind) != kind.kind:
        raise bad_request(f"{obj['kind']} does not match the expected kind {kind.kind}")
    metadata = dict(obj.get("metadata") or {})
    if name and metadata.get("name", name) != name:
        raise bad_request(f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})")
    if metadata.get("namespace", namespace) != namespace and (namespace or metadata["namespace"]):
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if namespace:
        metadata["namespace"] = namespace
    if name:
        metadata["name"] = name
    return {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def begun(resource: Resource, obj: Object, now: datetime) -> Object:
    """A new object as it is born.

    Raises:
        Refused: it may not be called so (422).
    """
    kind = resource.kind
    metadata = {name: value for name, value in obj["metadata"].items() if name not in _SYSTEM[2:]}
    if not metadata.get("name") and metadata.get("generateName"):
        metadata["name"] = metadata["generateName"] + secrets.token_hex(3)[:5]
    name = metadata.get("name", "")
    if not name:
        raise invalid(kind, "", [Cause("FieldValueRequired", "Required value: name or generateName", "metadata.name")])
    causes = metadata_faults(metadata, free_name=kind.group == _RBAC)
    if causes:
        raise invalid(kind, name, causes)
    metadata["uid"] = str(uuid4())
    metadata["creationTimestamp"] = instant(now)
    if resource.generation:
        metadata["generation"] = 1
    keeps = "status" not in resource.subresources or (kind.group, kind.plural) in _KEEPS_STATUS
    return {name: value for name, value in obj.items() if keeps or name != "status"} | {"metadata": metadata}


def metadata_faults(metadata: Object, *, free_name: bool = False) -> list[Cause]:
    causes = []
    name = metadata["name"]
    if not free_name and (len(name) > 253 or not _SUBDOMAIN.match(name)):
        text = (
            f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character"
        )
        causes.append(Cause("FieldValueInvalid", text, "metadata.name"))
    for key, value in (metadata.get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.match(value):
            text = (
                f"Invalid value: \"{value}\": a valid label must be at most 63 alphanumeric characters, '-', '_', '.'"
            )
            causes.append(Cause("FieldValueInvalid", text, f"metadata.labels[{key}]"))
    for key, value in (metadata.get("annotations") or {}).items():
        if not isinstance(value, str):
            causes.append(Cause("FieldValueInvalid", "Invalid value: must be a string", f"metadata.annotations[{key}]"))
    for index, owner in enumerate(metadata.get("ownerReferences") or ()):
        for field in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(field):
                text = 'Invalid value: "": must not be empty'
                causes.append(Cause("FieldValueInvalid", text, f"metadata.ownerReferences[{index}].{field}"))
    return causes


def revised(resource: Resource, live: Object, new: Object, subresource: str) -> Object:
    """What of a changed object counts: the server's own fields stay, and a status changes by its subresource alone.

    Raises:
        Refused: it was made from another version (409), or adds finalizers to an object that ends (422).
    """
    kind, before, said = resource.kind, live["metadata"], new["metadata"]
    if said.get("uid", before["uid"]) != before["uid"]:
        text = f"Precondition failed: UID in precondition: {said['uid']}, UID in object meta: {before['uid']}"
        raise conflict(kind, before["name"], text)
    if said.get("resourceVersion") not in (None, "", before["resourceVersion"]):
        raise stale(kind, before["name"])
    metadata = {name: value for name, value in said.items() if name not in _SYSTEM}
    metadata |= {name: before[name] for name in _SYSTEM if name in before}
    if subresource == "status":
        kept = {name: value for name, value in live.items() if name != "status"}
        return kept | ({"status": new["status"]} if "status" in new else {})
    causes = metadata_faults(metadata, free_name=kind.group == _RBAC)
    added = set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ())
    if "deletionTimestamp" in before and added:
        text = "Forbidden: no new finalizers can be added if the object is being deleted"
        causes.append(Cause("FieldValueForbidden", text, "metadata.finalizers"))
    if causes:
        raise invalid(kind, before["name"], causes)
    changed = {**new, "metadata": metadata}
    if "status" in resource.subresources:
        changed.pop("status", None)
        changed |= {"status": live["status"]} if "status" in live else {}
    return changed


def counted(resource: Resource, live: Object, new: Object) -> Object:
    """With the next generation, if what is wished for has changed."""
    if not resource.generation or _wish(resource, live) == _wish(resource, new):
        return new
    return {**new, "metadata": new["metadata"] | {"generation": live["metadata"].get("generation", 0) + 1}}


def _wish(resource: Resource, obj: Object) -> Object:
    own = {"apiVersion", "kind", "metadata"} | ({"status"} if "status" in resource.subresources else set())
    return {name: value for name, value in obj.items() if name not in own}


def ending(live: Object, options: Object, now: datetime, *, pod: bool) -> Object:
    """An object that was asked to end: with its grace and the finalizers that the propagation asks for."""
    metadata = dict(live["metadata"])
    finalizers = list(metadata.get("finalizers") or ())
    wanted = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(options.get("propagationPolicy", "Background"))
    if options.get("orphanDependents"):
        wanted = ORPHAN
    finalizers = [name for name in finalizers if name not in (FOREGROUND, ORPHAN) or name == wanted]
    if wanted and wanted not in finalizers:
        finalizers.append(wanted)
    metadata.pop("finalizers", None)
    if finalizers:
        metadata["finalizers"] = finalizers
    grace = _grace_s(live, options) if pod else 0
    if "deletionTimestamp" not in metadata or grace < metadata.get("deletionGracePeriodSeconds", 0):
        if "deletionTimestamp" not in metadata and "generation" in metadata:
            metadata["generation"] += 1
        metadata["deletionTimestamp"] = instant(now + timedelta(seconds=grace))
        metadata["deletionGracePeriodSeconds"] = grace
    return {**live, "metadata": metadata}


def _grace_s(pod: Object, options: Object) -> int:
    """Nobody waits for a pod that is on no node, or that has ended."""
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    said = options.get("gracePeriodSeconds")
    return int(said if said is not None else spec.get("terminationGracePeriodSeconds", 30))


def ended(obj: Object) -> bool:
    """Whether nothing holds it any more."""
    metadata = obj["metadata"]
    if "deletionTimestamp" not in metadata or metadata.get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds") and not (
        obj.get("kind") == "Namespace" and (obj.get("spec") or {}).get("finalizers")
    )


def unfit_namespace(resource: Resource, name: str, namespace: str, found: Object | None) -> Refused | None:
    """Why nothing can be created in it."""
    if found is None:
        details = {"name": namespace, "kind": "namespaces"}
        return Refused(404, "NotFound", f'namespaces "{namespace}" not found', details)
    if "deletionTimestamp" in found["metadata"]:
        text = f"unable to create new content in namespace {namespace} because it is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": f"namespace {namespace} is being terminated"}
        return forbidden(resource.kind, name, text, [cause | {"field": "metadata.namespace"}])
    return None
