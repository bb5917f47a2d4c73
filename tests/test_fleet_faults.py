"""A fleet's day on virtual time with faults in it, from a seed: nothing is lost, nothing counts twice."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from tests import invariants
from tests.fleet import FEDERATION, Fleet, standing
from tests.wiring import MemoryWiring
from windfall.contracts.envelope import Letter, seal
from windfall.contracts.events import RoundCompleted, SiteDrained, WindowClosed, WindowOpened
from windfall.contracts.message import Message
from windfall.contracts.subjects import DEAD_STREAM, HUB
from windfall.energy.shipped import synthetic_trace
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.testing.virtual import run_virtual

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c")
Fault = Callable[[Fleet, MemoryWiring, str], Awaitable[None]]


async def coordinator_dies(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    await fleet.kill_coordinator()
    await fleet.clock.sleep(timedelta(minutes=3))
    await fleet.start_coordinator()


async def watcher_dies(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    await fleet.services.pop(("energy-watcher", site)).kill()
    await fleet.clock.sleep(timedelta(minutes=12))
    await fleet.start_watcher(site)


async def provisioner_dies(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    await fleet.services.pop(("provisioner", site)).kill()
    await fleet.clock.sleep(timedelta(minutes=4))
    await fleet.start_provisioner(site)


async def profiler_dies(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    await fleet.services.pop(("profiler", site)).kill()
    await fleet.clock.sleep(timedelta(minutes=4))
    await fleet.start_profiler(site)


async def trainer_dies(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    for node in await fleet.backends[site].adopt():
        await fleet.backends[site].kill(node)


async def site_is_cut_off(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    wiring.domains[HUB].cut(site)
    if site in wiring.channels:
        wiring.channels[site].cut()
    await fleet.clock.sleep(timedelta(minutes=7))
    wiring.domains[HUB].heal(site)
    if site in wiring.channels:
        wiring.channels[site].heal()


async def hub_loses_its_store(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    wiring.domains[HUB].wipe()


FAULTS: list[Fault] = [
    coordinator_dies,
    watcher_dies,
    provisioner_dies,
    profiler_dies,
    trainer_dies,
    site_is_cut_off,
]


def day(
    folder: Path, seed: int, faults: list[Fault], count: int, codec: str = "topk-ef"
) -> tuple[list[Message], MemoryWiring]:
    """24 hours, with ``count`` faults at random instants, one at a time."""
    trace = folder / "trace.csv"
    trace.write_text("\n".join(synthetic_trace()) + "\n")
    wiring = MemoryWiring()
    dice = random.Random(seed)

    async def live() -> list[Message]:
        fleet = Fleet(
            folder,
            trace,
            SITES,
            LoopClock(MIDNIGHT),
            wiring,
            seed=seed,
            straggler_grace=timedelta(hours=1),
            rule=Rule.parse(codec),
        )
        async with standing(fleet):
            for instant in sorted(dice.uniform(0.5, 23.0) for _ in range(count)):
                await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=instant))
                await dice.choice(faults)(fleet, wiring, dice.choice(SITES))
            await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=25))
            events = await fleet.events()
            invariants.check_replicas(list({event.id: event for event in events}.values()), fleet.bases)
            return events

    return run_virtual(live()), wiring


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_day_with_one_kind_of_fault(fault: Fault, tmp_path: Path) -> None:
    events, _ = day(tmp_path, seed=1, faults=[fault], count=12)
    invariants.check(events)
    assert sum(isinstance(event, RoundCompleted) for event in events) > 30


CODECS = ("topk-ef", "int4-block", "q2-ef", "dct-momentum", "bf16", "fp32")


@pytest.mark.parametrize(("seed", "codec"), list(enumerate(CODECS)), ids=CODECS)
def test_a_day_with_faults_of_every_kind(seed: int, codec: str, tmp_path: Path) -> None:
    events, _ = day(tmp_path, seed=seed, faults=FAULTS, count=15, codec=codec)
    invariants.check(events)


def test_the_hub_hears_everything_again_after_it_lost_its_store(tmp_path: Path) -> None:
    events, _ = day(tmp_path, seed=3, faults=[hub_loses_its_store], count=3)
    invariants.check(events)
    assert events


async def replayed(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
    """Everything that the site ever said, once more and backwards, under other message ids."""
    for letter in reversed(wiring.domains[site].letters("EVENTS")):
        headers = {key: value for key, value in letter.headers.items() if key != "Nats-Msg-Id"}
        wiring.domains[site].store(Letter(letter.subject, headers, letter.body))


def test_duplicated_and_reordered_messages_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "replayed").mkdir()
    plain, _ = day(tmp_path / "plain", seed=2, faults=[], count=0)
    events, _ = day(tmp_path / "replayed", seed=2, faults=[replayed], count=4)
    once = list({event.id: event for event in events}.values())
    invariants.check(once)
    for kind in (WindowOpened, WindowClosed, SiteDrained):
        assert sum(isinstance(event, kind) for event in once) == sum(isinstance(event, kind) for event in plain)


def test_a_malformed_message_is_buried_and_the_day_goes_on(tmp_path: Path) -> None:
    async def nonsense(fleet: Fleet, wiring: MemoryWiring, site: str) -> None:
        window = WindowOpened(
            id=uuid4(),
            at=fleet.clock.now(),
            site=site,
            window_id=uuid4(),
            intensity_g_per_kwh=1,
            expected_close_at=None,
        )
        letter = seal(window, "/somebody/else")
        wiring.domains[site].store(Letter(letter.subject, letter.headers, b'{"site": 7}'))
        await asyncio.sleep(0)

    events, wiring = day(tmp_path, seed=4, faults=[nonsense], count=3)
    dead = [letter.subject.split(".")[2] for site in SITES for letter in wiring.domains[site].letters(DEAD_STREAM)]
    assert dead.count("provisioner") == dead.count("profiler") == 3
    assert sum(isinstance(event, RoundCompleted) and event.federation == FEDERATION for event in events) > 40
