"""The rows of a shared corpus that a site holds, asked for before they are needed.

The coordinator says in every answer all that is held, and whatever this side thought is forgotten: so a lost answer, a
restart or a membership that ended needs no special word. To be trained is what is held and has not been trained.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from math import ceil
from typing import Any, Final

from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import Refused
from windfall.site_trainer import overlapping
from windfall.site_trainer import session as sessions
from windfall.site_trainer.session import Session
from windfall.tasks.ranges import NONE, Ranges, first, minus, size, union, within

log = logging.getLogger(__name__)

_STEPS_AHEAD: Final = 4
"""For which rows are held at least."""
_WAITS_AHEAD: Final = 4
"""So many times what an answer took is covered by the rows that are held."""

After = Callable[[Session], Session]


class Supply:
    """One site's rows.

    Args:
        ask: the coordinator, to hold so many rows in all; it answers what is held.
        spawn: runs something beside the session.
    """

    def __init__(
        self,
        ask: Callable[[int], Awaitable[Ranges]],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._ask = ask
        self._spawn = spawn
        self._held: Ranges | None = None
        self._asking: asyncio.Task[None] | None = None
        self._turns = 0
        """Counts what an answer that is on its way does not know of."""
        self._answer_s = 0.0
        self._drawn_at: float | None = None

    def forget(self) -> None:
        """What is held is not known: under another membership, or after a refusal."""
        self._drop_question()
        self._held = None

    def counted(self, rows: Ranges) -> None:
        """A contribution that names these rows was accepted."""
        # An answer that is on its way may still name them as held.
        self._drop_question()
        if self._held is not None:
            self._held = minus(self._held, rows)

    async def draw(
        self, count: int, trained: Ranges, away: Ranges = NONE, goes_on: bool = False
    ) -> tuple[After, Ranges]:
        """The next rows to train, ``count`` of them or what there is, and what becomes of the session when there are
        none.

        Args:
            trained: rows of the work that has not been contributed.
            away: rows of a contribution that has set out, and of which it is not known whether it counts.
            goes_on: training goes on until the next base is there.

        Raises:
            Transient: the coordinator does not answer, or has no more rows before what is on its way has arrived.
        """
        step_s = 0.0 if self._drawn_at is None else _now() - self._drawn_at
        ahead = count * max(_STEPS_AHEAD, ceil(_WAITS_AHEAD * self._answer_s / step_s) if step_s else 0)
        taken = union(trained, away)
        try:
            if not self._pending(taken) and self._asking is not None:
                await asyncio.wait([self._asking])
            if not self._pending(taken):
                await self._answered(size(taken) + ahead)
        except Refused as refused:
            log.info("no rows: %s", refused)
            return sessions.membership_ended, NONE
        if not within(trained, self._held or NONE):
            log.warning("rows that were trained here have become another site's: the round is begun anew")
            return overlapping.disowned, NONE
        pending = self._pending(taken)
        if not pending and goes_on:
            raise Transient("no more rows before what is on its way has arrived")
        if not pending:
            # As many ranges are held as may be: the contribution makes room.
            return sessions.sated, NONE
        if size(pending) - count < ahead and (self._asking is None or self._asking.done()):
            self._asking = self._spawn(self._ask_ahead(size(taken) + count + 2 * ahead))
        self._drawn_at = _now()
        return _unchanged, first(pending, count)

    def _pending(self, taken: Ranges) -> Ranges:
        return minus(self._held or NONE, taken)

    async def _answered(self, hold: int) -> None:
        began, asked = _now(), self._turns
        held = await self._ask(hold)
        if asked != self._turns:
            raise Transient("what is held has changed since it was asked")
        self._held = held
        self._answer_s = _now() - began

    async def _ask_ahead(self, hold: int) -> None:
        with suppress(Transient, Refused):
            # Who needs the rows asks again, and hears it then.
            await self._answered(hold)

    def _drop_question(self) -> None:
        self._turns += 1
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None


def _unchanged(session: Session) -> Session:
    return session


def _now() -> float:
    return asyncio.get_running_loop().time()
