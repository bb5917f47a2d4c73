"""Restarts and broken disks: nothing that was accepted is lost."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc

from tests.training_field import FRAME, LONG, SECONDS, Place, flat, message, refused, standing, stepped
from windfall.contracts.events import RoundCompleted
from windfall.federation_coordinator.durable import DRAFT
from windfall.federation_coordinator.federation import Phase
from windfall.lowcomm.layout import digest
from windfall.servicekit.errors import ExitCode


async def test_started_again_in_mid_round_it_goes_on(kind: str, tmp_path: Path) -> None:
    place = Place(kind, tmp_path, LONG)
    async with standing(place):
        one, other = await place.join("site-a"), await place.join("site-b")
        await one.push(1, tokens=2)
        data = message(2)
        await refused(other.send(other.manifest(data), data[: 3 * FRAME]))
        (tmp_path / "models" / "contribution-000000-left-9").write_bytes(b"of no use, but of this round")
    await place.rise()
    try:
        assert (await one.progress(0)).accepted
        async with other.listening():
            assert (await other.opened()).round == 0
            assert (await other.resume(data))[1] == len(data) - 3 * FRAME
            opened = await other.opened()
        assert opened.base_digest == digest(stepped([(flat(1), 2), (flat(2), 100)]))
    finally:
        await place.fall()
    # What a crash left behind of rounds that are over is cleared away at the start; what may still come late is not.
    (tmp_path / "models" / "contribution-000000-left-1").write_bytes(b"left")
    (tmp_path / "models" / "incoming-000000-site-c-1").write_bytes(b"half")
    await place.rise()
    try:
        names = {path.name for path in (tmp_path / "models").iterdir()}
        assert names == {
            "base-000000.safetensors",
            "base-000001.safetensors",
            "incoming-000000-site-c-1",
            "outer-000000-0.f32",
            "outer-000001-0.f32",
        }
    finally:
        await place.fall()


async def test_a_disk_that_is_full_while_merging_ends_the_coordinator_and_loses_nothing(
    kind: str, tmp_path: Path
) -> None:
    place = Place(kind, tmp_path, LONG)
    async with standing(place):
        site = await place.join("site-a")
        (tmp_path / "models" / f"base-000001.safetensors{DRAFT}").symlink_to("/dev/full")
        await site.push(1)
        async with asyncio.timeout(SECONDS):
            await place.stand.stopping.wait()
        assert place.stand.mistake is not None
        assert place.stand.mistake.exit_code is ExitCode.DISK_FULL
        assert place.coordinator.state.phase is Phase.MERGING
    async with standing(place):
        (completed,) = await place.said(RoundCompleted, 1)
        assert completed.model_digest == digest(stepped([(flat(1), 1)]))


async def unreadable(place: Place) -> None:
    """Somebody damages the journal's file behind the coordinator's back."""
    with closing(sqlite3.connect(place.folder / "journal.sqlite", isolation_level=None)) as database:
        database.execute("DROP TABLE outbox")


async def test_a_journal_that_breaks_under_a_call_ends_the_coordinator(place: Place) -> None:
    await unreadable(place)
    code, detail = await refused(place.join("site-a"))
    assert (code, str(place.folder) in detail) == (grpc.StatusCode.UNAVAILABLE, False)
    assert not place.coordinator.state.members, "what was not kept was not decided"
    assert place.stand.mistake is not None
    assert place.stand.mistake.exit_code is ExitCode.RESOURCE


async def test_a_journal_that_breaks_under_a_timer_ends_the_coordinator(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, silence=timedelta(seconds=2))) as place:
        await place.join("site-a")
        await unreadable(place)
        async with asyncio.timeout(SECONDS):
            await place.stand.stopping.wait()
        assert place.stand.mistake is not None
        assert "site-a" in place.coordinator.state.members


async def test_a_disk_that_breaks_under_a_push_ends_the_coordinator_and_says_no_path(place: Place) -> None:
    site = await place.join("site-a")
    (place.folder / "models" / "incoming-000000-site-a-1").mkdir()
    code, detail = await refused(site.push(1))
    assert (code, str(place.folder) in detail) == (grpc.StatusCode.UNAVAILABLE, False)
    assert place.stand.stopping.is_set()
    assert place.stand.mistake is not None
    assert str(place.folder) in str(place.stand.mistake)
