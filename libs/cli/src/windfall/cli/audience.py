"""Hears everything that the hub's events say while a fleet runs: keeps it, folds it, and shows it."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import timedelta

from nats.aio.client import Client

from windfall.cli.live import View
from windfall.cli.recording import Said, heard
from windfall.cli.server import connection, last_sequence, letters
from windfall.cli.watch import Fleet, hear
from windfall.contracts.envelope import MESSAGE_ID, Unreadable
from windfall.contracts.events import NodeProfiled, NodeReady, WindowOpened
from windfall.contracts.subjects import EVENTS_STREAM


class Audience:
    """What was heard so far, in the hub's order."""

    def __init__(self, fleet: Fleet, view: View) -> None:
        self.fleet = fleet
        self.said: list[Said] = []
        self._view = view
        self._sequence = 0
        self._ids: set[str] = set()
        self._changed = asyncio.Event()

    async def listen(self, hub: Client) -> None:
        """Hear for ever, from the first event on; a hub that restarts is a pause."""
        async with aclosing(letters(hub, EVENTS_STREAM)) as stream:
            async for stored in stream:
                self._sequence = stored.sequence
                self._changed.set()
                if stored.letter.id and stored.letter.id in self._ids:
                    continue
                self._ids.add(stored.letter.id)
                try:
                    said = heard(stored.letter)
                except Unreadable as error:
                    self._view.say(f"{stored.letter.subject} is no event: {error}")
                else:
                    self.said.append(said)
                    self.fleet = hear(self.fleet, said.message)
                    self._view.show(self.fleet, said.message)

    async def until(self, fine: Callable[[], bool], within: timedelta) -> bool:
        """Wait until something is true of what was heard; false when it is not in time."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                while not fine():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def all_dark(self) -> bool:
        """No window is open and every node has gone."""
        return all(
            lane.window in ("dark", "stale") and lane.node not in ("warm", "ready")
            for lane in self.fleet.lanes.values()
        )

    def all_released(self) -> bool:
        """Every node has gone, whatever the power is like."""
        return all(lane.node not in ("warm", "ready") for lane in self.fleet.lanes.values())

    def all_measured(self) -> bool:
        """Every site that had a node in an open window has said what that node is worth."""
        heard = [sentence.message for sentence in self.said]
        ready = {message.site for message in heard if isinstance(message, NodeReady)}
        opened = {message.site for message in heard if isinstance(message, WindowOpened)}
        return ready & opened <= {message.site for message in heard if isinstance(message, NodeProfiled)}

    async def reconciled(self, hub: Client, site_urls: tuple[str, ...], within: timedelta) -> bool:
        """Wait until the last event of every site has come to the hub and been heard; false when not in time."""
        last = {await _last_id(url) for url in site_urls} - {""}
        newest = await last_sequence(hub, EVENTS_STREAM)
        return await self.until(lambda: last <= self._ids and self._sequence >= newest, within)


async def _last_id(url: str) -> str:
    async with connection(url) as site:
        sequence = await last_sequence(site, EVENTS_STREAM)
        if sequence == 0:
            return ""
        message = await site.jetstream().get_msg(EVENTS_STREAM, sequence)
        return str((message.headers or {}).get(MESSAGE_ID, ""))
