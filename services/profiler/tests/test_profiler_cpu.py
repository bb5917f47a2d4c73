"""What the kernel's files say about the host, from files as different kernels write them."""

from pathlib import Path

import psutil
import pytest

from windfall.profiler.cpu import Cpu

MIB = 2**20


def written(root: Path, files: dict[str, str]) -> Cpu:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Cpu(root / "proc", root / "cgroup")


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(
            {
                "proc/self/cgroup": "0::/pod/container\n",
                "cgroup/pod/cpu.max": "50000 100000\n",
                "cgroup/pod/memory.max": "max\n",
                "cgroup/pod/container/cpu.max": "max 100000\n",
                "cgroup/pod/container/memory.max": f"{256 * MIB}\n",
            },
            id="v2-limit-of-an-ancestor",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/../../elsewhere/on/the/host\n",
                "cgroup/cpu.max": "100000 100000\n",
                "cgroup/memory.max": f"{256 * MIB}\n",
            },
            id="v2-inside-a-container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n",
                "cgroup/cpu/job/cpu.cfs_quota_us": "75000\n",
                "cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
                "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "cgroup/memory/job/memory.limit_in_bytes": f"{256 * MIB}\n",
                "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            id="v1",
        ),
    ],
)
async def test_limits_of_cgroups_count(tmp_path: Path, files: dict[str, str]) -> None:
    host = await written(tmp_path, files).host()
    assert host.cpu_cores == 1
    assert host.memory_bytes == 256 * MIB


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({}, id="no-cgroups"),
        pytest.param(
            {"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "max 100000", "cgroup/memory.max": "max"}, id="unlimited"
        ),
        pytest.param({"proc/self/cgroup": "0::/\n", "cgroup/cpu.max": "900000000 100000"}, id="over-what-there-is"),
    ],
)
async def test_without_limits_the_machine_is_ours(tmp_path: Path, files: dict[str, str]) -> None:
    host = await written(tmp_path, files).host()
    assert host.cpu_cores == len(psutil.Process().cpu_affinity() or [])
    assert host.memory_bytes == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        pytest.param("processor\t: 0\nmodel\t\t: 17\nmodel name\t: AMD EPYC 9354\n", "AMD EPYC 9354", id="x86"),
        pytest.param("processor\t: 0\ncpu\t\t: POWER9\n", "POWER9", id="power"),
    ],
)
async def test_the_model_is_named(tmp_path: Path, cpuinfo: str, model: str) -> None:
    host = await written(tmp_path, {"proc/cpuinfo": cpuinfo}).host()
    assert host.cpu_model == model
    assert not host.missing


async def test_a_processor_without_a_name_is_reported(tmp_path: Path) -> None:
    host = await written(tmp_path, {"proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 50.0\n"}).host()
    assert host.cpu_model
    assert "cpu_model" in host.missing
