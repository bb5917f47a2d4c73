"""What breaks a simulated fleet, each part by itself."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.chaos.awaits import WHOSE, apart, mortal_tasks
from tests.chaos.machines import MachineClock, rot
from tests.chaos.mortal import Crashed, Doom
from tests.chaos.signals import FaultyProvider, Publisher
from tests.chaos.weather import Weather
from windfall.contracts.events import SignalKind
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import parse_trace
from windfall.energy_watcher.replay import Replay
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.testing.virtual import run_virtual

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_service_dies_at_whichever_step_of_its_tasks_it_is_told() -> None:
    died: list[bool] = []

    async def served(steps: list[str], doom: Doom) -> None:
        WHOSE.set(doom)
        for name in "abcde":
            await asyncio.sleep(1)
            steps.append(name)

    async def live(at: int) -> list[str]:
        doom, steps = Doom(lambda: died.append(True)), list[str]()
        asyncio.get_running_loop().set_task_factory(mortal_tasks)
        doom.awaits = at
        with pytest.raises(Crashed):
            await apart(lambda: served(steps, doom))
        assert doom.dead
        # Whoever started it is none of it.
        await asyncio.sleep(10)
        return steps

    assert [run_virtual(live(at)) for at in (1, 2, 5)] == [[], ["a"], ["a", "b", "c", "d"]]
    assert len(died) == 3


def test_a_clock_that_is_set_forward_wakes_late_and_one_that_is_set_back_never_early() -> None:
    async def woken(by: timedelta) -> timedelta:
        clock = MachineClock(LoopClock(MIDNIGHT))
        asyncio.get_running_loop().call_later(60, lambda: setattr(clock, "off", by))
        await clock.sleep_until(MIDNIGHT + timedelta(minutes=10))
        assert clock.now() >= MIDNIGHT + timedelta(minutes=10)
        return clock.true.now() - MIDNIGHT

    assert run_virtual(woken(timedelta(minutes=5))) == timedelta(minutes=10)
    assert run_virtual(woken(-timedelta(minutes=5))) == timedelta(minutes=15)


def test_one_bit_of_one_file_rots(tmp_path: Path) -> None:
    assert not rot(tmp_path, random.Random(1))
    (tmp_path / "empty").touch()
    (tmp_path / "full").write_bytes(bytes(100))
    (tmp_path / "other").hardlink_to(tmp_path / "full")
    assert rot(tmp_path, random.Random(1))
    found = [(tmp_path / name).read_bytes() for name in ("full", "other")]
    assert sorted(sum(map(int.bit_count, data)) for data in found) == [0, 1]


def test_only_bulk_bytes_are_garbled_and_only_so_many() -> None:
    weather = Weather(random.Random(1))
    message = bytes(1000)
    assert weather.through(message) is message
    weather.garbles = 3
    assert 150 < sum(weather.through(message) != message for _ in range(1000)) < 450
    assert all(weather.through(bytes(40)) == bytes(40) for _ in range(100))


def test_whatever_is_wrong_with_a_publisher_is_what_an_adapter_makes_of_it() -> None:
    trace = parse_trace(list(synthetic_trace()), "site-a")
    now = trace.start + timedelta(hours=3)

    async def asked(wrong: str) -> tuple[Quote, ...]:
        publisher = Publisher()
        provider = FaultyProvider(Replay(trace, SignalKind.MARGINAL, "site-a"), publisher, LoopClock(now))
        if wrong:
            publisher.break_down(wrong, now - timedelta(hours=1))
        # A clock that is wrong makes the publisher say nothing else.
        return tuple(await provider.history(now - timedelta(hours=2), now + timedelta(minutes=30)))

    whole = run_virtual(asked(""))
    assert whole[-1].point_time <= now
    assert max(one.point_time for one in run_virtual(asked("stale"))) <= now - timedelta(hours=1)
    assert run_virtual(asked("ahead"))[-1].point_time == whole[-1].point_time + timedelta(hours=1)
    for wrong, error in {
        "silent": Transient,
        "revoked": Mistake,
        "absurd": Unbelievable,
        "not a number": Unbelievable,
    }.items():
        with pytest.raises(error):
            run_virtual(asked(wrong))
