"""What tests of Kubernetes are made of: a space of their own, objects to put there, and what to ask of them."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, CRD, POD, STATEFUL_SET
from windfall.servicekit.kube.transport import Transport
from windfall.servicekit.testing.kube_api import KubeApi


@dataclass(frozen=True)
class ApiServer:
    """One that a test may use."""

    kubeconfig: Path
    double: KubeApi | None
    """None: it is a real one."""


@dataclass(frozen=True)
class Space:
    """A namespace of a test's own, and a client."""

    cluster: Cluster
    namespace: str
    server: ApiServer


GROUP: Final = "conformance.windfall.dev"
WIDGET: Final = Kind(GROUP, "v1", "Widget", "widgets")
PLAIN: Final = Kind(GROUP, "v1", "Plain", "plains")

STRING: Final[Object] = {"type": "string"}
WIDGET_SPEC: Final[Object] = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 1, "maximum": 9},
        "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "maybe": {"type": "string", "nullable": True},
        "labels": {"type": "object", "additionalProperties": STRING},
        "parts": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["id"],
            "items": {"type": "object", "required": ["id"], "properties": {"id": STRING, "text": STRING}},
        },
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": STRING},
        "steps": {"type": "array", "items": STRING},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "replicas": {"type": "integer", "default": 1},
    },
}
STATUS: Final[Object] = {"type": "object", "properties": {"phase": STRING, "replicas": {"type": "integer"}}}


def definition(kind: Kind, spec: Object, subresources: Object) -> Object:
    schema = {"type": "object", "properties": {"spec": spec, "status": STATUS}}
    version: Object = {"name": kind.version, "served": True, "storage": True, "subresources": subresources}
    names = {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.lower(), "listKind": f"{kind.kind}List"}
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": names,
            "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
        },
    }


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """A real server's controllers have no event that a client could wait for."""
    async with asyncio.timeout(60):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def unserved(space: Space, kind: Kind) -> bool:
    return not await space.cluster.serves(kind)


async def defined(cluster: Cluster, kind: Kind, spec: Object, subresources: Object) -> None:
    await cluster.apply(CRD, definition(kind, spec, subresources), manager="conformance", force=True)
    await until(lambda: cluster.serves(kind))


async def typed(space: Space) -> bool:
    """Whether apply knows the schema by now: a real server publishes it a moment after the definition."""
    wanted = widget(space, spec={"size": 1, "tags": ["a"]})
    dry = await space.cluster.apply(WIDGET, wanted, manager="one", dry_run=True)
    return bool(fields_of(dry, "one", "Apply")["f:spec"]["f:tags"])


def widget(space: Space, name: str = "w", spec: Object | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": WIDGET.api_version,
        "kind": WIDGET.kind,
        "metadata": {"name": name, "namespace": space.namespace, **metadata},
        "spec": {"size": 1} if spec is None else spec,
    }


def config_map(space: Space, name: str = "c", data: dict[str, str] | None = None, **metadata: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": space.namespace, **metadata},
        "data": data or {},
    }


def pod(space: Space, name: str = "p", node: str = "", **metadata: Any) -> Object:
    spec: Object = {"containers": [{"name": "main", "image": "image:1"}], "automountServiceAccountToken": False}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space.namespace, **metadata},
        "spec": spec | ({"nodeName": node} if node else {}),
    }


def version_of(obj: Object) -> str:
    return str(obj["metadata"]["resourceVersion"])


def fields_of(obj: Object, manager: str, operation: str) -> Object:
    for entry in obj["metadata"]["managedFields"]:
        if (entry["manager"], entry["operation"]) == (manager, operation):
            fields: Object = entry["fieldsV1"]
            return fields
    return {}


async def gone(space: Space, kind: Kind, name: str) -> None:
    async def is_gone() -> bool:
        return await space.cluster.get(kind, name, space.namespace) is None

    await until(is_gone)


def transport(space: Space) -> Transport:
    return space.cluster._transport


async def raw_patch(space: Space, kind: Kind, name: str, patch: Any, content_type: str, **query: str) -> Object:
    path = kind.path(space.namespace, name)
    return await transport(space).ask("PATCH", path, query=query, body=patch, content_type=content_type)


def stateful_set(space: Space, replicas: int = 0) -> Object:
    container = {"name": "main", "image": "image:1", "env": [{"name": "A", "value": "1"}]}
    return {
        "apiVersion": STATEFUL_SET.api_version,
        "kind": STATEFUL_SET.kind,
        "metadata": {"name": "s", "namespace": space.namespace},
        "spec": {
            "replicas": replicas,
            "serviceName": "s",
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]}},
        },
    }


async def created_pod(space: Space, wanted: Object) -> None:
    """A real server first needs the namespace's default account, which a controller makes."""
    async with asyncio.timeout(20):
        while True:
            try:
                await space.cluster.create(POD, wanted)
            except Mistake as mistake:
                if "serviceaccount" not in str(mistake) and "service account" not in str(mistake):
                    raise
                await asyncio.sleep(0.05)
            else:
                return


async def owned_pair(space: Space, **metadata: Any) -> Object:
    owner = await space.cluster.create(CONFIG_MAP, config_map(space, "owner"))
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    ref["blockOwnerDeletion"] = True
    await space.cluster.create(CONFIG_MAP, config_map(space, "child", ownerReferences=[ref], **metadata))
    return ref
