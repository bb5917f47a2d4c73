"""What each kind of fault does to a world."""

from datetime import timedelta

from tests.chaos.faults import Fault
from tests.chaos.machines import rot
from tests.chaos.world import COORDINATOR, World
from tests.fleet import FEDERATION
from windfall.contracts.envelope import MESSAGE_ID, Letter
from windfall.contracts.subjects import EVENTS_STREAM, HUB

_SLOW_S = 30.0
_SOON = timedelta(seconds=1)


async def strike(world: World, fault: Fault) -> None:
    """Let a fault happen, and pass."""
    pause = timedelta(minutes=fault.lasts_min)
    key = (fault.service, FEDERATION if fault.place == HUB else fault.place)
    match fault.kind:
        case "crash":
            await world.end(key, pause)
        case "crash before write":
            world.doom(key).before = fault.count
        case "crash after write":
            world.doom(key).after = fault.count
        case "crash at await":
            world.doom(key).awaits = fault.count
        case "crash at point":
            world.also_arm(fault.point, fault.count)
        case "disk full":
            world.fill_disk(key)
            await world.fleet.clock.sleep(pause)
            world.doom(key).full = False
            # It has ended with its mistake; whoever runs it starts it again.
            await world.end(key, _SOON)
        case "rot":
            await _rot(world, fault, pause)
        case "rpc cut":
            if fault.place in world.wiring.channels:
                world.wiring.channels[fault.place].cut()
                world.wiring.channels[fault.place].heal()
        case "replay":
            _replay(world, fault.place)
        case "nonsense":
            subject = f"windfall.v1.window.opened.{fault.place}"
            _store(world, fault.place, Letter(subject, {}, b'{"site": 7}'))
        case "store lost":
            world.wiring.domains[fault.place].wipe()
        case _:
            await _last(world, fault, pause)


async def _rot(world: World, fault: Fault, pause: timedelta) -> None:
    # Two damages may well take a person: what the second one hits is what the first is mended with.
    if fault.place == HUB and world.rotten:
        return
    key = COORDINATOR if fault.place == HUB else (fault.service, fault.place)
    if rot(world.folder / ("models" if fault.place == HUB else fault.place), world.dice):
        world.rotten = world.rotten or fault.place == HUB
        await world.end(key, pause)


async def _last(world: World, fault: Fault, pause: timedelta) -> None:
    """What is wrong for a while."""
    place, wiring = fault.place, world.wiring
    sleep = world.fleet.clock.sleep
    match fault.kind:
        case "cut off":
            wiring.domains[HUB].cut(place)
            if place in wiring.channels:
                wiring.channels[place].cut()
            await sleep(pause)
            wiring.domains[HUB].heal(place)
            if place in wiring.channels:
                wiring.channels[place].heal()
        case "server down":
            wiring.domains[place].reachable = False
            await sleep(pause)
            wiring.domains[place].reachable = True
        case "slow link":
            world.weathers[place].late_s = _SLOW_S
            await sleep(pause)
            world.weathers[place].late_s = 0.0
        case "garbled":
            world.weathers[place].garbles = fault.count
            await sleep(pause)
            world.weathers[place].garbles = 0
        case "clock step":
            by = timedelta(minutes=fault.count)
            world.clocks[place].off += by
            await sleep(pause)
            world.clocks[place].off -= by
        case "bad signal":
            world.publishers[place].break_down(fault.point, world.fleet.clock.now())
            await sleep(pause)
            world.publishers[place].mend()
        case "ack lost" | "loss" | "duplicates" | "delay" as kind:
            key = (fault.service, FEDERATION if place == HUB else place)
            world.doom(key).said[kind] = fault.count
            await sleep(pause)
            world.doom(key).said.pop(kind, None)
        case _:
            raise ValueError(fault.kind)


def _replay(world: World, site: str) -> None:
    for letter in reversed(world.wiring.domains[site].letters(EVENTS_STREAM)):
        headers = {key: value for key, value in letter.headers.items() if key != MESSAGE_ID}
        _store(world, site, Letter(letter.subject, headers, letter.body))


def _store(world: World, site: str, letter: Letter) -> None:
    domain = world.wiring.domains[site]
    if domain.reachable and domain.stream(EVENTS_STREAM) is not None:
        domain.store(letter)
