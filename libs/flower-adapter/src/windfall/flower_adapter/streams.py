"""The open streams to the sites, and how long each of them may be silent."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import timedelta
from typing import Final

from windfall.contracts.v1 import messages_pb2 as pb
from windfall.flower_adapter import shim
from windfall.flower_adapter.values import Sent

log = logging.getLogger(__name__)

_SAID_AGAIN_S: Final = 30.0
"""Seconds between two lines that say the same of who is up."""


class NotMember(Exception):
    """This membership has ended, or never was."""


class Streams:
    """One queue and one timer per membership.

    Args:
        silence: wall time after which a member without a sign of life is gone.
        silent: called then, with site and attempt.
    """

    def __init__(self, silence: timedelta, silent: Callable[[str, int], None]) -> None:
        self._silence_s = silence.total_seconds()
        self._silent = silent
        self._queues: dict[tuple[str, int], asyncio.Queue[pb.Announcement | None]] = {}
        self._timers: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._resting = False

    async def announcements(
        self, site: str, attempt: int, first: Iterable[pb.Announcement]
    ) -> AsyncIterator[pb.Announcement]:
        """What a member is told for as long as its stream is open. Raises ``NotMember`` when its membership ends."""
        queue: asyncio.Queue[pb.Announcement | None] = asyncio.Queue()
        self._queues[site, attempt] = queue
        for one in first:
            queue.put_nowait(one)
        try:
            while (announcement := await queue.get()) is not None:
                yield announcement
        finally:
            if self._queues.get((site, attempt)) is queue:
                del self._queues[site, attempt]
        raise NotMember(f"the membership of {site} under attempt {attempt} has ended")

    def tell(self, site: str, attempt: int, announcement: pb.Announcement) -> None:
        """Say it now if the stream is open; otherwise it is said when it opens."""
        if (queue := self._queues.get((site, attempt))) is not None:
            queue.put_nowait(announcement)

    def tell_all(self, announcement: pb.Announcement) -> None:
        for queue in self._queues.values():
            queue.put_nowait(announcement)

    def watch(self, site: str, attempt: int) -> None:
        """The member lives: count its silence from now on."""
        if self._resting:
            return
        if (timer := self._timers.pop((site, attempt), None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[site, attempt] = loop.call_later(self._silence_s, self._silent, site, attempt)

    def end(self, site: str, attempt: int) -> None:
        """The membership has ended."""
        if (timer := self._timers.pop((site, attempt), None)) is not None:
            timer.cancel()
        if (queue := self._queues.get((site, attempt))) is not None:
            queue.put_nowait(None)

    def rest(self) -> None:
        """Set no more timers: whoever comes next judges who is silent."""
        self._resting = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()


class Attendance:
    """Says in the log who is up and who is waited for, when that changes and now and then."""

    def __init__(self, sites: tuple[str, ...]) -> None:
        self._sites = sites
        self._left: dict[str, str] = {}
        self._said = ("", 0.0)

    def left(self, site: str, why: str) -> None:
        self._left[site] = why

    def say(self, up: list[str]) -> None:
        away = [
            f"{site} ({'left: ' + self._left[site] if site in self._left else 'has not joined'})"
            for site in self._sites
            if site not in up
        ]
        text = f"{len(up)} sites are up: {', '.join(up) or 'none'}" + (f"; not up: {', '.join(away)}" if away else "")
        now = asyncio.get_running_loop().time()
        before, at = self._said
        if text != before or now - at > _SAID_AGAIN_S:
            log.info("%s", text)
            self._said = text, now


def notice(sent: Sent) -> pb.Announcement:
    """What a site is told of a message that waits for it."""
    return pb.Announcement(
        message=pb.MessageNotice(
            message_id=sent.id,
            message_type=sent.message_type,
            group_id=sent.group_id,
            src_node_id=shim.COORDINATOR_NODE,
            dst_node_id=sent.node_id,
            ttl_s=sent.ttl_s,
            created_at_s=sent.created_at_s,
            header=sent.header.encode(),
            body_bytes=sent.body_bytes,
            body_sha256=sent.body_sha256,
            round=sent.round,
            traceparent=sent.trace.get("traceparent", ""),
        )
    )


def ended() -> pb.Announcement:
    """What a site is told when the run is over."""
    return pb.Announcement(ended=pb.RunEnded(reason="the run has ended"))
