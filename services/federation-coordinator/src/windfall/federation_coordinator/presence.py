"""Who is here right now: open streams, heartbeats, and how far everybody has come. Nothing of it outlives the process.

It times silences and passes words on; what follows from them is decided elsewhere.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta

from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.federation import Federation, Member, NotMember, Progress
from windfall.servicekit.clock import Clock

Key = tuple[str, int]
"""A membership: site and attempt."""


class Presence:
    """The memberships that are open.

    Args:
        silence: wall time without a heartbeat after which a member is gone.
        gone: is told of one who is; runs on a timer.
    """

    def __init__(self, clock: Clock, silence: timedelta, gone: Callable[[str, int], None]) -> None:
        self._clock = clock
        self._silence = silence
        self._gone = gone
        self._streams: dict[Key, asyncio.Queue[pb.Directive | None]] = {}
        self._silent: dict[Key, asyncio.TimerHandle] = {}
        self._beats: dict[str, tuple[pb.Beat, float]] = {}
        self._progresses: dict[str, Progress] = {}
        self._speeds: dict[str, float] = {}
        self._resting = False

    @property
    def speeds(self) -> Mapping[str, float]:
        """Steps per second of each site, as it reported them."""
        return self._speeds

    @property
    def progresses(self) -> Mapping[str, Progress]:
        """How far each site has come in the round that it last spoke of."""
        return self._progresses

    async def directives(self, site: str, attempt: int, first: Iterable[pb.Directive]) -> AsyncIterator[pb.Directive]:
        """What a member is told for as long as its stream is open. Raises ``NotMember`` when membership ends."""
        queue: asyncio.Queue[pb.Directive | None] = asyncio.Queue()
        self._streams[site, attempt] = queue
        for directive in first:
            queue.put_nowait(directive)
        try:
            while (told := await queue.get()) is not None:
                yield told
        finally:
            if self._streams.get((site, attempt)) is queue:
                del self._streams[site, attempt]
        raise NotMember(f"the membership of {site} under attempt {attempt} has ended")

    def tell(self, member: Member, directive: pb.Directive) -> None:
        """Pass a word on, if the member listens; who does not hears it when its stream opens again."""
        queue = self._streams.get((member.site, member.attempt))
        if queue is not None:
            queue.put_nowait(directive)

    def beat(self, beat: pb.Beat) -> bool:
        """The member lives, and has come so far; whether it has come further than before."""
        self.watch(beat.site, beat.attempt)
        now = asyncio.get_running_loop().time()
        before, at = self._beats.get(beat.site, (beat, now))
        if (before.attempt, before.round) != (beat.attempt, beat.round) or not 0 < before.steps <= beat.steps:
            before, at = beat, now
        self._beats[beat.site] = before, at
        if beat.steps > before.steps and now > at:
            # Whatever came before the first step (a download, a compilation) is no part of its speed.
            self._speeds[beat.site] = (beat.steps - before.steps) / (now - at)
        known = self._progresses.get(beat.site)
        if known is not None and (known.round, known.attempt) == (beat.round, beat.attempt):
            if beat.tokens <= known.tokens:
                return False
        elif not beat.steps:
            return False
        self._progresses[beat.site] = Progress(beat.round, beat.attempt, beat.tokens, self._clock.now())
        return True

    def moves(self, site: str, attempt: int, number: int) -> None:
        """Bytes of its contribution to this round arrive."""
        known = self._progresses.get(site)
        now = self._clock.now()
        if known is not None and (known.round, known.attempt) == (number, attempt):
            self._progresses[site] = replace(known, moved_at=now)
        else:
            self._progresses[site] = Progress(number, attempt, 0, now)

    def watch(self, site: str, attempt: int) -> None:
        """From now on this membership ends when nothing is heard for too long."""
        if self._resting:
            return
        if (timer := self._silent.pop((site, attempt), None)) is not None:
            timer.cancel()
        self._silent[site, attempt] = asyncio.get_running_loop().call_later(
            self._silence.total_seconds(), self._gone, site, attempt
        )

    def follow(self, before: Federation, after: Federation) -> None:
        """Who is no member any more hears it at once, and joins again if it still lives."""
        if before.members is after.members:
            return
        still = {(member.site, member.attempt) for member in after.members.values()}
        for member in before.members.values():
            key = (member.site, member.attempt)
            if key in still:
                continue
            if (timer := self._silent.pop(key, None)) is not None:
                timer.cancel()
            if (queue := self._streams.get(key)) is not None:
                queue.put_nowait(None)

    def rest(self) -> None:
        """Forget the timers of open memberships, and set no more: whoever comes next judges who is silent."""
        self._resting = True
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()
