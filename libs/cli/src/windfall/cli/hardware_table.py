"""What a run's nodes were made of, from the last profile of each site. Pure."""

from collections.abc import Sequence
from typing import Any, Final

from windfall.cli.live import size
from windfall.cli.recording import Said
from windfall.contracts.events import NodeProfiled

HEADS: Final = ("site", "processor", "cores", "memory", "accelerators", "system", "fp32", "to the hub and back")


def nodes(said: Sequence[Said]) -> list[dict[str, Any]]:
    """One for each site that was profiled, in plain JSON values; what was not measured is none."""
    last = {m.site: m for sentence in said if isinstance(m := sentence.message, NodeProfiled)}
    return [_node(profiled) for _, profiled in sorted(last.items())]


def cells(found: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """For a table."""
    return [
        (
            node["site"],
            node["processor"],
            str(node["cores"]),
            size(node["memory_bytes"]),
            ", ".join(node["accelerators"]) or "none",
            node["system"] or "–",
            "–" if node["matmul_gflops"] is None else f"{node['matmul_gflops']:,.0f} GFLOPS",
            "–" if node["link_rtt_ms"] is None else f"{node['link_rtt_ms']:.2f} ms",
        )
        for node in found
    ]


def _node(profiled: NodeProfiled) -> dict[str, Any]:
    measured, hardware = profiled.measured, profiled.hardware
    system = hardware.system if hardware else None
    told = (system.operating_system, f"Linux {system.kernel}" if system.kernel else None) if system else ()
    return {
        "site": profiled.site,
        "processor": measured.cpu_model,
        "cores": measured.cpu_cores,
        "memory_bytes": measured.memory_bytes,
        "accelerators": [one.model for one in hardware.accelerators] if hardware else [],
        "system": ", ".join(part for part in told if part) or None,
        "matmul_gflops": measured.matmul_gflops,
        "link_rtt_ms": measured.link_rtt_ms,
        "fingerprint": measured.fingerprint,
    }
