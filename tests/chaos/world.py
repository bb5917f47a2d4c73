"""A fleet that lives through a schedule: what happens to it, and who brings it back."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.chaos.faults import ENDS_H, SITES, Fault
from tests.chaos.mortal import Crashed, Doom, FaultyBus, MortalJournal
from tests.fleet import FEDERATION, Fleet
from tests.wiring import MemoryWiring
from windfall.contracts.envelope import MESSAGE_ID, Letter
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, StreamSpec
from windfall.servicekit import crashpoint
from windfall.servicekit.bus import Bus
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal

MIDNIGHT: Final = datetime(2026, 1, 1, tzinfo=UTC)
HEALED_H: Final = ENDS_H + 1.0
OVER_H: Final = 8.0
"""All windows are over by then, and everybody has had the time to say so."""
_CLEAN_H: Final = {
    "site-a": ((0.25, 1.5), (2.0, 3.25), (4.0, 5.75)),
    "site-b": ((0.75, 2.25), (2.75, 4.25), (5.0, 6.0)),
}
_STEP: Final = timedelta(minutes=4)
Key = tuple[str, str]
"""A service and whom it serves."""


def write_trace(path: Path) -> None:
    """Clean power for an hour or two at a time, at the two sites in turn and together."""
    lines = ["point_time," + ",".join(SITES)]
    for number in range(int(OVER_H * 12) + 24):
        hour = number / 12
        values = ["20" if any(begin <= hour < end for begin, end in _CLEAN_H[site]) else "400" for site in SITES]
        lines.append(f"{(MIDNIGHT + timedelta(hours=hour)).isoformat()},{','.join(values)}")
    path.write_text("\n".join(lines) + "\n")


class ChaosWiring(MemoryWiring):
    """The doubles, with buses that fail."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world

    def bus(
        self,
        domain: str,
        service: str,
        streams: Sequence[StreamSpec],
        fail: Callable[[Mistake], None],
        lost: Callable[[], None],
    ) -> Bus:
        world = self._world
        doom = world.doom((service, FEDERATION if domain == HUB else domain))
        return FaultyBus(self.domains[domain], service, streams, fail, lost, doom, world.dice)


