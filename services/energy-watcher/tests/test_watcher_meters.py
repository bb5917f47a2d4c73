"""Meters: NVIDIA's, the kernel's, and whatever Prometheus scrapes."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from windfall.energy.meter import Reading
from windfall.energy_watcher import meter as meters
from windfall.energy_watcher.ledger_settings import BookkeeperSettings
from windfall.energy_watcher.meter import Meter, meter_of
from windfall.energy_watcher.nvml_meter import NvmlMeter
from windfall.energy_watcher.rapl_meter import RaplMeter
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.settings import load

DAY = datetime(2026, 1, 1, tzinfo=UTC)


class Shown:
    """A meter that is there."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def read(self, now: datetime) -> Reading:
        return Reading(now, self.name, {})

    async def close(self) -> None:
        """Nothing to close."""


def test_auto_takes_the_processors_only_beside_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(meters.COUNTERS, "rapl", lambda: Shown("rapl"))
    monkeypatch.setitem(meters.COUNTERS, "nvml", lambda: None)
    auto = BookkeeperSettings(site="site-a", state_dir=Path())
    assert meters.meter_of(auto, {}) is None
    monkeypatch.setitem(meters.COUNTERS, "nvml", lambda: Shown("nvml"))
    both = meters.meter_of(auto, {})
    assert both is not None and both.name == "nvml+rapl"


async def test_processors_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    for zone, name, counted in (
        ("intel-rapl:0", "package-0", 5_000_000),
        ("intel-rapl:0:0", "core", 1),
        ("intel-rapl:1", "package-1", 7_000_000),
        ("intel-rapl:2", "psys", 9),
    ):
        folder = tmp_path / zone
        folder.mkdir()
        for file, text in (("name", name), ("energy_uj", counted), ("max_energy_range_uj", 262143328850)):
            (folder / file).write_text(f"{text}\n")
    meter = RaplMeter.of_this_machine(tmp_path)
    assert meter is not None
    reading = await meter.read(DAY)
    assert {name: counter.energy_j for name, counter in reading.counters.items()} == {
        "intel-rapl:0": 5.0,
        "intel-rapl:1": 7.0,
    }
    assert reading.counters["intel-rapl:0"].wraps_at_j == pytest.approx(262143.32885)
    (tmp_path / "intel-rapl:1" / "energy_uj").unlink()
    with pytest.raises(Transient, match="RAPL cannot be read"):
        await meter.read(DAY)
    assert RaplMeter.of_this_machine(tmp_path) is None
    assert RaplMeter.of_this_machine(tmp_path / "absent") is None


class _Nvml:
    """The five calls of nvidia-ml-py that we use, as its documentation has them."""

    class NVMLError(Exception):
        pass

    def __init__(self, *millijoules: int | None) -> None:
        self.millijoules = list(millijoules)

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.millijoules:
            raise self.NVMLError("NVML Shared Library Not Found")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.millijoules = [None]

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.millijoules)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        counted = self.millijoules[handle]
        if counted is None:
            raise self.NVMLError("Not Supported")
        return counted


async def test_gpus_are_read_by_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(nvml: object) -> NvmlMeter | None:
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        return NvmlMeter.of_this_machine()

    assert found(None) is None
    assert found(_Nvml()) is None
    assert found(_Nvml(1000, None)) is None
    nvml = _Nvml(1000, 2500)
    meter = found(nvml)
    assert meter is not None
    reading = await meter.read(DAY)
    assert {name: counter.energy_j for name, counter in reading.counters.items()} == {"GPU-0": 1.0, "GPU-1": 2.5}
    nvml.millijoules[0] = None
    with pytest.raises(Transient, match="NVML does not answer"):
        await meter.read(DAY)


def series(value: object, **labels: str) -> dict[str, object]:
    return {"metric": {"__name__": "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", **labels}, "value": [1767225600.5, value]}


def vector(*result: object) -> dict[str, object]:
    return {"status": "success", "data": {"resultType": "vector", "result": list(result)}}


@asynccontextmanager
async def prometheus(answer: object, status: int = 200) -> AsyncIterator[tuple[Meter, list[str]]]:
    """A meter, and the server that it asks, which keeps what it was asked."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        body = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    section = {
        "url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
        "query": "up",
        "unit": "mJ",
        "retries": 0,
    }
    found = meter_of(
        _told(METER="prometheus", METER_PROMETHEUS=json.dumps(section)), {"WINDFALL_PROMETHEUS_TOKEN": "tok"}
    )
    assert found is not None
    try:
        yield found, asked
    finally:
        await found.close()
        server.close()
        await server.wait_closed()


def _told(**settings: str) -> BookkeeperSettings:
    told: Mapping[str, str] = {"SITE": "site-a", "STATE_DIR": "state", **settings}
    return load(BookkeeperSettings, {f"WINDFALL_{name}": value for name, value in told.items()})


async def test_each_series_of_a_query_is_a_counter() -> None:
    answer = vector(series("5000", UUID="GPU-0", instance="10.0.0.1:9400"), series("7e3", UUID="GPU-1", pod="x"))
    async with prometheus(answer) as (meter, asked):
        reading = await meter.read(DAY)
    assert (reading.meter, reading.at) == ("prometheus", DAY)
    assert {name: counter.energy_j for name, counter in reading.counters.items()} == {
        "UUID=GPU-0": 5.0,
        "UUID=GPU-1": 7.0,
    }
    assert asked[0].startswith("GET /api/v1/query?query=up ") and "Authorization: Bearer tok" in asked[0]


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (vector(), 200, "no sample"),
        (vector(series("NaN")), 200, "shows no energy"),
        (vector(series("-1")), 200, "shows no energy"),
        (vector(series("five")), 200, "shows no energy"),
        (vector(series(5)), 200, None),
        (vector(series([1])), 200, "shows no energy"),
        (vector({"metric": {}, "value": []}), 200, "shows no energy"),
        ({"status": "error"}, 200, "shows no energy"),
        ({"status": "error", "error": "parse error"}, 400, "Correct the query of WINDFALL_METER_PROMETHEUS"),
        ({}, 401, "WINDFALL_PROMETHEUS_TOKEN"),
        ({}, 503, "HTTP 503"),
    ],
)
async def test_what_shows_no_energy_leaves_it_to_the_model(answer: Any, status: int, words: str | None) -> None:
    async with prometheus(answer, status) as (meter, _):
        if words is None:
            await meter.read(DAY)
            return
        with pytest.raises(Transient, match=words):
            await meter.read(DAY)


def test_the_settings_of_a_meter_are_whole() -> None:
    with pytest.raises(Mistake, match="WINDFALL_METER_PROMETHEUS is missing"):
        _told(METER="prometheus")
    with pytest.raises(Mistake, match="WINDFALL_METER_PROMETHEUS"):
        _told(METER="prometheus", METER_PROMETHEUS='{"url": "http://example.org", "query": "up", "unit": "J"}')
    with pytest.raises(Mistake, match="WINDFALL_POWER_IDLE_KW"):
        _told(POWER_IDLE_KW="-1")
    assert _told(POWER_TRAINING_KW="1.5").power.training_kw == 1.5
    assert _told().power.draining_kw == _told(LEDGER_INTERVAL="900").power.training_kw
