"""Local processes: crashes of the provisioner at every line of a start, strangers, strays, and people's mistakes."""

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import psutil
import pytest

from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.process import LOGS_KEPT, ProcessBackend
from windfall.servicekit.errors import ExitCode, Mistake, Transient

STAND_IN = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stand_in.py")))


def lease(token: int = 1) -> Lease:
    at = "2026-01-01T12:00:00Z"
    return Lease.model_validate(
        {
            "lease_id": uuid4(),
            "site": "site-a",
            "window_id": uuid4(),
            "token": token,
            "node": f"site-a-{token}",
            "opened_at": at,
            "requested_at": at,
            "changed_at": at,
        }
    )


def record(folder: Path, lease_id: UUID) -> Path:
    return folder / "nodes" / str(lease_id) / "record.json"


def pid_of(folder: Path, lease_id: UUID) -> int:
    return int(json.loads(record(folder, lease_id).read_text())["pid"])


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    # A control plane that other tests share may be a child of ours as well.
    others = psutil.Process().children(recursive=True)
    yield tmp_path
    backend = ProcessBackend(tmp_path, STAND_IN)
    for node in await backend.adopt():
        await backend.kill(node)
        await backend.wait(node)
    await backend.close()
    mine = psutil.Process().children(recursive=True)
    assert not [child for child in mine if child not in others and child.status() != psutil.STATUS_ZOMBIE]


async def test_a_start_leaves_a_record_and_a_log(folder: Path) -> None:
    backend = ProcessBackend(folder, STAND_IN)
    wanted = lease(3)
    node = await backend.start(wanted, {"PATH": "/bin"})
    assert await backend.ready(node)
    written = json.loads(record(folder, wanted.lease_id).read_text())
    assert (written["token"], written["window_id"]) == (3, str(wanted.window_id))
    assert psutil.Process(written["pid"]).environ()["WINDFALL_LEASE_TOKEN"] == "3"
    # Of its own, on the machine that it shares with its provisioner.
    assert psutil.Process(written["pid"]).environ()["OTEL_EXPORTER_PROMETHEUS_PORT"] == "0"
    assert os.getsid(written["pid"]) == written["pid"]
    await backend.drain(node)
    assert await backend.wait(node) == 0
    assert [path.name for path in record(folder, wanted.lease_id).parent.iterdir()] == ["log"]
    await backend.close()


async def test_a_node_killed_from_outside_is_noticed(folder: Path) -> None:
    backend = ProcessBackend(folder, STAND_IN)
    wanted = lease()
    node = await backend.start(wanted, {})
    os.kill(pid_of(folder, wanted.lease_id), signal.SIGKILL)
    assert await backend.wait(node) == -signal.SIGKILL
    await backend.close()


async def test_a_stubborn_node_goes_when_killed(folder: Path) -> None:
    backend = ProcessBackend(folder, STAND_IN)
    node = await backend.start(lease(), {"WINDFALL_STAND_IN": "stubborn"})
    assert await backend.ready(node)
    await backend.drain(node)
    await backend.kill(node)
    assert await backend.wait(node) == -signal.SIGKILL
    await backend.close()


async def test_what_a_dead_node_left_behind_is_ended(folder: Path, tmp_path: Path) -> None:
    backend = ProcessBackend(folder, STAND_IN)
    child_file = tmp_path / "child"
    node = await backend.start(lease(), {"WINDFALL_STAND_IN": "parent", "CHILD_PID_FILE": str(child_file)})
    assert await backend.ready(node)
    child = psutil.Process(int(child_file.read_text()))
    await backend.kill(node)
    await backend.wait(node)
    child.wait(timeout=60)
    await backend.close()


async def test_an_intent_without_a_pid_is_found_by_its_environment(folder: Path) -> None:
    """The provisioner died between the fork and the record."""
    first = ProcessBackend(folder, STAND_IN)
    wanted = lease(5)
    node = await first.start(wanted, {})
    assert await first.ready(node)
    await first.close()
    path = record(folder, wanted.lease_id)
    pid = pid_of(folder, wanted.lease_id)
    path.write_text(json.dumps({**json.loads(path.read_text()), "pid": None, "start_ticks": None}))

    second = ProcessBackend(folder, STAND_IN)
    assert await second.adopt() == (node,)
    assert pid_of(folder, wanted.lease_id) == pid
    assert await second.ready(node)
    await second.drain(node)
    assert await second.wait(node) == 0
    await second.close()


async def test_a_node_without_a_folder_is_found_by_its_environment(folder: Path) -> None:
    first = ProcessBackend(folder, STAND_IN)
    wanted = lease()
    node = await first.start(wanted, {})
    assert await first.ready(node)
    await first.close()
    for left in record(folder, wanted.lease_id).parent.iterdir():
        left.unlink()
    record(folder, wanted.lease_id).parent.rmdir()
    second = ProcessBackend(folder, STAND_IN)
    assert await second.adopt() == (node,)
    await second.close()


