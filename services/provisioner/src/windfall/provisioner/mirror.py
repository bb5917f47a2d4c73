"""The Jobs and pods of a site's leases, as two watches tell of them."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from typing import Final
from uuid import UUID

from windfall.provisioner.manifests.labels import LEASE
from windfall.provisioner.workers import End, end, ended, worker_of
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Cluster, Kind, Object
from windfall.servicekit.kube.kinds import EVENT, JOB, POD

log = logging.getLogger(__name__)

_SYNC_S: Final = 10.0


class Mirror:
    """See the module.

    Args:
        cluster: entered already.
        namespace: of the site's objects.
        labels: of the site's objects.
        by_us: whether the pods of a lease are being ended by its provisioner.
    """

    def __init__(self, cluster: Cluster, namespace: str, labels: str, by_us: Callable[[UUID], bool]) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._by_us = by_us
        self._jobs: dict[str, Object] = {}
        self._pods: dict[str, Object] = {}
        self._ends: dict[UUID, dict[int, End]] = {}
        self._synced: set[str] = set()
        self._fault: Mistake | None = None
        self._change = asyncio.Event()
        self.version = 0
        """Grows with every change."""
        self.events: dict[str, str] = {}
        """The newest warning about each Job, by the Job's name."""
        self._watches = [
            asyncio.create_task(self._follow(JOB, labels, "", self._job_is), name="watch of jobs"),
            asyncio.create_task(self._follow(POD, labels, "", self._pod_is), name="watch of pods"),
            asyncio.create_task(self._warnings(), name="watch of warnings"),
        ]

    async def synced(self) -> None:
        """Return when everything that is there has been told.

        Raises:
            Transient: that takes too long.
            Mistake: the server does not let us look.
        """
        try:
            async with asyncio.timeout(_SYNC_S):
                while not {JOB.plural, POD.plural} <= self._synced:
                    await self.changed(self.version)
        except TimeoutError as error:
            raise Transient("the API server does not say what is there") from error

    async def changed(self, since: int) -> None:
        """Wait until something is other than at that version.

        Raises:
            Mistake: the server does not let us look any more.
        """
        while self.version == since and self._fault is None:
            await self._change.wait()
        if self._fault is not None:
            raise self._fault

    def jobs(self, lease_id: UUID) -> list[Object]:
        return [job for job in self._jobs.values() if _lease_of(job) == lease_id]

    def pods(self, lease_id: UUID) -> list[Object]:
        return [pod for pod in self._pods.values() if _lease_of(pod) == lease_id]

    def alive(self) -> list[Object]:
        """Of every lease, the pods that have not ended."""
        return [pod for pod in self._pods.values() if not ended(pod)]

    def ends(self, lease_id: UUID) -> dict[int, End]:
        """How the workers of a lease have ended, as far as they have."""
        return self._ends.get(lease_id, {})

    def forget(self, lease_id: UUID) -> None:
        """The lease begins anew, or is over."""
        self._ends.pop(lease_id, None)

    def keep(self, job: Object) -> None:
        """A Job is so now, by the server's own answer; the watch may be late."""
        self._job_is(True, job)
        self._tell()

    async def close(self) -> None:
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def _follow(self, kind: Kind, labels: str, fields: str, heard: Callable[[bool, Object], None]) -> None:
        try:
            following = self._cluster.follow(kind, self._namespace, labels=labels, fields=fields)
            async with aclosing(following) as changes:
                async for change in changes:
                    if change.verb == "synced":
                        self._synced.add(kind.plural)
                    else:
                        heard(change.verb == "present", change.object)
                    self._tell()
        except Mistake as mistake:
            self._fault = mistake
            self._tell()

    async def _warnings(self) -> None:
        """Why a Job has no pod, as a quota has it, is told in an event alone."""
        try:
            fields = "type=Warning,involvedObject.kind=Job"
            following = self._cluster.follow(EVENT, self._namespace, fields=fields)
            async with aclosing(following) as changes:
                async for change in changes:
                    if change.verb == "present":
                        self._event_is(change.object)
        except Mistake as mistake:
            log.warning("no reasons are told for Jobs without pods: %s", mistake)

    def _tell(self) -> None:
        self.version += 1
        change, self._change = self._change, asyncio.Event()
        change.set()

    def _job_is(self, present: bool, job: Object) -> None:
        name = job["metadata"]["name"]
        if present:
            self._jobs[name] = job
        elif name in self._jobs and self._jobs[name]["metadata"]["uid"] == job["metadata"]["uid"]:
            del self._jobs[name]
            self.events.pop(name, None)

    def _pod_is(self, present: bool, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        if present:
            self._pods[uid] = pod
        else:
            self._pods.pop(uid, None)
        lease_id, worker = _lease_of(pod), worker_of(pod)
        if lease_id is not None and worker is not None and (ended(pod) or not present):
            self._ends.setdefault(lease_id, {}).setdefault(worker, end(pod, by_us=self._by_us(lease_id)))

    def _event_is(self, event: Object) -> None:
        name = event["involvedObject"]["name"]
        self.events[name] = f"{event.get('reason')}: {' '.join(str(event.get('message', '')).split())}"
        self._tell()


def _lease_of(found: Object) -> UUID | None:
    try:
        return UUID((found["metadata"].get("labels") or {})[LEASE])
    except (KeyError, ValueError):
        return None
