"""What a watch says: changes from a version on, as its selectors see them, and bookmarks."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import timedelta

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import Refused
from windfall.servicekit.testing.kube_api.resources import Resource
from windfall.servicekit.testing.kube_api.selectors import Matches
from windfall.servicekit.testing.kube_api.store import Changed, Store


@dataclass(frozen=True)
class Watch:
    """One client's wish."""

    resource: Resource
    namespace: str
    matches: Matches
    version: int | None
    """Where to begin; none says first what is there."""
    bookmarks: bool
    lasts: timedelta | None


async def events(
    store: Store, watch: Watch, shown: Callable[[Object], Object], bookmark_every: timedelta
) -> AsyncGenerator[Object, None]:
    """Until its time is over. A place that was forgotten is an ``ERROR`` event, and the end."""
    loop = asyncio.get_running_loop()
    end = None if watch.lasts is None else loop.time() + watch.lasts.total_seconds()
    at = watch.version
    if at is None:
        at = store.version
        kind = watch.resource.kind
        for obj in store.all(kind.group, kind.plural, watch.namespace):
            if watch.matches(obj):
                yield {"type": "ADDED", "object": shown(obj)}
    bookmark_at = loop.time() + bookmark_every.total_seconds()
    while True:
        try:
            changes = store.since(at)
        except Refused as refused:
            yield {"type": "ERROR", "object": refused.status()}
            return
        for change in changes:
            if (event := _event(watch, change)) is not None:
                yield {"type": event[0], "object": shown(event[1])}
        at = changes[-1].version if changes else at
        until = bookmark_at if end is None else min(bookmark_at, end)
        try:
            async with asyncio.timeout_at(until):
                await store.changed(at)
        except TimeoutError:
            if watch.bookmarks:
                yield {"type": "BOOKMARK", "object": _bookmark(watch.resource, at)}
            bookmark_at = loop.time() + bookmark_every.total_seconds()
            if end is not None and loop.time() >= end:
                return


def _event(watch: Watch, change: Changed) -> tuple[str, Object] | None:
    """What leaves a selection is deleted as far as its watcher can see, and what enters it added."""
    kind = watch.resource.kind
    if change.key[:2] != (kind.group, kind.plural) or (watch.namespace and change.key.namespace != watch.namespace):
        return None
    was = change.before is not None and watch.matches(change.before)
    if change.after is not None and watch.matches(change.after):
        return ("MODIFIED" if was else "ADDED"), change.after
    if not was:
        return None
    last = change.after or change.before
    assert last is not None
    return "DELETED", {**last, "metadata": last["metadata"] | {"resourceVersion": str(change.version)}}


def _bookmark(resource: Resource, version: int) -> Object:
    kind = resource.kind
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