async def test_an_intent_whose_fork_never_came_is_nothing(folder: Path) -> None:
    wanted = lease()
    path = record(folder, wanted.lease_id)
    path.parent.mkdir(parents=True)
    node = Node.of(wanted)
    path.write_text(
        json.dumps(
            {
                "lease_id": str(node.lease_id),
                "window_id": str(node.window_id),
                "token": 1,
                "name": node.name,
                "boot_id": "another boot",
            }
        )
    )
    backend = ProcessBackend(folder, STAND_IN)
    assert await backend.adopt() == ()
    await backend.close()


@pytest.mark.parametrize("field", ["start_ticks", "boot_id"])
async def test_a_stranger_under_an_old_pid_is_left_alone(folder: Path, field: str) -> None:
    stranger = await asyncio.create_subprocess_exec(*STAND_IN, env={"WINDFALL_STAND_IN": "mute"})
    wanted = lease()
    path = record(folder, wanted.lease_id)
    path.parent.mkdir(parents=True)
    ticks = int(Path(f"/proc/{stranger.pid}/stat").read_text().rpartition(")")[2].split()[19])
    written = {
        "lease_id": str(wanted.lease_id),
        "window_id": str(wanted.window_id),
        "token": 1,
        "name": wanted.node,
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "pid": stranger.pid,
        "start_ticks": ticks,
    }
    path.write_text(json.dumps({**written, field: {"start_ticks": ticks - 1, "boot_id": "another boot"}[field]}))
    backend = ProcessBackend(folder, STAND_IN)
    assert await backend.adopt() == ()
    await backend.kill(Node.of(wanted))
    await backend.close()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_another_sites_nodes_are_not_adopted(folder: Path) -> None:
    ours, theirs = ProcessBackend(folder / "a", STAND_IN), ProcessBackend(folder / "b", STAND_IN)
    node = await theirs.start(lease(), {})
    assert await ours.adopt() == ()
    await theirs.kill(node)
    assert await theirs.wait(node) == -9
    await ours.close()
    await theirs.close()


async def test_readiness_after_adoption_is_heard_not_polled(folder: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = tmp_path / "slow.py"
    script.write_text(
        "import os, pathlib, signal\n"
        f"open({str(gate)!r}).read()\n"
        "pathlib.Path(os.environ['WINDFALL_READY_FILE']).touch()\n"
        "os.close(int(os.environ['WINDFALL_READY_FD']))\n"
        "signal.pause()\n"
    )
    command = (sys.executable, "-I", "-S", str(script))
    first = ProcessBackend(folder, command)
    node = await first.start(lease(), {})
    await first.close()
    second = ProcessBackend(folder, command)
    assert await second.adopt() == (node,)
    waiting = asyncio.create_task(second.ready(node))
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.to_thread(gate.write_text, "go")
    assert await waiting
    await second.kill(node)
    await second.wait(node)
    await second.close()


async def test_a_program_that_is_missing_is_a_persons_mistake(folder: Path) -> None:
    backend = ProcessBackend(folder, ("/no/such/program",))
    with pytest.raises(Mistake, match=r"cannot start site-a-1 with '/no/such/program'") as raised:
        await backend.start(lease(), {})
    assert raised.value.exit_code is ExitCode.RESOURCE
    assert "\n" not in str(raised.value)
    assert await backend.adopt() == ()
    await backend.close()


async def test_a_folder_that_is_a_file_is_a_persons_mistake(folder: Path) -> None:
    (folder / "nodes").write_text("")
    backend = ProcessBackend(folder, STAND_IN)
    with pytest.raises(Mistake, match="WINDFALL_STATE_DIR"):
        await backend.start(lease(), {})
    (folder / "nodes").unlink()


async def test_a_machine_without_room_is_asked_again(folder: Path) -> None:
    backend = ProcessBackend(folder, STAND_IN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(Transient, match="Too many open files"):
            await backend.start(lease(), {})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await backend.adopt() == ()


async def test_a_damaged_record_is_named(folder: Path) -> None:
    path = record(folder, uuid4())
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(Mistake, match=r"record\.json is not a record"):
        await ProcessBackend(folder, STAND_IN).adopt()
    path.unlink()


async def test_old_logs_go(folder: Path) -> None:
    for number in range(LOGS_KEPT + 5):
        (folder / "nodes" / str(number)).mkdir(parents=True)
    backend = ProcessBackend(folder, STAND_IN)
    node = await backend.start(lease(), {"WINDFALL_STAND_IN": "broken"})
    await backend.wait(node)
    assert len(list((folder / "nodes").iterdir())) == LOGS_KEPT
    await backend.close()
