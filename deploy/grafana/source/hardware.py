"""What the nodes' devices count: use, memory, power, heat, errors."""

from grafana_foundation_sdk.builders import dashboard

from deploy.grafana.source.panels import board, choice, lines, number, query, rate, states
from windfall.servicekit import instruments as m

SITES = '{windfall_site=~"$windfall_site"}'
OK = '{windfall_site=~"$windfall_site", hw_state="ok"}'
FAILED = '{windfall_site=~"$windfall_site", hw_state="failed"}'
DEVICE = "{{windfall_site}} {{hw_id}}"
BY = ("windfall_site", "hw_id")


def made() -> dashboard.Dashboard:
    """The dashboard."""
    return (
        board(
            "hardware",
            "Hardware",
            "What the nodes' devices count.",
            choice("windfall_site", "Site", m.HW_STATUS),
        )
        .with_panel(
            number(
                "Devices",
                "That answer.",
                "none",
                f"sum({m.HW_STATUS.prometheus}{OK}) or vector(0)",
            )
        )
        .with_panel(
            number(
                "Lost",
                "Were there and are not.",
                "none",
                f"sum({m.HW_STATUS.prometheus}{FAILED}) or vector(0)",
            )
        )
        .with_panel(number("Power", "Of all devices.", "watt", f"sum({m.HW_POWER.prometheus}{SITES})"))
        .with_panel(
            number("In use", "Mean of all GPUs.", "percentunit", f"avg({m.HW_GPU_UTILIZATION.prometheus}{SITES})")
        )
        .with_panel(number("Hottest", "Of all devices.", "celsius", f"max({m.HW_TEMPERATURE.prometheus}{SITES})"))
        .with_panel(
            number(
                "Energy",
                "Drawn in the range shown.",
                "joule",
                f"sum(increase({m.HW_ENERGY.prometheus}{SITES}[$__range])) or vector(0)",
            )
        )
        .with_panel(
            lines(
                "GPU in use",
                "Share of time in which it computed.",
                "percentunit",
                query(f"max by (windfall_site, hw_id) ({m.HW_GPU_UTILIZATION.prometheus}{SITES})", DEVICE),
            )
        )
        .with_panel(
            lines(
                "GPU memory in use",
                "Share that is taken.",
                "percentunit",
                query(f"max by (windfall_site, hw_id) ({m.HW_GPU_MEMORY_UTILIZATION.prometheus}{SITES})", DEVICE),
            )
        )
        .with_panel(
            lines(
                "GPU memory",
                "Taken, and all there is.",
                "bytes",
                query(f"max by (windfall_site, hw_id) ({m.HW_GPU_MEMORY_USAGE.prometheus}{SITES})", DEVICE),
                query(f"max by (windfall_site, hw_id) ({m.HW_GPU_MEMORY_LIMIT.prometheus}{SITES})", f"{DEVICE} in all"),
            )
        )
        .with_panel(
            lines(
                "PCIe",
                "Bytes per second to and from each GPU.",
                "Bps",
                query(
                    rate(m.HW_GPU_IO, *BY, "network_io_direction", where=SITES),
                    f"{DEVICE} {{{{network_io_direction}}}}",
                ),
            )
        )
        .with_panel(
            lines(
                "Power by device",
                "As it says itself.",
                "watt",
                query(f"max by (windfall_site, hw_id) ({m.HW_POWER.prometheus}{SITES})", DEVICE),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Power by energy",
                "How fast the energy counters grow, which misses nothing between readings.",
                "watt",
                query(rate(m.HW_ENERGY, *BY, where=SITES), DEVICE),
                stacked=True,
            )
        )
        .with_panel(
            lines(
                "Temperature",
                "By device.",
                "celsius",
                query(f"max by (windfall_site, hw_id) ({m.HW_TEMPERATURE.prometheus}{SITES})", DEVICE),
            )
        )
        .with_panel(
            lines(
                "Errors",
                "Per second, by what they are.",
                "none",
                query(rate(m.HW_ERRORS, *BY, "error_type", where=SITES), f"{DEVICE} {{{{error_type}}}}"),
            )
        )
        .with_panel(
            states(
                "Devices",
                "Whether each answers.",
                f"max by (windfall_site, hw_id) ({m.HW_STATUS.prometheus}{OK})",
                DEVICE,
                (("0", "failed", "red"), ("1", "ok", "green")),
            )
        )
    )
