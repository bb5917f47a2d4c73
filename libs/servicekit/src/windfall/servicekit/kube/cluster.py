"""An API server as Windfall's adapters see it: objects in, objects out, and errors that say what to do.

It decides nothing and tries nothing again; whoever asks is a reconciler that comes back by itself.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube.connection import Access, Connection
from windfall.servicekit.kube.follow import Change, Follower, Listing
from windfall.servicekit.kube.kinds import Kind, Object
from windfall.servicekit.kube.refusals import Absent, Expired, Unserved
from windfall.servicekit.kube.transport import APPLY_PATCH, DEADLINE, MERGE_PATCH, Transport

FIELD_MANAGER: Final = "windfall-provisioner"
STATUS_MANAGER: Final = "windfall-provisioner-status"
"""Servers before 1.22 keep one entry for an object and its status: who applies both under one name loses the other."""
_PAGE: Final = 500


class Cluster:
    """See the module. Every method raises ``Transient`` when the server is away, too slow, throttles or fails, and
    ``Mistake`` when it refuses for good; see :mod:`~windfall.servicekit.kube.refusals`.

    Args:
        deadline: wall time that one answer may take.
    """

    def __init__(self, connection: Connection, deadline: timedelta = DEADLINE) -> None:
        self._access = Access(connection)
        self._transport = Transport(self._access, deadline)

    @classmethod
    def connect(cls, connection: Connection | None = None, deadline: timedelta = DEADLINE) -> Self:
        """Enter it to use it. It connects when first asked something."""
        return cls(connection or Connection(), deadline)

    async def __aenter__(self) -> Self:
        """
        Raises:
            Mistake: the kubeconfig cannot be read.
        """
        await self._access.client()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._access.close()

    async def version(self) -> str:
        """The server's, like ``v1.20.2``."""
        return str((await self._transport.ask("GET", "/version"))["gitVersion"])

    async def serves(self, kind: Kind) -> bool:
        """Whether the server knows this version of this kind."""
        try:
            resources = (await self._transport.ask("GET", kind.root))["resources"]
        except Unserved:
            return False
        return any(resource["name"] == kind.plural for resource in resources)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object | None:
        try:
            return await self._transport.ask("GET", kind.path(namespace, name))
        except Absent:
            return None

    async def list(self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = "") -> Listing:
        """All of them at one instant, fetched page by page; in every namespace if none is named."""
        try:
            return await self._pages(kind, namespace, _selecting(labels, fields) | {"limit": str(_PAGE)})
        except Expired:
            # Between two pages the server has forgotten what the first one showed. All at once it cannot.
            return await self._pages(kind, namespace, _selecting(labels, fields))

    async def _pages(self, kind: Kind, namespace: str | None, query: Mapping[str, str]) -> Listing:
        items: list[Object] = []
        more = ""
        while True:
            page = await self._transport.ask(
                "GET", kind.path(namespace), query={**query, "continue": more} if more else query
            )
            # A list says once what its items are.
            items += [{"apiVersion": kind.api_version, "kind": kind.kind} | item for item in page["items"] or ()]
            more = page["metadata"].get("continue", "")
            if not more:
                return Listing(items, page["metadata"]["resourceVersion"])

    async def create(self, kind: Kind, obj: Object, *, dry_run: bool = False) -> Object:
        """
        Raises:
            Exists: there is one of this name.
        """
        return await self._transport.ask(
            "POST", kind.path(obj["metadata"].get("namespace")), query=_dry(dry_run), body=obj
        )

    async def apply(
        self, kind: Kind, obj: Object, *, manager: str = FIELD_MANAGER, force: bool = False, dry_run: bool = False
    ) -> Object:
        """Server-side apply: afterwards ``manager`` owns the fields of ``obj``, and those that it has owned and are not
        in it any more are gone. An object that is so already keeps its ``resourceVersion``.

        Raises:
            Conflict: another manager owns a field and wants it otherwise, and ``force`` is not said.
        """
        return await self._apply(kind, obj, "", manager, force, dry_run)

    async def apply_status(
        self, kind: Kind, obj: Object, *, manager: str = STATUS_MANAGER, force: bool = False
    ) -> Object:
        """Server-side apply of ``obj["status"]``.

        Raises:
            Conflict: as :meth:`apply`.
            Absent: there is no such object.
        """
        return await self._apply(kind, obj, "status", manager, force, dry_run=False)

    async def _apply(
        self, kind: Kind, obj: Object, subresource: str, manager: str, force: bool, dry_run: bool
    ) -> Object:
        metadata = obj["metadata"]
        query = {"fieldManager": manager, "force": str(force).lower()} | _dry(dry_run)
        path = kind.path(metadata.get("namespace"), metadata["name"], subresource)
        return await self._transport.ask("PATCH", path, query=query, body=obj, content_type=APPLY_PATCH)

    async def replace(self, kind: Kind, obj: Object, *, subresource: str = "") -> Object:
        """
        Raises:
            Conflict: it is not at the ``resourceVersion`` that ``obj`` names.
            Absent: there is no such object.
        """
        metadata = obj["metadata"]
        return await self._transport.ask(
            "PUT", kind.path(metadata.get("namespace"), metadata["name"], subresource), body=obj
        )

    async def patch(
        self, kind: Kind, name: str, namespace: str | None, merge: Mapping[str, Any], *, subresource: str = ""
    ) -> Object:
        """A JSON merge patch, RFC 7396.

        Raises:
            Conflict: the patch names a ``resourceVersion`` or ``uid``, and the object's is another.
            Absent: there is no such object.
        """
        path = kind.path(namespace, name, subresource)
        return await self._transport.ask("PATCH", path, body=dict(merge), content_type=MERGE_PATCH)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace: timedelta | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Ask for its end, which comes when its finalizers are gone and, of a pod, when its grace is over.

        Args:
            uid: only if it is this very object.
            propagation: of what it owns: ``Background``, ``Foreground`` (before it) or ``Orphan``.

        Returns:
            False: it was gone.

        Raises:
            Conflict: there is another object of this name.
        """
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace is not None:
            options["gracePeriodSeconds"] = _seconds(grace)
        try:
            await self._transport.ask("DELETE", kind.path(namespace, name), body=options)
        except Absent:
            return False
        return True

    async def evict(self, pod_name: str, namespace: str, *, grace: timedelta | None = None) -> bool:
        """Delete a pod as far as disruption budgets allow.

        Returns:
            False: it was gone.

        Raises:
            Transient: a budget does not allow it now.
        """
        eviction: Object = {"kind": "Eviction", "metadata": {"name": pod_name, "namespace": namespace}}
        if grace is not None:
            eviction["deleteOptions"] = {"gracePeriodSeconds": _seconds(grace)}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod_name}/eviction"
        try:
            try:
                await self._transport.ask("POST", path, body={"apiVersion": "policy/v1", **eviction})
            except Mistake:
                # Servers before 1.22 know the older version alone, and refuse this one in several ways.
                await self._transport.ask("POST", path, body={"apiVersion": "policy/v1beta1", **eviction})
        except Absent:
            return False
        return True

    async def bind(self, pod_name: str, namespace: str, node_name: str) -> None:
        """Put a pod on a node, as a scheduler does.

        Raises:
            Conflict: it is on one already.
            Absent: there is no such pod.
        """
        target = {"apiVersion": "v1", "kind": "Node", "name": node_name}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod_name}, "target": target}
        await self._transport.ask("POST", f"/api/v1/namespaces/{namespace}/pods/{pod_name}/binding", body=binding)

    async def follow(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[Change, None]:
        """What is there and how it changes, for ever; see :mod:`~windfall.servicekit.kube.follow`.

        Raises:
            Mistake: nothing of this kind is served, or not to us, and never was.
        """

        async def listed() -> Listing:
            return await self.list(kind, namespace, labels=labels, fields=fields)

        follower = Follower(self._transport, kind.path(namespace), _selecting(labels, fields), listed)
        async with aclosing(follower.changes()) as changes:
            async for change in changes:
                yield change


def _selecting(labels: str, fields: str) -> dict[str, str]:
    return ({"labelSelector": labels} if labels else {}) | ({"fieldSelector": fields} if fields else {})


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}


def _seconds(duration: timedelta) -> int:
    """Whole ones, as the server counts, and never shorter than what was meant."""
    return -int(-duration.total_seconds() // 1)
