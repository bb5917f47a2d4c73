"""Processors, network interfaces, storage and system, from trees of files as kernels write them."""

import os
import stat
import sys
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from windfall.contracts.hardware import Nic, NumaNode
from windfall.profiler.child_process import Heard, hear
from windfall.profiler.discovery.nics import Nics
from windfall.profiler.discovery.processor import Processors
from windfall.profiler.discovery.storage import StateFolder
from windfall.profiler.discovery.system import Systems, runtime_version

LONG = timedelta(seconds=60)


def tree(root: Path, files: dict[str, str], links: dict[str, str] | None = None) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    for name, target in (links or {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (root / target).mkdir(parents=True, exist_ok=True)
        path.symlink_to(root / target)
    return root


# --- processors -------------------------------------------------------------------------------------------------------


def cpus(sockets: int, cores: int, threads_per_core: int) -> dict[str, str]:
    files = {}
    total = sockets * cores
    for core in range(total):
        siblings = ",".join(str(core + total * thread) for thread in range(threads_per_core))
        for thread in range(threads_per_core):
            at = f"sys/devices/system/cpu/cpu{core + total * thread}/topology"
            files[f"{at}/physical_package_id"] = str(core // cores)
            files[f"{at}/thread_siblings_list"] = siblings
    files["sys/devices/system/cpu/online"] = f"0-{total * threads_per_core - 1}"
    return files


async def test_two_sockets_with_two_threads_a_core(tmp_path: Path) -> None:
    files = cpus(sockets=2, cores=4, threads_per_core=2) | {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC 9354\nflags\t\t: fpu avx2 avx512f avx512_bf16 fma lm",
        "proc/meminfo": "MemTotal:       1585000000 kB\nMemFree: 1 kB",
        "sys/devices/system/node/node0/cpulist": "0-3,8-11",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:       792000000 kB",
        "sys/devices/system/node/node1/cpulist": "4-7,12-15",
        "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal:       793000000 kB",
    }
    part = await Processors(tree(tmp_path, files)).find()
    found = part.processor
    assert found is not None
    assert (found.model, found.sockets, found.cores, found.threads) == ("AMD EPYC 9354", 2, 8, 16)
    assert found.features == ("avx2", "avx512_bf16", "avx512f", "fma")
    assert found.memory_bytes == 1_585_000_000 * 1024
    assert found.numa_nodes == (
        NumaNode(number=0, threads=8, memory_bytes=792_000_000 * 1024),
        NumaNode(number=1, threads=8, memory_bytes=793_000_000 * 1024),
    )
    assert part.missing == {}


async def test_a_processor_of_arm(tmp_path: Path) -> None:
    files = cpus(sockets=1, cores=2, threads_per_core=1) | {
        "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd sve sve2 svebf16 bf16 i8mm"
    }
    part = await Processors(tree(tmp_path, files)).find()
    assert part.processor is not None
    assert part.processor.features == ("asimd", "bf16", "i8mm", "sve", "sve2", "svebf16")
    assert set(part.missing) == {"processor.model"}


async def test_a_kernel_that_tells_no_topology(tmp_path: Path) -> None:
    part = await Processors(tmp_path).find()
    assert part.processor is not None
    assert (part.processor.sockets, part.processor.cores) == (None, None)
    assert part.processor.threads == psutil.cpu_count()
    assert set(part.missing) == {"processor.model", "processor.sockets", "processor.cores"}


async def test_what_this_process_may_not_see_is_missing_with_its_reason(tmp_path: Path) -> None:
    """Kernel files that are hidden from a container are no machine without sockets, interfaces and file systems."""
    nics = await Nics(LONG, tmp_path).find()
    assert nics.missing == {"nics": f"the kernel tells no interface in {tmp_path / 'sys/class/net'}"}
    system = await Systems(LONG, tmp_path, "", {}).find()
    assert system.missing == {"system.operating_system": f"no name of one in {tmp_path / 'etc/os-release'}"}
    hidden = tmp_path / "mounts"
    storage = await StateFolder(tmp_path, LONG, mounts=hidden).find()
    assert storage.missing == {"storage.filesystem": f"{tmp_path} lies below no mount in {hidden}"}
    assert storage.storage is not None and storage.storage.free_bytes


# --- network ----------------------------------------------------------------------------------------------------------

MLX = "sys/devices/pci0000:00/0000:00:01.0/0000:0c:00.0"
ROCE = "sys/devices/pci0000:00/0000:00:02.0/0000:31:00.0"
PLAIN = "sys/devices/pci0000:00/0000:00:03.0/0000:41:00.0"


async def test_interfaces_and_their_rdma(tmp_path: Path) -> None:
    """InfiniBand without an interface of its own, RoCE, Ethernet that is down, and a bridge that is no device's."""
    files = {
        f"{MLX}/numa_node": "1",
        f"{ROCE}/numa_node": "0",
        f"{PLAIN}/numa_node": "-1",
        "sys/class/infiniband/mlx5_0/node_type": "1: CA",
        "sys/class/infiniband/mlx5_0/ports/1/link_layer": "InfiniBand",
        "sys/class/infiniband/mlx5_0/ports/1/state": "4: ACTIVE",
        "sys/class/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)",
        "sys/class/infiniband/rocep49s0/node_type": "1: CA",
        "sys/class/infiniband/rocep49s0/ports/1/link_layer": "Ethernet",
        "sys/class/net/ens49np0/operstate": "up",
        "sys/class/net/ens49np0/speed": "100000",
        "sys/class/net/eno1/operstate": "down",
        "sys/class/net/eno1/speed": "-1",
        "sys/class/net/br0/operstate": "up",
        "sys/class/net/br0/speed": "10000",
    }
    links = {
        "sys/class/infiniband/mlx5_0/device": MLX,
        "sys/class/infiniband/rocep49s0/device": ROCE,
        "sys/class/net/ens49np0/device": ROCE,
        "sys/class/net/eno1/device": PLAIN,
        f"{MLX}/driver": "sys/bus/pci/drivers/mlx5_core",
        f"{ROCE}/driver": "sys/bus/pci/drivers/bnxt_en",
        f"{PLAIN}/driver": "sys/bus/pci/drivers/igb",
    }
    part = await Nics(LONG, tree(tmp_path, files, links)).find()
    assert dict(zip(part.nic_names, part.nics, strict=True)) == {
        "eno1": Nic(up=False, driver="igb"),
        "ens49np0": Nic(up=True, speed_mbit_per_s=100_000, rdma="roce", driver="bnxt_en", numa_node=0),
        "mlx5_0": Nic(up=True, speed_mbit_per_s=400_000, rdma="infiniband", driver="mlx5_core", numa_node=1),
    }
    assert part.missing == {}


async def test_a_card_of_iwarp(tmp_path: Path) -> None:
    files = {"sys/class/infiniband/iw0/node_type": "4: RNIC", "sys/class/infiniband/iw0/ports/1/state": "1: DOWN"}
    part = await Nics(LONG, tree(tmp_path, files, {"sys/class/infiniband/iw0/device": PLAIN})).find()
    assert part.nics == (Nic(up=False, rdma="iwarp"),)


async def test_a_driver_that_hangs_over_its_speed(tmp_path: Path) -> None:
    files = {"sys/class/net/eth0/operstate": "up"}
    root = tree(tmp_path, files, {"sys/class/net/eth0/device": PLAIN})
    os.mkfifo(root / "sys/class/net/eth0/speed")
    part = await Nics(timedelta(seconds=5), root).find()
    assert part.nics == (Nic(up=True),)
    assert part.missing == {"nics": "the kernel did not answer within 5 s while sys/class/net/eth0/speed was read"}


# --- storage ----------------------------------------------------------------------------------------------------------


async def test_storage_is_measured_and_nothing_of_it_stays(tmp_path: Path) -> None:
    part = await StateFolder(tmp_path, LONG).find()
    found = part.storage
    assert found is not None
    assert part.missing == {}
    assert found.fsync_ms and found.write_mb_per_s and found.read_mb_per_s
    assert found.filesystem
    assert 0 < (found.free_bytes or 0) <= (found.total_bytes or 0)
    assert list(tmp_path.iterdir()) == []


def python_with(*limits: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", f'{"; ".join(limits)}; exec {sys.executable} -I -S "$@"', "sh")


async def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """A limit on the size of files refuses to write as a full disk does."""
    part = await StateFolder(tmp_path, LONG, python=python_with("ulimit -f 0")).find()
    assert part.storage is not None
    assert part.storage.free_bytes is not None, "what can be told is told"
    assert part.missing["storage.fsync_ms"] == f"{tmp_path}: File too large"
    assert part.storage.fsync_ms is None


async def test_a_full_disk(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mounted = f"mount -t tmpfs -o size=64k tmpfs {full} && head -c 100000 /dev/zero > {full}/rest 2>/dev/null"
    tried = await hear(["unshare", "-m", "sh", "-c", f"{mounted}; test -e {full}/rest"], LONG)
    if tried.why:
        pytest.skip("only root can mount a small disk here")
    python = ("unshare", "-m", "sh", "-c", f'{mounted}; exec {sys.executable} -I -S "$@"', "sh")
    part = await StateFolder(full, LONG, python=python).find()
    assert part.missing["storage.fsync_ms"] == f"{full}: No space left on device"


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    part = await StateFolder(tmp_path / "gone", LONG).find()
    assert part.storage is None
    assert part.missing == {"storage": f"{tmp_path / 'gone'} cannot be looked at: No such file or directory"}


async def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    part = await StateFolder(tmp_path, LONG).find()
    assert part.missing["storage.fsync_ms"].endswith("nothing can be written there: Permission denied")


async def test_a_disk_that_hangs(tmp_path: Path) -> None:
    part = await StateFolder(tmp_path, timedelta(seconds=1), python=python_with("sleep 600")).find()
    assert part.storage is None
    assert part.missing == {"storage": f"the storage of {tmp_path} did not answer within 1 s"}


# --- system -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("containerd github.com/containerd/containerd v1.7.22 7f7fdf5fed64eb6a7caf99b3e12efcf9d60e311c", "1.7.22"),
        ("Docker version 27.3.1, build ce12230", "27.3.1"),
        ("podman version 4.9.3", "4.9.3"),
        ("crio version 1.30.4\nVersion:        1.30.4", "1.30.4"),
        ("apptainer version 1.3.4-1.el9", "1.3.4-1.el9"),
        ("NVIDIA Container Runtime version 1.16.2\ncommit: a5a5833c14a15fd9c86bcece85d5ec6621b65652", "1.16.2"),
        ("no number here", None),
    ],
)
def test_versions_of_container_runtimes(line: str, version: str | None) -> None:
    assert runtime_version(Heard(line + "\n")) == version


async def test_runtimes_that_answer_and_one_that_does_not(tmp_path: Path) -> None:
    for name, text in {"podman": "echo podman version 4.9.3", "docker": "exec sleep 600"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "os-release").write_text('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    part = await Systems(timedelta(seconds=5), tmp_path, f"{tmp_path}:/bin", {}).find()
    assert part.system is not None
    assert part.system.container_runtimes == {"podman": "4.9.3"}
    assert part.missing == {
        "system.container_runtimes.docker": f"{tmp_path / 'docker'} did not answer within 5 s",
    }
    assert part.system.operating_system == "Debian GNU/Linux 12 (bookworm)"
    assert part.system.kernel


@pytest.mark.parametrize(
    ("files", "environment", "container"),
    [
        ({}, {}, None),
        ({"run/.containerenv": ""}, {}, "podman"),
        ({".dockerenv": ""}, {}, "docker"),
        ({"proc/self/cgroup": "0::/system.slice/containerd.service"}, {}, "containerd"),
        ({"proc/self/cgroup": "0::/kubepods.slice/kubepods-pod1"}, {}, "kubernetes"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
    ],
)
async def test_what_contains_this_process(
    tmp_path: Path, files: dict[str, str], environment: dict[str, str], container: str | None
) -> None:
    part = await Systems(LONG, tree(tmp_path, files), "", environment).find()
    assert part.system is not None
    assert part.system.container == container
