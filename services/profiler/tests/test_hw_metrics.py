"""Devices under OpenTelemetry's names: the table, and what a collector gets."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import opentelemetry.semconv._incubating.metrics.hw_metrics as conventions
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from windfall.profiler.hw import dcgm
from windfall.profiler.hw.counted import Counted
from windfall.profiler.hw.mapping import TABLE, told
from windfall.profiler.hw.telemetry import INSTRUMENTS, Child, counters, watch, where_counted
from windfall.profiler.testing.recorded_machine import load, replayed
from windfall.servicekit import metrics
from windfall.servicekit.instruments import ALL

EXPORTED = """# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).
# TYPE DCGM_FI_DEV_GPU_UTIL gauge
DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1",pci_bus_id="00000000:1B:00.0",device="nvidia0",modelName="NVIDIA H100"} 97
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-1",GPU_I_PROFILE="1g.10gb"} 1000
DCGM_FI_DEV_FB_USED{gpu="0",UUID="GPU-1",GPU_I_PROFILE="2g.20gb"} 1000
DCGM_FI_DEV_FB_FREE{gpu="0",UUID="GPU-1"} 2000
DCGM_FI_DEV_POWER_USAGE{gpu="1",UUID="GPU-2"} 612.5
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{gpu="1",UUID="GPU-2"} 5000
DCGM_FI_DEV_XID_ERRORS{gpu="1",UUID="GPU-2"} NaN
other_metric{gpu="0"} 1
"""


def test_every_name_is_one_of_the_conventions() -> None:
    known = {value for name, value in vars(conventions).items() if name.startswith("HW_")}
    ours = {one.name for one in ALL if one.name.startswith("hw.")}
    assert ours == {one.name for one in INSTRUMENTS}
    assert ours <= known


def test_a_row_has_no_name_twice_and_names_its_attributes() -> None:
    for column in ("nvml", "dcgm", "amdsmi", "powercap"):
        names = [source.name for row in TABLE if (source := getattr(row, column)) is not None]
        assert len(names) == len(set(names))
    for row in TABLE:
        assert row.attributes.keys() <= set(row.instrument.attributes)


def by_name(device: str, values: dict[str, float]) -> dict[str, float]:
    return {
        " ".join((one.name, *(attributes[name] for name in sorted(attributes) if not name.startswith("hw.i")))): value
        for one, value, attributes in told(device, values)
    }


@pytest.mark.parametrize(
    ("device", "values", "shown"),
    [
        (
            "nvidia.3",
            {
                "nvmlDeviceGetPowerUsage": 71_500,
                "nvmlDeviceGetMemoryInfo.used": 20.0,
                "nvmlDeviceGetMemoryInfo.total": 80.0,
                "nvmlDeviceGetTotalEccErrors.uncorrected": 2,
            },
            {
                "hw.power gpu": 71.5,
                "hw.gpu.memory.usage": 20.0,
                "hw.gpu.memory.limit": 80.0,
                "hw.gpu.memory.utilization": 0.25,
                "hw.errors ecc-uncorrected gpu": 2,
                "hw.status ok gpu": 1.0,
                "hw.status failed gpu": 0.0,
            },
        ),
        (
            "amd.0",
            {
                "amdsmi_get_power_info.current_socket_power": 140.0,
                "amdsmi_get_power_info.average_socket_power": 120.0,
                "amdsmi_get_gpu_activity.gfx_activity": 50,
                "amdsmi_get_energy_count.energy_accumulator_uj": 3e6,
            },
            {
                "hw.power gpu": 140.0,
                "hw.gpu.utilization": 0.5,
                "hw.energy gpu": 3.0,
                "hw.status ok gpu": 1.0,
                "hw.status failed gpu": 0.0,
            },
        ),
        (
            "cpu.0",
            {"energy_uj": 5e6, "max_energy_range_uj": 2.6e11},
            {"hw.energy cpu": 5.0, "hw.status cpu ok": 1.0, "hw.status cpu failed": 0.0},
        ),
    ],
)
def test_what_vendors_count_is_told_in_one_way(device: str, values: dict[str, float], shown: dict[str, float]) -> None:
    found = by_name(device, values)
    assert {" ".join([n.split()[0], *sorted(n.split()[1:])]): v for n, v in found.items()} == {
        " ".join([n.split()[0], *sorted(n.split()[1:])]): v for n, v in shown.items()
    }


def test_what_an_exporter_shows_is_read() -> None:
    assert dcgm.parse(EXPORTED) == {
        "dcgm.0": {
            "DCGM_FI_DEV_GPU_UTIL": 97.0,
            "DCGM_FI_DEV_FB_USED": 2000.0,
            "DCGM_FI_DEV_FB_FREE": 2000.0,
            "DCGM_FI_DEV_FB_TOTAL": 4000.0,
        },
        "dcgm.1": {"DCGM_FI_DEV_POWER_USAGE": 612.5, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 5000.0},
    }


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(EXPORTED.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a test prints nothing."""


@contextmanager
def exporter() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/metrics"
        server.shutdown()
        serving.join()


