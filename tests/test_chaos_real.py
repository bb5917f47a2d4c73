"""``make chaos`` in small: one fault on real processes, and what its checker and its report are made of."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos_real import calm_task, killed, report
from tests.chaos_real.disks import damage
from tests.chaos_real.fault import Run
from tests.chaos_real.processes import Part, belonging_to, eventually
from tests.chaos_real.registry import FAULTS, named
from tests.chaos_real.running import Told, run
from windfall.cli.fleet import Program


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_fleet_outlives_its_coordinator() -> None:
    (fault,) = named("coordinator killed")
    said: list[str] = []
    runs: list[Run] = []
    await run([(fault, 0)], Told(said.append, lambda _, one: runs.append(one)))
    assert [one.violations for one in runs] == [()], said
    assert runs[0].recovery_s is not None


def test_faults_are_found_by_how_their_names_begin() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert named("trainer killed, partition 1 s") == (named("trainer killed")[0], named("partition 1 s")[0])
    assert [fault.name for fault in named("coordinator")] == [
        "coordinator killed",
        "coordinator killed at a place",
        "coordinator asleep",
    ]
    assert not any(fault.long for fault in named(""))
    with pytest.raises(LookupError, match="no fault is called 'flood'; there are: trainer killed"):
        named("flood")


def test_a_later_run_of_a_fault_takes_the_place_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "FILE", tmp_path / "chaos.json")
    trainer, coordinator = killed.FAULTS[:2]
    report.kept(
        [report.row(trainer, [Run(trainer.name, 0, 4.0, (), 9.0, 2.0), Run(trainer.name, 1, None, ("I1",), 9.0, 3.0)])]
    )
    report.kept([report.row(coordinator, [Run(coordinator.name, 0, 2.0, (), 9.0, 2.0)])])
    report.kept([report.row(coordinator, [Run(coordinator.name, 0, 2.5, (), 9.0, 2.0)])])
    assert [report.cells(each)[:6] for each in report.read()] == [
        ("trainer killed", "2", "1", "4.00 s", "4.00 s", "8 s"),
        ("coordinator killed", "1", "0", "2.50 s", "2.50 s", "3 s"),
    ]
    assert [one.seed for one in report.earlier(trainer, range(1))] == [1], "of other seeds"
    page = report.page(FAULTS)
    assert page.count("\n") == len(FAULTS) + 1
    assert f"| {FAULTS[-1].name} | {FAULTS[-1].does} | not run |" in page


def test_the_task_of_a_calm_fleet_is_found_like_one_of_another_package(tmp_path: Path) -> None:
    path = calm_task.install(tmp_path)
    ask = (
        "import time, torch, sys; from pathlib import Path; from windfall.tasks.registry import load_task;"
        f"task = load_task({calm_task.NAME!r}, '{{\"context\": 4}}');"
        "Path('text.txt').write_text('surplus ' * 100); began = time.perf_counter();"
        "batch = task.loader(Path(), 1).batch(3, task.model(1));"
        "print(task.name, tuple(batch.inputs.shape), time.perf_counter() - began >= 0.1)"
    )
    environ = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", ask], env=environ, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.decode().strip() == f"{calm_task.NAME} (3, 4) True"


def test_damage_leaves_another_file_by_the_same_name(tmp_path: Path) -> None:
    path = tmp_path / "base"
    path.write_bytes(b"whole" * 100)
    for seed in range(20):
        before = path.read_bytes()
        damage(path, random.Random(seed))
        assert path.read_bytes() != before
        path.write_bytes(before)


async def test_whoever_dies_is_started_again_until_it_is_held(tmp_path: Path) -> None:
    part = Part(Program("one@here", ("sleep", "60"), {"HERE": str(tmp_path)}, tmp_path, tmp_path / "log"))
    part.start()
    first = part.pid
    await part.kill()

    async def another() -> bool:
        return part.pid != first

    await eventually(another, 60)
    assert [pid for pid, _ in belonging_to(tmp_path)] == [part.pid]
    await part.hold()
    assert part.deaths == [-9, -9] and not list(belonging_to(tmp_path))
