"""What discovery says of machines that were recorded (``testing/recordings``), beside what is known of them."""

import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from windfall.contracts.hardware import Hardware
from windfall.profiler.discovery.hardware import Discovered, together
from windfall.profiler.publication.device_attributes import devices
from windfall.profiler.publication.features import feature_file
from windfall.profiler.publication.labels import labels
from windfall.profiler.testing.recorded_machine import RECORDINGS, load, replayed

GOLDEN = Path(__file__).parent / "golden"
MACHINES = sorted(path.stem for path in RECORDINGS.glob("*.json"))
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


async def discovered(name: str, folder: Path) -> Discovered:
    return together([await replayed(load(name), folder / name).gpus().find()])


def same(name: str, text: str) -> None:
    """Golden files are written anew with ``WINDFALL_WRITE_GOLDEN=1``."""
    path = GOLDEN / name
    if os.environ.get("WINDFALL_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "write it anew with WINDFALL_WRITE_GOLDEN=1"


@pytest.mark.parametrize("name", MACHINES)
async def test_a_machine_is_told_in_every_form(tmp_path: Path, name: str) -> None:
    found = await discovered(name, tmp_path)
    same(f"{name}.hardware.json", found.hardware.model_dump_json(indent=1, exclude_none=True) + "\n")
    same(f"{name}.features", feature_file(labels(found.hardware, "0123456789abcdef"), NOON))
    lines = [f"{device['name']} {device['attributes']} {device['capacity']}" for device in devices(found.hardware)]
    same(f"{name}.devices.txt", "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(
    ("name", "gpus", "ways"),
    [
        ("dgx-a100-40gb", {"a100-sxm4-40gb": 8}, {("nvlink", 12, 300.0): 28}),
        ("hgx-h100-80gb", {"h100-sxm5-80gb": 8}, {("nvlink", 18, 478.1): 28}),
        (
            "dgx-station-a100-mig",
            {"a100-sxm4-80gb": 3, "dgx-display": 1},
            {("nvlink", 4, 100.0): 3, ("pcie", None, 15.8): 3},
        ),
        ("pc-2x-rtx-5090", {"rtx-5090-32gb": 2}, {("pcie", None, 31.5): 1}),
        ("mi300x-8-spx", {"mi300x-192gb": 8}, {("xgmi", 1, 64.0): 28}),
        ("mi308x-2-cpx", {"mi308x-192gb": 2}, {("xgmi", 1, None): 1}),
        ("mi210-8-two-hives", {"mi210-64gb": 8}, {("xgmi", 1, 50.0): 12, ("pcie", None, 31.5): 16}),
        ("mixed-a100-mi210", {"a100-pcie-40gb": 1, "mi210-64gb": 1}, {("pcie", None, 31.5): 1}),
        ("none", {}, {}),
    ],
)
async def test_every_gpu_and_the_way_between_every_two(
    tmp_path: Path,
    name: str,
    gpus: dict[str, int],
    ways: dict[tuple[str, int | None, float | None], int],
) -> None:
    found = await discovered(name, tmp_path)
    assert Counter(gpu.canonical_model for gpu in found.hardware.accelerators) == gpus
    assert Counter((way.kind, way.links, way.gb_per_s) for way in found.hardware.interconnects) == ways
    assert len({identity.pci_address for identity in found.local.accelerators}) == sum(gpus.values())
    assert Hardware.model_validate_json(found.hardware.model_dump_json()) == found.hardware


async def test_how_far_apart_two_gpus_are_is_what_nvidia_smi_says(tmp_path: Path) -> None:
    """``nvidia-smi topo -m`` of the DGX A100: pairs that share a switch, and everything else over the sockets."""
    ways = (await discovered("dgx-a100-40gb", tmp_path)).hardware.interconnects
    near = {(way.first, way.second) for way in ways if way.hop == "PXB"}
    assert near == {(0, 1), (2, 3), (4, 5), (6, 7)}
    assert {way.hop for way in ways if (way.first, way.second) not in near} == {"SYS"}


async def test_a_gpu_cut_by_mig_is_one_with_partitions(tmp_path: Path) -> None:
    found = await discovered("dgx-station-a100-mig", tmp_path)
    cut, whole = found.hardware.accelerators[:2]
    assert (cut.partition_mode, len(cut.partitions), {part.profile for part in cut.partitions}) == (
        "mig",
        7,
        {"1g.10gb"},
    )
    assert len(found.local.accelerators[0].partitions) == 7
    assert (whole.partition_mode, whole.partitions) == (None, ())


async def test_a_gpu_cut_by_cpx_is_one_with_partitions(tmp_path: Path) -> None:
    """amdkfd has a node for each of eight partitions and rocm-smi a card; two GPUs stand on the bus."""
    first, second = (await discovered("mi308x-2-cpx", tmp_path)).hardware.accelerators
    assert first.partition_mode == second.partition_mode == "cpx-nps1"
    assert [part.profile for part in first.partitions] == ["cpx"] * 4
    assert sum(part.memory_bytes or 0 for part in first.partitions) == first.memory_bytes


async def test_no_gpu_is_no_mistake(tmp_path: Path) -> None:
    found = await discovered("none", tmp_path)
    assert found.hardware.missing == {}


async def test_the_same_machine_is_said_alike_by_the_kernel_and_by_every_tool(tmp_path: Path) -> None:
    """Whichever of AMD's sources answers, a MI300X is the same MI300X; only what a source knows more of is added."""
    machine = load("mi300x-8-spx")
    by_tool = together([await replayed(machine, tmp_path / "tool").gpus().find()]).hardware
    kernel_alone = together([await replayed({**machine, "tools": {}}, tmp_path / "kernel").gpus().find()]).hardware
    tool_alone = together(
        [await replayed({"pci": machine["pci"], "tools": machine["tools"]}, tmp_path / "no-kfd").gpus().find()]
    ).hardware
    same_parts = {"canonical_model", "architecture", "memory_bytes", "partition_mode", "numa_node", "pcie"}
    for one, other, third in zip(by_tool.accelerators, kernel_alone.accelerators, tool_alone.accelerators, strict=True):
        assert one.model_dump(include=same_parts) == other.model_dump(include=same_parts)
        assert one.model_dump(include=same_parts) == third.model_dump(include=same_parts)
    assert by_tool.interconnects == kernel_alone.interconnects
    assert kernel_alone.missing["amd.software"] == (
        "none of amdsmi, amd-smi or rocm-smi is installed, so the kernel alone was asked"
    )