def test_an_exporter_is_asked_and_one_that_is_away_is_said() -> None:
    with exporter() as url:
        assert counters(url)().devices.keys() == {"dcgm.0", "dcgm.1"}
    assert "dcgm" in counters(url)().missing


def collected(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], float]]]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: [(dict(point.attributes or {}), point.value) for point in metric.data.data_points]  # type: ignore[union-attr]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


class Asked:
    """Counts how often it was asked, and answers in turn."""

    def __init__(self, *answers: Counted) -> None:
        self.answers = list(answers)
        self.times = 0

    def __call__(self) -> Counted:
        self.times += 1
        return self.answers[min(self.times, len(self.answers)) - 1]


def test_one_collection_is_one_reading() -> None:
    reader = InMemoryMetricReader()
    source = metrics.provider("profiler", "site-a", [reader])
    asked = Asked(Counted(devices={"nvidia.0": {"nvmlDeviceGetPowerUsage": 70_000, "nvmlDeviceGetTemperature": 40}}))
    watch("site-a", asked, source)
    found = collected(reader)
    source.shutdown()
    assert found["hw.power"] == [({"windfall.site": "site-a", "hw.id": "gpu0", "hw.type": "gpu"}, 70.0)]
    assert found["hw.temperature"][0][1] == 40.0
    assert asked.times == 1


def test_a_device_that_was_there_and_is_not_has_failed() -> None:
    there = Counted(devices={"nvidia.0": {}, "nvidia.1": {}})
    lost = Counted(devices={"nvidia.0": {}}, lost={"nvidia.1": "GPU is lost"})
    now = [0.0]
    from windfall.profiler.hw.telemetry import Watch
    from windfall.servicekit.instruments import HW_STATUS

    watched = Watch("site-a", Asked(there, lost, Counted(missing={"nvidia": "gone"})), lambda: now[0])

    def states() -> dict[str, str]:
        now[0] += 10
        return {of["hw.id"]: of["hw.state"] for value, of in watched.values(HW_STATUS) if value}

    assert states() == {"gpu0": "ok", "gpu1": "ok"}
    assert states() == {"gpu0": "ok", "gpu1": "failed"}
    assert states() == {"gpu0": "failed", "gpu1": "failed"}


def test_the_child_reads_recorded_machines(tmp_path: Path) -> None:
    machine = load("mixed-a100-mi210")
    machine["nvml"]["devices"][0] |= {
        "power_mw": 60_000,
        "energy_mj": 7_000,
        "utilization": 12,
        "temperature_c": 33,
        "pcie_tx_bytes": 5,
        "pcie_rx_bytes": 6,
        "pcie_replays": 0,
    }
    machine["amdsmi"][0] |= {
        "activity": {"gfx_activity": 40, "mm_activity": "N/A"},
        "power_info": {"current_socket_power": "N/A", "average_socket_power": 44},
        "energy_count": {"energy_accumulator": 1000, "counter_resolution": 15.3, "timestamp": 1},
        "hotspot_c": 51,
        "vram_usage": {"vram_total": 65520, "vram_used": 10},
    }
    there = replayed(machine, tmp_path / "machine")
    found = Child(timedelta(seconds=60), environment=there.environment, root=there.root)()
    assert found.missing == {}
    nvidia, amd = by_name("nvidia.0", found.devices["nvidia.0"]), by_name("amd.0", found.devices["amd.0"])
    assert nvidia["hw.power gpu"] == 60.0
    assert nvidia["hw.energy gpu"] >= 7.0
    assert nvidia["hw.gpu.io receive"] == 6
    assert amd["hw.power gpu"] == 44.0
    assert amd["hw.temperature gpu"] == 51.0
    assert amd["hw.energy gpu"] == pytest.approx(0.0153)


@pytest.mark.parametrize(
    ("path", "reads"),
    [("dev/nvidiactl", 1), ("dev/kfd", 1), ("sys/class/powercap/intel-rapl:0", 1), ("sys/class/powercap/dtpm", 0)],
)
def test_no_process_is_started_where_nothing_counts(path: str, reads: int, tmp_path: Path) -> None:
    there = tmp_path / path
    there.parent.mkdir(parents=True)
    there.touch()
    asked: list[Counted] = []

    def read() -> Counted:
        asked.append(Counted(lost={"nvidia.0": "it fell off the bus"}))
        return asked[-1]

    found = where_counted(read, tmp_path)
    assert len(asked) == reads
    assert (found in asked) == bool(reads)
    assert reads or (not found.devices and not found.missing)


def test_a_driver_that_hangs_is_asked_once(tmp_path: Path) -> None:
    machine = load("hgx-h100-80gb")
    machine["nvml"]["init"] = "hang"
    there = replayed(machine, tmp_path / "machine")
    child = Child(timedelta(milliseconds=500), environment=there.environment, root=there.root)
    assert child().missing == {"counters": "no answer within 0.5 s"}
    assert child._hanging is not None
    child._hanging.wait()
    assert child._hanging.stdout is not None
    child._hanging.stdout.close()
