"""A day of a fleet in which hardly a model travels: every site makes its next base from what the others said."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests import invariants
from tests.fleet import LAYOUT, OF_THREE, Fleet, standing
from tests.wiring import MemoryWiring
from windfall.contracts.events import RoundCompleted, SiteJoined
from windfall.contracts.message import Message
from windfall.energy.shipped import synthetic_trace
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.testing.virtual import run_virtual

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c")


def day(
    folder: Path, codec: str, alone: timedelta | None = None, fragments: int = 1, overlap: bool = False
) -> list[Message]:
    """14 hours under the shipped trace, in which every site comes and goes; after each hour, replicas are compared."""
    trace = folder / "trace.csv"
    trace.write_text("\n".join(synthetic_trace()) + "\n")

    async def live() -> list[Message]:
        rule = Rule.parse(codec)
        fleet = Fleet(
            folder,
            trace,
            SITES,
            LoopClock(MIDNIGHT),
            MemoryWiring(),
            seed=3,
            alone=alone,
            rule=rule,
            fragments=fragments,
            overlap=overlap,
        )
        async with standing(fleet):
            for hour in range(1, 15):
                await fleet.clock.sleep_until(MIDNIGHT + timedelta(hours=hour))
                invariants.check_replicas(await fleet.events(), fleet.bases)
            assert set(fleet.bases) == set(SITES)
            return await fleet.events()

    return run_virtual(live())


@pytest.mark.parametrize("codec", ["topk-ef", "int4-block", "q2-ef", "dct-momentum", "bf16"])
def test_after_every_round_each_site_has_the_coordinators_model_to_the_bit(codec: str, tmp_path: Path) -> None:
    events = day(tmp_path, codec)
    invariants.check_rounds(events)
    invariants.check_members(events)
    rounds = [event for event in events if isinstance(event, RoundCompleted)]
    assert len(rounds) > 15
    assert {site for one in rounds for site in one.contributors} == set(SITES)
    down = sum(one.bytes_down for one in rounds)
    full = sum(len(one.contributors) for one in rounds) * LAYOUT.nbytes
    # The others' messages are shorter than a model; a site's first base is a model.
    assert down < {"topk-ef": 0.25, "dct-momentum": 0.25, "q2-ef": 0.4, "int4-block": 0.5, "bf16": 1.01}[codec] * full


@pytest.mark.parametrize(
    ("codec", "overlap", "alone"),
    [("topk-ef", False, None), ("bf16", True, None), ("int4-block", False, 2)],
    ids=["waits", "overlaps", "often alone"],
)
def test_in_fragments_it_has_so_as_well(codec: str, overlap: bool, alone: int | None, tmp_path: Path) -> None:
    events = day(tmp_path, codec, None if alone is None else timedelta(hours=alone), 3, overlap)
    invariants.check_rounds(events)
    invariants.check_members(events)
    rounds = completed(events)
    assert len(rounds) > (8 if alone else 15)
    assert {site for one in rounds for site in one.contributors} == set(SITES)
    assert overlap or not invariants.undelivered(events)
    # Sites come and go: their first bases are models, and beside those hardly anything travels.
    joined = sum(isinstance(event, SiteJoined) for event in events)
    full = OF_THREE.nbytes * (2 if codec == "int4-block" else 1)
    moved = sum(one.bytes_down for one in rounds) - joined * full
    assert moved < 0.5 * sum(len(one.contributors) for one in rounds) * OF_THREE.nbytes


def test_a_site_that_is_alone_synchronises_with_nobody_and_loses_nothing(tmp_path: Path) -> None:
    events = day(tmp_path, "topk-ef", alone=timedelta(hours=2))
    invariants.check_rounds(events)
    invariants.check_members(events)
    assert not invariants.undelivered(events)
    (tmp_path / "beside").mkdir()
    beside = day(tmp_path / "beside", "topk-ef")
    (rounds, as_many), (tokens, trained) = (
        [len(of) for of in (completed(events), completed(beside))],
        [sum(one.tokens for one in of) for of in (completed(events), completed(beside))],
    )
    # The same training, in fewer rounds.
    assert rounds < 0.6 * as_many
    assert tokens > 0.9 * trained  # what is under way at the end is not in yet


def completed(events: list[Message]) -> list[RoundCompleted]:
    return [event for event in events if isinstance(event, RoundCompleted)]
