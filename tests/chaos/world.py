"""A fleet that lives through a schedule: who dies, and who brings it back."""

import asyncio
import errno
import hashlib
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import grpc.aio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.chaos.awaits import WHOSE, apart, mortal_tasks
from tests.chaos.faults import ENDS_H, SITES, Fault
from tests.chaos.machines import MachineClock
from tests.chaos.mortal import Crashed, Doom, FaultyBus, MortalJournal
from tests.chaos.signals import FaultyProvider, Publisher
from tests.chaos.weather import FaultyChannel, Weather
from tests.fleet import FEDERATION, Fleet
from tests.wiring import MemoryWiring
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB, StreamSpec
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.site_key import KEY_FILE
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.profiler.links import Cadence
from windfall.servicekit import crashpoint
from windfall.servicekit.bus import Bus
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_rpc import MemoryServer
from windfall.site_trainer.coordinator import Membership
from windfall.site_trainer.engine import Engine

MIDNIGHT: Final = datetime(2026, 1, 1, tzinfo=UTC)
HEALED_H: Final = ENDS_H + 0.6
OVER_H: Final = 5.75
"""All windows are over by then, and everybody has had the time to say so."""
_CLEAN_H: Final = {
    "site-a": ((0.0, 1.0), (1.33, 2.33), (2.66, 4.0)),
    "site-b": ((0.5, 1.66), (2.0, 3.0), (3.33, 4.33)),
}
_PER_HOUR: Final = 6
"""Values of a signal."""
_STEP: Final = timedelta(minutes=4)
_WRITTEN: Final = "file.written"
"""Where a full disk refuses the coordinator's files."""
Key = tuple[str, str]
"""A service and whom it serves."""
COORDINATOR: Final[Key] = ("federation-coordinator", FEDERATION)


def write_trace(path: Path) -> None:
    """Clean power for an hour or two at a time, at the two sites in turn and together."""
    lines = ["point_time," + ",".join(SITES)]
    for number in range(int(OVER_H * _PER_HOUR) + 2 * _PER_HOUR):
        hour = number / _PER_HOUR
        values = ["20" if any(begin <= hour < end for begin, end in _CLEAN_H[site]) else "400" for site in SITES]
        lines.append(f"{(MIDNIGHT + timedelta(hours=hour)).isoformat()},{','.join(values)}")
    path.write_text("\n".join(lines) + "\n")


def give_key(folder: Path, seed: int, number: int) -> None:
    """A site's own key, drawn from the seed: a drawn one signs the same entries each time."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    folder.mkdir()
    (folder / KEY_FILE).write_bytes(key.private_bytes(*form))


class FaultyServer(MemoryServer):
    """The coordinator's: whatever serves a call is the coordinator's code, whoever called."""

    def __init__(self, doom: Callable[[], Doom]) -> None:
        super().__init__()
        self._doom = doom

    def handler(self, method: str) -> Any:
        WHOSE.set(self._doom())
        return super().handler(method)


class FaultyWiring(MemoryWiring):
    """The doubles, with buses and links that fail."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world
        self.server = FaultyServer(partial(world.doom, COORDINATOR))

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

    def channel(self, site: str) -> grpc.aio.Channel:
        channel = self.channels[site] = FaultyChannel(self.server, self._world.weathers[site])
        return cast(grpc.aio.Channel, cast(Any, channel))


_SMALL: Final = Layout((TensorSpec("point", (200,)), TensorSpec("seen", (24,), exact=True)))


class FaultyFleet(Fleet):
    """A fleet whose services are each under a fate of their own, and whose model is small."""

    doom: Callable[[Key], Doom]

    def _stand(self, service: str, whom: str, domain: str, streams: tuple[StreamSpec, ...]) -> Stand:
        WHOSE.set(self.doom((service, whom)))
        return super()._stand(service, whom, domain, streams)

    @property
    def layout(self) -> Layout:
        return _SMALL

    def _engine(self, site: str, membership: Membership) -> Engine:
        engine = super()._engine(site, membership)
        doom, write = self.doom(("site-trainer", site)), engine.snapshot

        def snapshot() -> Callable[[Path], None]:
            kept = write()

            def written(path: Path) -> None:
                if doom.full:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                kept(path)

            return written

        engine.snapshot = snapshot  # type: ignore[method-assign]
        return engine