class World:
    """One run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self._dooms: dict[Key, Doom] = {}
        self._away: set[Key] = set()
        self._work: set[asyncio.Task[None]] = set()
        self.deaths: Counter[str] = Counter()
        self.wiring = ChaosWiring(self)
        trace = folder / "trace.csv"
        write_trace(trace)
        self.fleet = Fleet(
            folder,
            trace,
            SITES,
            LoopClock(MIDNIGHT),
            self.wiring,
            seed=seed,
            straggler_grace=timedelta(minutes=30),
            step=_STEP,
            make_journal=self._journal,
        )

    def doom(self, key: Key) -> Doom:
        return self._dooms.setdefault(key, Doom(partial(self._died, key)))

    def _journal(self, service: str, whom: str) -> Journal:
        return MortalJournal(f"/windfall/{service}/{whom}", self.doom((service, whom)))

    async def live(self, schedule: Sequence[Fault]) -> list[Message]:
        """From midnight until everything is over; gives what the hub's stream holds."""
        fleet = self.fleet
        with crashpoint.ending_with(self._at_point):
            await fleet.rise()
            try:
                for fault in schedule:
                    await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=fault.at_h))
                    self._spawn(self._strike(fault))
                await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=HEALED_H))
                await self._heal()
                await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=OVER_H))
                return await fleet.events()
            finally:
                crashpoint.arm("", {})
                for task in list(self._work):
                    task.cancel()
                await asyncio.gather(*self._work, return_exceptions=True)
                await fleet.lie_down()

    # --- what strikes -------------------------------------------------------------------------------------------------

    async def _strike(self, fault: Fault) -> None:
        pause = timedelta(minutes=fault.lasts_min)
        key = (fault.service, FEDERATION if fault.place == HUB else fault.place)
        match fault.kind:
            case "crash":
                await self._end(key, pause)
            case "crash before write":
                self.doom(key).before = fault.count
            case "crash after write":
                self.doom(key).after = fault.count
            case "crash at point":
                crashpoint.arm(f"{fault.point}:{fault.count}", dict.fromkeys([fault.point], ""))
            case "disk full":
                self.doom(key).full = True
                await self.fleet.clock.sleep(pause)
                self.doom(key).full = False
                # It has ended with its mistake; whoever runs it starts it again.
                await self._end(key, timedelta(seconds=1))
            case "cut off":
                await self._cut_off(fault.place, pause)
            case "rpc cut":
                if fault.place in self.wiring.channels:
                    self.wiring.channels[fault.place].cut()
                    self.wiring.channels[fault.place].heal()
            case "server down":
                await self._server_down(fault.place, pause)
            case "store lost":
                self.wiring.domains[fault.place].wipe()
            case "replay":
                self._replay(fault.place)
            case "nonsense":
                subject = f"windfall.v1.window.opened.{fault.place}"
                self._store(fault.place, Letter(subject, {}, b'{"site": 7}'))
            case "ack lost" | "loss" | "duplicates" | "delay" as kind:
                self.doom(key).said[kind] = fault.count
                await self.fleet.clock.sleep(pause)
                self.doom(key).said.pop(kind, None)
            case _:
                raise ValueError(fault.kind)

    async def _cut_off(self, site: str, pause: timedelta) -> None:
        hub = self.wiring.domains[HUB]
        hub.cut(site)
        if site in self.wiring.channels:
            self.wiring.channels[site].cut()
        await self.fleet.clock.sleep(pause)
        hub.heal(site)
        if site in self.wiring.channels:
            self.wiring.channels[site].heal()

    async def _server_down(self, place: str, pause: timedelta) -> None:
        domain = self.wiring.domains[place]
        domain.reachable = False
        await self.fleet.clock.sleep(pause)
        domain.reachable = True

    def _replay(self, site: str) -> None:
        for letter in reversed(self.wiring.domains[site].letters(EVENTS_STREAM)):
            headers = {key: value for key, value in letter.headers.items() if key != MESSAGE_ID}
            self._store(site, Letter(letter.subject, headers, letter.body))

    def _store(self, site: str, letter: Letter) -> None:
        domain = self.wiring.domains[site]
        if domain.reachable and domain.stream(EVENTS_STREAM) is not None:
            domain.store(letter)

    async def _heal(self) -> None:
        """Nothing strikes from now on, and what is broken is whole."""
        crashpoint.arm("", {})
        for doom in self._dooms.values():
            doom.before = doom.after = None
            doom.full = False
            doom.said.clear()
        for name, domain in self.wiring.domains.items():
            domain.reachable = True
            if name != HUB:
                self.wiring.domains[HUB].heal(name)
        for channel in self.wiring.channels.values():
            channel.heal()

    # --- who dies, and comes back -------------------------------------------------------------------------------------

    def _at_point(self) -> None:
        self.doom(("federation-coordinator", FEDERATION)).die()

    def _died(self, key: Key) -> None:
        self._spawn(self._end(key, timedelta(minutes=self.dice.choice((0.1, 2.0, 9.0)))))

    async def _end(self, key: Key, pause: timedelta) -> None:
        service, whom = key
        if key in self._away:
            return
        self._away.add(key)
        self.deaths[service] += 1
        doom, fleet = self.doom(key), self.fleet
        doom.dead = True
        if service == "site-trainer":
            for node in await fleet.backends[whom].adopt():
                await fleet.backends[whom].kill(node)
                await fleet.backends[whom].wait(node)
            # Whoever is started next is another process; the provisioner does that.
            doom.dead = False
        elif service == "federation-coordinator":
            if ("federation-coordinator", FEDERATION) in fleet.services:
                await fleet.kill_coordinator()
            await fleet.clock.sleep(pause)
            await self._started(doom, fleet.start_coordinator)
        else:
            running = fleet.services.pop((service, whom), None)
            if running is not None:
                await running.kill()
            await fleet.clock.sleep(pause)
            starts = {
                "energy-watcher": fleet.start_watcher,
                "provisioner": fleet.start_provisioner,
                "profiler": fleet.start_profiler,
            }
            await self._started(doom, partial(starts[service], whom))
        self._away.discard(key)

    async def _started(self, doom: Doom, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As whoever runs a service does: again a minute later, when it ends in its first breath."""
        while True:
            doom.dead = False
            try:
                await start()
                return
            except (Crashed, Mistake):
                await self.fleet.clock.sleep(timedelta(minutes=1))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
