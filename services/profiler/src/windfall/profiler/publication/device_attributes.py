"""Devices as Dynamic Resource Allocation describes them: ``spec.devices`` of a ``ResourceSlice`` (resource.k8s.io/v1).

A GPU is one device; one that is divided is a device for each partition, as a scheduler may hand out only these. Names
of attributes are under ``windfall.dev/``, so that they stand beside a vendor's own of the same device.
"""

import re
from typing import Any, Final

from windfall.contracts.hardware import Accelerator, Hardware
from windfall.contracts.profile import Identity, Local

_DOMAIN: Final = "windfall.dev/"
_LONGEST: Final = 64
_VERSION: Final = re.compile(r"^(\d+)\.(\d+)(?:\.(\d+))?$")
_MIB: Final = 2**20


def devices(hardware: Hardware, local: Local | None = None) -> list[dict[str, Any]]:
    """All devices of a node.

    Args:
        local: which they are; with it the list must stay at the site.
    """
    identities = local.accelerators if local else ()
    found = []
    for place, gpu in enumerate(hardware.accelerators):
        identity = identities[place] if place < len(identities) else Identity()
        found += _devices(place, gpu, identity)
    return found


def _devices(place: int, gpu: Accelerator, identity: Identity) -> list[dict[str, Any]]:
    pcie = gpu.pcie
    shared = {
        "vendor": _string(gpu.vendor),
        "model": _string(gpu.canonical_model),
        "product": _string(gpu.model),
        "architecture": _string(gpu.architecture),
        "driverVersion": _version(gpu.driver),
        "numaNode": _int(gpu.numa_node),
        "pcieGeneration": _int(pcie.generation_max if pcie else None),
        "pcieWidth": _int(pcie.width_max if pcie else None),
        "ecc": None if gpu.ecc is None else {"bool": gpu.ecc},
        "partitionMode": _string(gpu.partition_mode),
        "index": {"int": place},
        "pciAddress": _string(identity.pci_address),
    }
    if not gpu.partitions:
        attributes = {**shared, "type": _string("gpu"), "uuid": _string(identity.uuid)}
        return [_device(f"gpu-{place}", attributes, gpu.memory_bytes)]
    return [
        _device(
            f"gpu-{place}-part-{number}",
            {
                **shared,
                "type": _string("partition"),
                "partitionProfile": _string(part.profile),
                "parentUUID": _string(identity.uuid),
                "uuid": _string(identity.partitions[number] if number < len(identity.partitions) else None),
            },
            part.memory_bytes,
        )
        for number, part in enumerate(gpu.partitions)
    ]


def _device(name: str, attributes: dict[str, Any], memory_bytes: int | None) -> dict[str, Any]:
    capacity = {} if memory_bytes is None else {f"{_DOMAIN}memory": {"value": f"{memory_bytes // _MIB}Mi"}}
    told = {_DOMAIN + key: value for key, value in sorted(attributes.items()) if value is not None}
    return {"name": name, "attributes": told, "capacity": capacity}


def _string(text: str | None) -> dict[str, str] | None:
    return {"string": text[:_LONGEST]} if text else None


def _int(number: int | None) -> dict[str, int] | None:
    return None if number is None else {"int": number}


def _version(text: str | None) -> dict[str, str] | None:
    """Semantic versions have three numbers without leading zeros: ``535.104.05`` is 535.104.5. Others stay a string."""
    parts = _VERSION.match(text or "")
    if parts is None:
        return _string(text)
    return {"version": ".".join(str(int(part or 0)) for part in parts.groups())}