class World:
    """One run."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.folder = folder
        self.dooms: dict[Key, Doom] = {}
        self._away: set[Key] = set()
        self._work: set[asyncio.Task[None]] = set()
        self._points: dict[str, int] = {}
        self.deaths: Counter[str] = Counter()
        self.rotten = False
        """Something on the hub's disk is not what was written."""
        self.weathers = {site: Weather(self.dice) for site in SITES}
        self.publishers = {site: Publisher() for site in SITES}
        self.wiring = FaultyWiring(self)
        for number, site in enumerate(SITES):
            give_key(folder / f"watcher@{site}", seed, number)
        trace = folder / "trace.csv"
        write_trace(trace)
        true = LoopClock(MIDNIGHT)
        self.clocks = {domain: MachineClock(true) for domain in (HUB, *SITES)}
        self.fleet = FaultyFleet(
            folder,
            trace,
            SITES,
            true,
            self.wiring,
            seed=seed,
            straggler_grace=timedelta(minutes=30),
            step=_STEP,
            heartbeat=timedelta(minutes=1),
            links=Cadence(echo=timedelta(minutes=5)),
            horizon=timedelta(hours=3),
            # What starts have come to take in the storm must not keep the windows shut in which all goes on.
            payback=0.0,
            make_journal=self._journal,
            clocks=dict(self.clocks),
            provided=self._provided,
        )
        self.fleet.doom = self.doom

    def doom(self, key: Key) -> Doom:
        return self.dooms.setdefault(key, Doom(partial(self._died, key)))

    def _journal(self, service: str, whom: str) -> Journal:
        return MortalJournal(f"/windfall/{service}/{whom}", self.doom((service, whom)))

    def _provided(self, site: str, provider: Provider) -> Provider:
        return FaultyProvider(provider, self.publishers[site], self.fleet.clock)

    async def live(
        self, schedule: Sequence[Fault], strike: Callable[["World", Fault], Coroutine[Any, Any, None]]
    ) -> list[Message]:
        """From midnight until everything is over; gives what the hub's stream holds."""
        fleet = self.fleet
        if any(fault.kind == "crash at await" for fault in schedule):
            asyncio.get_running_loop().set_task_factory(mortal_tasks)
        with crashpoint.ending_with(self._at_point):
            await apart(fleet.rise)
            try:
                for fault in schedule:
                    await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=fault.at_h))
                    self._spawn(strike(self, fault))
                await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=HEALED_H))
                await self._heal()
                await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=OVER_H))
                return await fleet.events()
            finally:
                self.arm()
                for task in list(self._work):
                    task.cancel()
                await asyncio.gather(*self._work, return_exceptions=True)
                await fleet.lie_down()

    def arm(self, **points: int) -> None:
        """Let whoever comes by these places meet its fate; none arms none."""
        self._points = points
        text = ",".join(f"{point}:{count}" for point, count in points.items())
        crashpoint.arm(text, dict.fromkeys(points, ""))

    def also_arm(self, point: str, count: int = 1) -> None:
        self.arm(**{**self._points, point: count})

    async def _heal(self) -> None:
        """Nothing strikes from now on, and what is broken is whole."""
        self.arm()
        for doom in self.dooms.values():
            doom.spare()
        for clock in self.clocks.values():
            clock.off = timedelta()
        for publisher in self.publishers.values():
            publisher.mend()
        for weather in self.weathers.values():
            weather.clear()
        for name, domain in self.wiring.domains.items():
            domain.reachable = True
            if name != HUB:
                self.wiring.domains[HUB].heal(name)
        for channel in self.wiring.channels.values():
            channel.heal()

    # --- who dies, and comes back -------------------------------------------------------------------------------------

    def _at_point(self) -> None:
        doom = WHOSE.get()
        if doom is None:
            return
        if doom.full:
            # As long as it is: the place is armed anew.
            self.also_arm(_WRITTEN)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        doom.die()

    def fill_disk(self, key: Key) -> None:
        self.doom(key).full = True
        if key == COORDINATOR:
            self.also_arm(_WRITTEN)

    def _died(self, key: Key) -> None:
        self._spawn(self.end(key, timedelta(minutes=self.dice.choice((0.1, 2.0, 9.0)))))

    async def end(self, key: Key, pause: timedelta) -> None:
        """A service dies, and is started again after a pause."""
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
        else:
            starts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
                "federation-coordinator": fleet.start_coordinator,
                "energy-watcher": partial(fleet.start_watcher, whom),
                "provisioner": partial(fleet.start_provisioner, whom),
                "profiler": partial(fleet.start_profiler, whom),
            }
            await self._cut(key)
            await fleet.clock.sleep(pause)
            await self._started(key, starts[service])
        self._away.discard(key)

    async def _cut(self, key: Key) -> None:
        """Nothing of a process goes on."""
        fleet = self.fleet
        if key not in fleet.services:
            return
        if key == COORDINATOR:
            await fleet.kill_coordinator()
        else:
            await fleet.services.pop(key).kill()

    async def _started(self, key: Key, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As whoever runs a service does: again a minute later, when it ends in its first breath, or dies while it
        waits for its server."""
        doom = self.doom(key)
        while True:
            doom.dead = False
            with suppress(Crashed, Mistake):
                await apart(start)
                if not doom.dead:
                    return
                await self._cut(key)
            await self.fleet.clock.sleep(timedelta(minutes=1))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Whoever causes it, this is nobody's code."""
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._work.add(task)
        task.add_done_callback(self._work.discard)
