"""A site that has been watched for a window leads the next ones by what it measured."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from windfall.contracts.events import NodeReady, SiteDrained, TrainingStarted, WindowExpected, WindowOpened
from windfall.energy_watcher.testing.site import Site, clock_of, site_at
from windfall.servicekit import telemetry
from windfall.servicekit.testing.virtual import run_virtual


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    telemetry.set_up("energy-watcher", "site-a", None, {})
    return tmp_path


def node(site: Site, window_id: UUID, ready: str, training: str, drained: str) -> list[tuple[str, object]]:
    """What provisioner and trainer say, each with when."""
    who = {"site": "site-a", "window_id": window_id, "lease_token": 1}
    return [
        (
            ready,
            NodeReady(id=uuid4(), at=clock_of(ready), **who, lease_id=uuid4(), node="site-a-1", backend="process"),
        ),
        (training, TrainingStarted(id=uuid4(), at=clock_of(training), **who, federation="demo", round=0)),
        (drained, SiteDrained(id=uuid4(), at=clock_of(drained), **who, federation="demo", delivered=True)),
    ]


async def first_window(site: Site) -> None:
    """The window from 01:00 to 04:00: a start of seven minutes."""
    await site.until("01:02")
    opened = next(event for event in site.said() if isinstance(event, WindowOpened))
    for when, event in node(site, opened.window_id, "01:05", "01:07", "03:58"):
        await site.until(when)
        site.publish(event)  # type: ignore[arg-type]
    await site.until("04:30")


def expected(site: Site) -> list[str]:
    return [f"{event.at:%H:%M} {event.opens_at:%H:%M}" for event in site.said() if isinstance(event, WindowExpected)]


def test_the_next_window_is_expected_by_the_start_that_was_measured(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(payback=5)):
            await first_window(site)
            await site.until("09:30")
        return site

    site = run_virtual(morning())
    # The blip of a quarter of an hour at 07:00 is worth a start that is warm; what is longer than 280 minutes is not.
    assert expected(site) == ["06:53 07:00", "08:53 09:00"]


def test_what_was_measured_survives_a_restart(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(payback=5)):
            await first_window(site)
        async with site.watched(site.settings(payback=5)):
            await site.until("09:30")
        return site

    assert expected(run_virtual(morning())) == ["06:53 07:00", "08:53 09:00"]


def test_a_start_that_no_short_window_pays_back_leaves_it_shut(folder: Path) -> None:
    async def morning() -> list[str]:
        site = site_at(folder, 0)
        async with site.watched(site.settings()):
            await first_window(site)
            await site.until("09:30")
        return [f"{event.at:%H:%M}" for event in site.said() if isinstance(event, WindowOpened)]

    assert run_virtual(morning()) == ["01:00", "09:00"]


def test_who_is_told_to_learns_nothing(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(learn=False, start_up=timedelta(minutes=4), payback=5)):
            await first_window(site)
            await site.until("07:10")
        return site

    assert expected(run_virtual(morning())) == ["06:56 07:00"]


def test_one_start_that_took_hours_leaves_a_site_shut_for_a_day_and_no_longer(folder: Path) -> None:
    trace = folder / "days.csv"
    readings = [clock_of("00:00") + timedelta(minutes=5 * place) for place in range(3 * 288)]
    rows = [f"{at.isoformat()},{50 if 1 <= at.hour < 4 else 400}" for at in readings]
    trace.write_text("\n".join(["point_time,site-a", *rows]))

    async def days() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(trace_file=trace)):
            await site.until("01:02")
            opened = next(event for event in site.said() if isinstance(event, WindowOpened))
            for when, event in node(site, opened.window_id, "03:30", "03:31", "03:58"):
                await site.until(when)
                site.publish(event)  # type: ignore[arg-type]
            await site.clock.sleep_until(clock_of("00:00") + timedelta(days=3))
        return site

    opened = [event.at for event in run_virtual(days()).said() if isinstance(event, WindowOpened)]
    assert [f"{at:%d %H:%M}" for at in opened] == ["01 01:00", "02 01:05", "03 01:00"]


def test_a_node_that_was_ready_while_the_watcher_was_away_was_ready_when_it_says_so(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(payback=5)):
            await site.until("01:02")
            opened = next(event for event in site.said() if isinstance(event, WindowOpened))
        words = node(site, opened.window_id, "01:05", "01:07", "03:58")
        await site.until("04:10")
        for _, event in words:
            site.publish(event)  # type: ignore[arg-type]
        async with site.watched(site.settings(payback=5)):
            await site.until("09:30")
        return site

    assert expected(run_virtual(morning())) == ["06:53 07:00", "08:53 09:00"]
