"""One table from what vendors count to what OpenTelemetry calls it (semantic conventions, *Hardware metrics*).

Names are the vendors' own: functions of NVML and fields of their answers, fields of DCGM as its exporter shows them,
functions of amdsmi and keys of their answers, files of the kernel's powercap. An empty column has no such number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from windfall.servicekit import instruments as m
from windfall.servicekit.instruments import Instrument

MIB: Final = float(2**20)


@dataclass(frozen=True)
class Source:
    """Where one number is found, and what it is multiplied by to be in the instrument's unit."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True)
class Row:
    """One number under OpenTelemetry's name, and where each vendor has it."""

    instrument: Instrument
    attributes: Mapping[str, str]
    nvml: Source | None = None
    dcgm: Source | None = None
    amdsmi: Source | None = None
    powercap: Source | None = None


def _io(direction: str) -> dict[str, str]:
    return {"network.io.direction": direction}


def _error(kind: str) -> dict[str, str]:
    return {"error.type": kind}


TABLE: Final = (
    Row(
        m.HW_GPU_UTILIZATION,
        {},
        nvml=Source("nvmlDeviceGetUtilizationRates.gpu", 0.01),
        dcgm=Source("DCGM_FI_DEV_GPU_UTIL", 0.01),
        amdsmi=Source("amdsmi_get_gpu_activity.gfx_activity", 0.01),
    ),
    Row(
        m.HW_GPU_MEMORY_USAGE,
        {},
        nvml=Source("nvmlDeviceGetMemoryInfo.used"),
        dcgm=Source("DCGM_FI_DEV_FB_USED", MIB),
        amdsmi=Source("amdsmi_get_gpu_vram_usage.vram_used", MIB),
    ),
    Row(
        m.HW_GPU_MEMORY_LIMIT,
        {},
        nvml=Source("nvmlDeviceGetMemoryInfo.total"),
        dcgm=Source("DCGM_FI_DEV_FB_TOTAL", MIB),
        amdsmi=Source("amdsmi_get_gpu_vram_usage.vram_total", MIB),
    ),
    Row(
        m.HW_GPU_IO,
        _io("transmit"),
        nvml=Source("NVML_FI_DEV_PCIE_COUNT_TX_BYTES"),
    ),
    Row(
        m.HW_GPU_IO,
        _io("receive"),
        nvml=Source("NVML_FI_DEV_PCIE_COUNT_RX_BYTES"),
    ),
    Row(
        m.HW_POWER,
        {},
        nvml=Source("nvmlDeviceGetPowerUsage", 1e-3),
        dcgm=Source("DCGM_FI_DEV_POWER_USAGE"),
        amdsmi=Source("amdsmi_get_power_info.current_socket_power"),
    ),
    Row(
        m.HW_POWER,
        {},
        amdsmi=Source("amdsmi_get_power_info.average_socket_power"),
    ),
    Row(
        m.HW_ENERGY,
        {},
        nvml=Source("nvmlDeviceGetTotalEnergyConsumption", 1e-3),
        dcgm=Source("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 1e-3),
        amdsmi=Source("amdsmi_get_energy_count.energy_accumulator_uj", 1e-6),
        powercap=Source("energy_uj", 1e-6),
    ),
    Row(
        m.HW_TEMPERATURE,
        {},
        nvml=Source("nvmlDeviceGetTemperature"),
        dcgm=Source("DCGM_FI_DEV_GPU_TEMP"),
        amdsmi=Source("amdsmi_get_temp_metric.hotspot"),
    ),
    Row(
        m.HW_ERRORS,
        _error("ecc-corrected"),
        nvml=Source("nvmlDeviceGetTotalEccErrors.corrected"),
        dcgm=Source("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"),
        amdsmi=Source("amdsmi_get_gpu_total_ecc_count.correctable_count"),
    ),
    Row(
        m.HW_ERRORS,
        _error("ecc-uncorrected"),
        nvml=Source("nvmlDeviceGetTotalEccErrors.uncorrected"),
        dcgm=Source("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"),
        amdsmi=Source("amdsmi_get_gpu_total_ecc_count.uncorrectable_count"),
    ),
    Row(
        m.HW_ERRORS,
        _error("pcie-replay"),
        nvml=Source("nvmlDeviceGetPcieReplayCounter"),
        dcgm=Source("DCGM_FI_DEV_PCIE_REPLAY_COUNTER"),
    ),
)
"""The first row of a name and its attributes that has a value counts; utilisation of memory is made of two others."""

_COLUMNS: Final = {"nvidia": "nvml", "dcgm": "dcgm", "amd": "amdsmi", "cpu": "powercap"}
"""Kind of device → its column."""

Told = tuple[Instrument, float, Mapping[str, str]]


def told(device: str, values: Mapping[str, float]) -> Iterator[Told]:
    """Every number of one device, ``nvidia.0``, with its attributes.

    ``hw.id`` is the device's kind and place on this node: which one it is in the world stays at the site.
    """
    kind, _, index = device.partition(".")
    of_device = {"hw.id": f"{'cpu' if kind == 'cpu' else 'gpu'}{index}", "hw.type": "cpu" if kind == "cpu" else "gpu"}
    found: dict[tuple[str, frozenset[tuple[str, str]]], Told] = {}
    for row in TABLE:
        source: Source | None = getattr(row, _COLUMNS[kind])
        if source is None or source.name not in values:
            continue
        attributes = {name: value for name, value in of_device.items() if name in row.instrument.attributes}
        one = (row.instrument, values[source.name] * source.scale, {**attributes, **row.attributes})
        found.setdefault((row.instrument.name, frozenset(row.attributes.items())), one)
    yield from found.values()
    by_name = {name: (value, attributes) for (name, _), (_, value, attributes) in found.items()}
    used, limit = by_name.get(m.HW_GPU_MEMORY_USAGE.name), by_name.get(m.HW_GPU_MEMORY_LIMIT.name)
    if used and limit and limit[0]:
        yield m.HW_GPU_MEMORY_UTILIZATION, used[0] / limit[0], used[1]
    yield from status(device, "ok")


def status(device: str, state: str) -> Iterator[Told]:
    """1 for the state that a device is in and 0 for the other: ``failed`` when it is lost."""
    kind, _, index = device.partition(".")
    cpu = kind == "cpu"
    for one in ("ok", "failed"):
        attributes = {"hw.id": f"{'cpu' if cpu else 'gpu'}{index}", "hw.type": "cpu" if cpu else "gpu", "hw.state": one}
        yield m.HW_STATUS, float(one == state), attributes
