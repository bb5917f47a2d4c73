"""What AMD's own software says of its GPUs: the library amdsmi, ``amd-smi --json``, ``rocm-smi --json``.

The three name the same things differently, and every release names some of them anew. All of it is read into one form;
whatever a release does not say, says ``N/A``, or says in a way that nobody knows is none.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from windfall.profiler.discovery import pci

AMD_SMI: Final = ("amd-smi", "static", "--json")
ROCM_SMI: Final = (
    *("rocm-smi", "--json", "--showproductname", "--showdriverversion", "--showmeminfo", "vram", "--showbus"),
    *("--showuniqueid", "--showmaxpower", "--showcomputepartition", "--showmemorypartition"),
)


@dataclass(frozen=True)
class ToolGpu:
    """One device, by its PCI address with function 0."""

    address: str
    model: str | None = None
    gfx: str | None = None
    memory_bytes: int | None = None
    driver: str | None = None
    uuid: str | None = None
    compute_partition: str | None = None
    memory_partition: str | None = None
    ecc: bool | None = None
    ecc_uncorrected: int | None = None
    power_limit_w: float | None = None


class Unreadable(ValueError):
    """It is not what this tool says in any release that we know."""


def amd_smi(text: str) -> list[ToolGpu]:
    """``amd-smi static --json``: a list, or since ROCm 7 an object with ``gpu_data``.

    Raises:
        Unreadable
    """
    said = _json(text)
    rows = said.get("gpu_data") if isinstance(said, dict) else said
    if not isinstance(rows, list):
        raise Unreadable("amd-smi lists no GPUs")
    return _physical([_amd_smi_row(row) for row in rows if isinstance(row, dict)])


def _amd_smi_row(row: Mapping[str, Any]) -> ToolGpu:
    asic, limit, ras = (_part(row, name) for name in ("asic", "limit", "ras"))
    partition = _part(row, "partition")
    blocks = ras.get("ecc_block_state")
    protected = blocks.get("UMC") if isinstance(blocks, dict) else None
    return ToolGpu(
        _address(_part(row, "bus").get("bdf")),
        _word(asic.get("market_name")) or _word(_part(row, "board").get("product_name")),
        _word(asic.get("target_graphics_version")),
        _bytes(_part(row, "vram").get("size")),
        _word(_part(row, "driver").get("version") or _part(row, "driver").get("driver_version")),
        None,
        _word(partition.get("accelerator_partition") or partition.get("compute_partition")),
        _word(partition.get("memory_partition")),
        None if _word(protected) is None else str(protected).upper() == "ENABLED",
        None,
        _number(limit.get("socket_power") or limit.get("socket_power_limit") or limit.get("max_power")),
    )


def rocm_smi(text: str) -> list[ToolGpu]:
    """``rocm-smi --json``: one object per card, beside one of the system.

    Raises:
        Unreadable
    """
    said = _json(text)
    if not isinstance(said, dict):
        raise Unreadable("rocm-smi lists no cards")
    driver = _word(_part(said, "system").get("Driver version"))
    found = []
    for name, card in said.items():
        if not name.startswith("card") or not isinstance(card, dict):
            continue
        # Releases before 6 write "Card series", later ones "Card Series".
        told = {key.lower(): value for key, value in card.items()}
        memory = _number(told.get("vram total memory (b)"))
        unique = _word(told.get("unique id"))
        names = [_word(told.get(key)) for key in ("card series", "card model", "device name")]
        series = next((name for name in names if name and not name.startswith("0x")), None)
        found.append(
            ToolGpu(
                _address(told.get("pci bus")),
                series,
                _word(told.get("gfx version")),
                None if memory is None else int(memory),
                driver or _word(told.get("driver version")),
                f"GPU-{unique.removeprefix('0x')}" if unique else None,
                _word(told.get("compute partition")),
                _word(told.get("memory partition")),
                None,
                None,
                _number(told.get("max graphics package power (w)")),
            )
        )
    return _physical(found)


def library(lines: Sequence[Mapping[str, Any]]) -> list[ToolGpu]:
    """What ``child/amdsmi_library.py`` said of each device."""
    return _physical([_library_row(line["values"]) for line in lines if "device" in line and "values" in line])


def _library_row(values: Mapping[str, Any]) -> ToolGpu:
    asic, errors = _part(values, "asic"), _part(values, "ecc_count")
    memory = _number(_part(values, "vram").get("vram_size"))
    cap = _number(_part(values, "power_cap").get("power_cap"))
    return ToolGpu(
        _address(values.get("bdf")),
        _word(asic.get("market_name")),
        _word(asic.get("target_graphics_version")),
        None if memory is None else int(memory) * 2**20,
        _word(_part(values, "driver").get("driver_version")),
        _word(values.get("uuid")),
        _word(values.get("compute_partition")),
        _word(values.get("memory_partition")),
        None if "ecc" not in values else bool(values["ecc"]),
        None if "uncorrectable_count" not in errors else int(errors["uncorrectable_count"]),
        None if not cap else cap / 1e6 if cap > 1e5 else cap,  # microwatts, and watts in some releases
    )


def _physical(devices: list[ToolGpu]) -> list[ToolGpu]:
    """One for each GPU: a tool lists every partition as a device, and the first says what the whole is."""
    found: dict[str, ToolGpu] = {}
    for device in devices:
        if device.address:
            found.setdefault(device.address, device)
    return list(found.values())


def _json(text: str) -> Any:
    """Tools print warnings before what was asked."""
    start = min((place for place in (text.find("{"), text.find("[")) if place >= 0), default=-1)
    try:
        return json.JSONDecoder().raw_decode(text, start)[0] if start >= 0 else None
    except json.JSONDecodeError as error:
        raise Unreadable(str(error)) from error


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = of.get(name)
    return part if isinstance(part, dict) else {}


def _word(value: object) -> str | None:
    return value.strip() if isinstance(value, str) and value.strip().upper() not in ("", "N/A", "UNKNOWN") else None


def _number(value: object) -> float | None:
    """Of 750, ``"750"``, ``"750 W"``, ``{"value": 750, "unit": "W"}``."""
    if isinstance(value, dict):
        return _number(value.get("value"))
    try:
        return float(str(value).split()[0])
    except (ValueError, IndexError):
        return None


def _bytes(size: object) -> int | None:
    """amd-smi says MB and means MiB."""
    value = _number(size)
    return None if value is None else int(value) * 2**20


def _address(bdf: object) -> str:
    word = _word(bdf)
    return pci.normal(word).rpartition(".")[0] + ".0" if word else ""
