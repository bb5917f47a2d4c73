"""What a run has lived through, and what its nodes were made of, as the report tells it."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from windfall.cli import hardware_table
from windfall.cli.faults import Fault, rows, survived
from windfall.cli.recording import Said
from windfall.contracts.events import (
    CheckpointDamaged,
    Measured,
    NodeFailed,
    NodeProfiled,
    Recommendation,
    SignalStale,
    SiteLeft,
)
from windfall.contracts.hardware import Accelerator, Hardware, System
from windfall.contracts.message import Message

WHO = "/windfall/test"


def said(recorded: Sequence[Said], kind: type[Message], number: int, **fields: object) -> Said:
    at = recorded[-1].message.at + timedelta(seconds=number)
    return Said(kind(id=UUID(int=10_000 + number), at=at, **fields), WHO)


def test_faults_are_counted_by_kind_and_place(recorded: Sequence[Said]) -> None:
    window = {"window_id": UUID(int=1), "lease_id": UUID(int=2), "lease_token": 1}
    more = [
        said(recorded, SiteLeft, 1, site="site-b", federation="demo", attempt=1, reason="silent"),
        said(recorded, SiteLeft, 2, site="site-c", federation="demo", attempt=1, reason="drained"),
        said(recorded, NodeFailed, 3, site="site-a", reason="no room", **window),
        *(said(recorded, SignalStale, 4 + n, site="site-a", last_point_time=None, limit_s=900) for n in range(2)),
        said(
            recorded,
            CheckpointDamaged,
            6,
            federation="demo",
            round=2,
            part="base",
            remedy="rebuilt",
            base_digest="0" * 64,
            detail="a bit",
        ),
    ]
    found = survived([*recorded, *more], {"profiler@site-a": 0, "nats@hub": 2})
    assert found[0] == Fault("a process died", "nats@hub", 2, "started again; its journal brought it back")
    told = {(fault.what, fault.whom): fault.times for fault in found}
    assert told[("its signal fell silent", "site-a")] == 2
    assert told[("left the federation: silent", "site-b")] == 1
    assert ("left the federation: drained", "site-c") not in told
    assert told[("left in the middle of a round", "site-a")] == 2
    assert ("a checkpoint was damaged: base", "demo", "1", "made again, to the same digest") in rows(found)


def test_a_run_without_trouble_has_none() -> None:
    assert survived([], {"nats@hub": 0}) == ()


def test_hardware_is_that_of_each_sites_last_profile(recorded: Sequence[Said]) -> None:
    def profiled(number: int, cores: int, hardware: Hardware | None) -> Said:
        return said(
            recorded,
            NodeProfiled,
            number,
            site="site-a",
            window_id=UUID(int=1),
            lease_token=number,
            node="node",
            measured=Measured(
                fingerprint="f", cpu_model="Zen", cpu_cores=cores, memory_bytes=1 << 30, matmul_gflops=51.4
            ),
            recommendation=Recommendation(micro_batch=8, local_steps=10, because="so"),
            hardware=hardware,
        )

    made = Hardware(
        accelerators=(Accelerator(vendor="nvidia", model="NVIDIA H100"),),
        system=System(kernel="6.1.0", operating_system="Debian 12"),
    )
    found = hardware_table.nodes([profiled(1, 2, None), profiled(2, 4, made)])
    (row,) = hardware_table.cells(found)
    assert row[:3] == ("site-a", "Zen", "4")
    assert row[4:] == ("NVIDIA H100", "Debian 12, Linux 6.1.0", "51 GFLOPS", "–")
    (bare,) = hardware_table.cells(hardware_table.nodes([profiled(1, 2, None)]))
    assert bare[4:6] == ("none", "–")
