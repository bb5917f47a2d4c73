"""A coordinator whose newest model is damaged answers while it makes it again."""

import asyncio
import threading
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio

from tests.training_field import LAYOUT, LONG, SECONDS, Place, flat, raw, standing
from windfall.contracts.events import CheckpointDamaged, RoundCompleted
from windfall.federation_coordinator.federation import Phase
from windfall.federation_coordinator.recovery import Recovered, recover
from windfall.federation_coordinator.store import ModelStore
from windfall.servicekit.errors import ExitCode
from windfall.servicekit.journal import Journal


async def trained(place: Place) -> Path:
    """One round of one site; gives the newest base, which nobody has damaged yet."""
    started(place)
    async with standing(place):
        site = await place.join("site-a")
        await site.push(1)
        (completed,) = await place.said(RoundCompleted, 1)
    path = place.folder / "models" / "base-000001.safetensors"
    assert completed.round == 0 and path.exists()
    return path


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def started(place: Place) -> Recovered:
    """What a start does before anything is served."""
    journal = Journal(place.folder / "journal.sqlite", "/test")
    try:
        store = ModelStore(place.folder / "models", LAYOUT, place.rule)
        return recover(store, journal, lambda: flat(0), datetime.now(UTC), place.policy)
    finally:
        journal.close()


async def test_it_admits_and_takes_in_at_once_and_whoever_reads_the_model_waits(kind: str, tmp_path: Path) -> None:
    place, held = Place(kind, tmp_path, LONG), threading.Event()
    path = await trained(place)
    whole = path.read_bytes()
    flip_a_bit(path)
    recovered = started(place)
    assert recovered.again is not None

    def again() -> bool:
        assert held.wait(SECONDS)
        assert recovered.again is not None
        return recovered.again()

    place.again = again
    try:
        async with standing(place):
            site = await place.join("site-a", token=2)
            reading = asyncio.ensure_future(site.pull(recovered.digest))
            await site.push(2)
            # All that the round wants is there: it is merged when what it begins with is.
            assert place.coordinator.state.phase is Phase.MERGING
            assert not reading.done() and path.read_bytes() != whole
            held.set()
            assert len(await place.said(RoundCompleted, 2)) == 2
            assert path.read_bytes() == whole
            # The reader asked for a model that is not the newest any more by now, or got it.
            (answer,) = await asyncio.gather(reading, return_exceptions=True)
            if isinstance(answer, grpc.aio.AioRpcError):
                assert answer.code() is grpc.StatusCode.NOT_FOUND
            else:
                assert answer == whole[-len(raw(flat(0))) :]
    finally:
        held.set()


async def test_what_does_not_come_to_the_same_digest_is_gone_back_from_at_the_next_start(
    kind: str, tmp_path: Path
) -> None:
    place = Place(kind, tmp_path, LONG)
    path = await trained(place)
    before = (path.parent / "base-000000.safetensors").read_bytes()
    flip_a_bit(path)
    assert started(place).again is not None
    place.again = lambda: False
    async with standing(place):
        async with asyncio.timeout(SECONDS):
            await place.stand.stopping.wait()
        assert place.stand.mistake is not None
        assert place.stand.mistake.exit_code is ExitCode.RESOURCE
        assert "not made again to the same digest" in str(place.stand.mistake)
    place.again = None
    recovered = started(place)
    assert recovered.again is None
    async with standing(place):
        said = await place.said(CheckpointDamaged, 2)
        assert [one.remedy for one in said] == ["rebuilt", "fell-back"]
        site = await place.join("site-a", token=2)
        assert await site.pull(recovered.digest) == before[-len(raw(flat(0))) :]


async def test_the_model_of_round_0_is_made_again_from_its_seed_before_anybody_is_answered(tmp_path: Path) -> None:
    place = Place("memory", tmp_path, LONG)
    started(place)
    async with standing(place):
        await place.join("site-a")
    path = tmp_path / "models" / "base-000000.safetensors"
    whole = path.read_bytes()
    flip_a_bit(path)
    assert started(place).again is None
    assert path.read_bytes() == whole
