"""What is there, for ever: a list, and then a watch from where it ended, and again.

Level-triggered: a change says how an object is, not what happened to it, and changes that followed each other closely
may come as one. Nothing is lost by a cut, a refusal or a server that was away: the watch goes on from the last place it
knows, and where the server has forgotten that place (410) a new list is compared with what was said before. An object
that another one of the same name has taken the place of is said to be absent first.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal, Protocol

from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.kube.refusals import Expired, refusal
from windfall.servicekit.kube.transport import Transport

log = logging.getLogger(__name__)

Verb = Literal["present", "absent", "synced"]

_WATCH: Final = timedelta(minutes=5)
"""The server ends a watch after this; a new one may reach another server."""
_SILENCE: Final = timedelta(seconds=100)
"""Bookmarks come every minute. A link that says less is dead, even if nobody has closed it."""
_FIRST_PAUSE: Final = timedelta(milliseconds=50)
_LONGEST_PAUSE: Final = timedelta(seconds=5)
_LASTED: Final = 1.0
"""Seconds after which a watch counts as one that worked."""


@dataclass(frozen=True)
class Change:
    """``present`` with the object as it is, ``absent`` with what was last known of it (of its metadata alone if it
    vanished unseen), ``synced`` with an empty one when all that a list held has been said."""

    verb: Verb
    object: Object = field(default_factory=dict)
    listed: bool = field(default=False, compare=False)
    """A list told it: this is the outcome, and what happened on the way to it was not seen."""


@dataclass(frozen=True)
class Listing:
    """All objects at one place of the server's history."""

    items: list[Object]
    resource_version: str


class Lists(Protocol):
    """Lists anew."""

    async def __call__(self) -> Listing: ...


_Known = dict[tuple[str, str], Object]


class Follower:
    """One list and watch.

    Args:
        transport: speaks with the server.
        path: of the collection.
        query: its selectors.
        listed: lists the same collection.
    """

    def __init__(self, transport: Transport, path: str, query: Mapping[str, str], listed: Lists) -> None:
        self._transport = transport
        self._path = path
        self._query = query
        self._listed = listed
        self._known: _Known = {}
        self._at: str | None = None
        self._heard = False
        self._synced = False

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Never ends by itself.

        Raises:
            Mistake: nothing of this kind is served, or not to us. Once it was, that is waited for: a server that has
                just started may not know its roles and definitions yet.
        """
        failures = 0
        told_of = ""
        while True:
            began = asyncio.get_running_loop().time()
            self._heard = False
            wait: timedelta | None = None
            try:
                if self._at is None:
                    listing = await self._listed()
                    for change in relisted(self._known, listing.items):
                        yield change
                    self._at = listing.resource_version
                    self._synced = True
                    yield Change("synced")
                async with aclosing(self._watched()) as watched:
                    async for change in watched:
                        yield change
            except Expired:
                self._at = None
            except Transient as error:
                wait = error.retry_after
            except Mistake as mistake:
                if not self._synced:
                    raise
                wait = _LONGEST_PAUSE
                if told_of != (told_of := str(mistake)):
                    log.warning("cannot follow %s for now: %s", self._path, mistake)
            lasted = asyncio.get_running_loop().time() - began > _LASTED
            failures = 0 if self._heard or (lasted and wait is None) else failures + 1
            if failures or wait:
                await asyncio.sleep(max(wait or timedelta(), pause(failures)).total_seconds())

    async def _watched(self) -> AsyncGenerator[Change, None]:
        """Until the server ends it."""
        assert self._at is not None
        seconds = int(_WATCH.total_seconds() * random.uniform(0.8, 1.2))
        query = {
            **self._query,
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._at,
            "timeoutSeconds": str(seconds),
        }
        async with self._transport.lines(self._path, query, _SILENCE) as lines, aclosing(lines):
            async for line in lines:
                for change in self._heard_line(line):
                    yield change

    def _heard_line(self, line: bytes) -> list[Change]:
        try:
            event = json.loads(line)
            verb, found = event["type"], event["object"]
        except (ValueError, KeyError, TypeError) as error:
            raise Transient(f"a watch of {self._path} said what is no event: {line[:80]!r}") from error
        if verb == "ERROR":
            raise refusal(int(found.get("code", 500)), {}, json.dumps(found).encode(), f"watch {self._path}")
        self._heard = True
        changes = [] if verb == "BOOKMARK" else told(self._known, verb, found)
        self._at = found["metadata"]["resourceVersion"]
        return changes


def pause(failures: int) -> timedelta:
    """How long to leave a server alone that has failed so often in a row; at random, so that not all come at once."""
    if failures <= 0:
        return timedelta()
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)


def relisted(known: _Known, items: list[Object]) -> list[Change]:
    """What a list says that was not known. ``known`` is brought up to it."""
    there = {_key(item) for item in items}
    changes = [Change("absent", known.pop(key)) for key in list(known) if key not in there]
    for item in items:
        before = known.get(_key(item))
        if before is None or before["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]:
            changes += told(known, "MODIFIED", item)
    return [replace(change, listed=True) for change in changes]


def told(known: _Known, verb: str, found: Object) -> list[Change]:
    """What an event says. ``known`` is brought up to it."""
    key = _key(found)
    before = known.get(key)
    if verb == "DELETED":
        known.pop(key, None)
        return [Change("absent", found)]
    known[key] = _remembered(found)
    present = Change("present", found)
    if before is not None and before["metadata"].get("uid") != found["metadata"].get("uid"):
        return [Change("absent", before), present]
    return [present]


def _key(found: Object) -> tuple[str, str]:
    metadata = found["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _remembered(found: Object) -> Object:
    """Enough to tell it apart and to say that it is gone; whole objects would take a service's memory."""
    metadata = {key: value for key, value in found["metadata"].items() if key != "managedFields"}
    return {key: found[key] for key in ("apiVersion", "kind") if key in found} | {"metadata": metadata}
