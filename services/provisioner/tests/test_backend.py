"""What every backend promises, on local processes and on tasks of the loop."""

import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from windfall.provisioner.backend import Backend
from windfall.provisioner.holdings import Lease
from windfall.provisioner.memory import Life, MemoryBackend
from windfall.provisioner.process import ProcessBackend

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
STAND_IN = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stand_in.py")))


def lease(token: int = 1, lease_id: UUID | None = None) -> Lease:
    return Lease(
        lease_id=lease_id or uuid4(),
        site="site-a",
        window_id=uuid4(),
        token=token,
        node=f"site-a-{token}",
        opened_at=NOON,
        requested_at=NOON,
        changed_at=NOON,
    )


async def stand_in(life: Life) -> int:
    """What ``stand_in.py`` does, as a task."""
    match life.environment.get("STAND_IN", "polite"):
        case "broken":
            return 7
        case "mute":
            pass
        case _:
            life.ready.set()
    await life.drain.wait()
    return 0


@dataclass
class Bench:
    """A backend, and how to come back to what it started after a restart."""

    backend: Backend
    reopen: Callable[[], Backend]

    async def restart(self) -> None:
        await self.backend.close()
        self.backend = self.reopen()


@pytest.fixture(params=["process", "memory"])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    if request.param == "process":
        bench = Bench(ProcessBackend(tmp_path, STAND_IN), lambda: ProcessBackend(tmp_path, STAND_IN))
    else:
        memory = MemoryBackend(stand_in)
        bench = Bench(memory, lambda: memory)
    yield bench
    for node in await bench.backend.adopt():
        await bench.backend.kill(node)
        await bench.backend.wait(node)
    assert not await bench.backend.adopt()
    await bench.backend.close()


async def test_a_node_becomes_ready_and_goes_when_asked(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {})
    assert await bench.backend.ready(node)
    await bench.backend.drain(node)
    await bench.backend.drain(node)
    assert await bench.backend.wait(node) == 0
    assert not await bench.backend.adopt()


async def test_a_lease_has_one_node(bench: Bench) -> None:
    wanted = lease()
    node = await bench.backend.start(wanted, {})
    assert await bench.backend.start(wanted, {}) == node
    assert await bench.backend.adopt() == (node,)


async def test_a_killed_node_says_so(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {})
    await bench.backend.kill(node)
    assert await bench.backend.wait(node) == -9


async def test_a_node_that_dies_first_is_not_ready(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {"STAND_IN": "broken"})
    assert not await bench.backend.ready(node)
    assert await bench.backend.wait(node) == 7


async def test_a_lease_whose_node_died_gets_another(bench: Bench) -> None:
    wanted = lease()
    node = await bench.backend.start(wanted, {})
    assert await bench.backend.ready(node)
    await bench.backend.kill(node)
    await bench.backend.wait(node)
    again = await bench.backend.start(wanted, {"STAND_IN": "mute"})
    await bench.backend.kill(again)
    assert not await bench.backend.ready(again), "the first attempt's readiness is not the second's"
    await bench.backend.wait(again)


async def test_an_absent_node_is_no_error(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {"STAND_IN": "broken"})
    await bench.backend.wait(node)
    await bench.backend.drain(node)
    await bench.backend.kill(node)
    assert await bench.backend.wait(node) is None
    assert not await bench.backend.ready(node)


async def test_the_next_life_adopts_what_runs(bench: Bench) -> None:
    nodes = [await bench.backend.start(lease(token), {}) for token in (1, 2, 3)]
    await bench.backend.kill(nodes[1])
    await bench.backend.wait(nodes[1])
    await bench.restart()
    adopted = await bench.backend.adopt()
    assert set(adopted) == {nodes[0], nodes[2]}
    assert await bench.backend.ready(nodes[0])
    await bench.backend.drain(nodes[0])
    assert await bench.backend.wait(nodes[0]) == 0


async def test_a_node_knows_itself_and_its_line_describes_it(bench: Bench) -> None:
    assert bench.backend.name in ("process", "memory")
    assert "\n" not in bench.backend.describe()
    wanted = lease(token=4)
    node = await bench.backend.start(wanted, {})
    assert (node.lease_id, node.window_id, node.token, node.name) == (wanted.lease_id, wanted.window_id, 4, "site-a-4")
    assert node.environment == {
        "WINDFALL_LEASE_ID": str(wanted.lease_id),
        "WINDFALL_LEASE_TOKEN": "4",
        "WINDFALL_WINDOW_ID": str(wanted.window_id),
        "WINDFALL_NODE": "site-a-4",
    }
    assert os.environ.get("WINDFALL_LEASE_ID") is None
