"""What the sites have said of themselves, and have not taken back."""

from collections.abc import Iterator, Mapping
from typing import Final

from windfall.cli.counting import counted
from windfall.cli.doctor.finding import Finding, failure, good, warning
from windfall.cli.links import Matrix
from windfall.cli.resources.sites import Site
from windfall.contracts.hardware import Hardware

_NODE_TROUBLE: Final = {"hindered", "failed"}


def of_site(site: Site) -> Iterator[Finding]:
    """Windows, nodes and trainers."""
    if site.heard_at is None:
        yield warning(site.name, "has said nothing yet", "Start its energy-watcher")
    elif site.window == "stale":
        yield failure(site.name, "its signal is silent, so it is shut", "Look at its provider: `windfall explain`")
    elif site.node in _NODE_TROUBLE:
        yield failure(
            site.name, f"no node: {site.trouble or site.node}", "Mend that; the next window asks again by itself"
        )
    elif site.training in ("refused", "withheld"):
        yield warning(site.name, f"does not train: {site.trouble}", "Change the rule that says so, if it is wrong")
    else:
        yield good(site.name, f"window {site.window}" + (f", {site.training}" if site.training else ""))


def of_links(matrix: Matrix) -> Iterator[Finding]:
    """Links that are out of their band, or that all are within."""
    if matrix and not any(one.degraded for one in matrix.values()):
        yield good("links", f"{counted(len(matrix), 'links')}, as wide and as near as usual")
    for one in matrix.values():
        if one.degraded:
            parts = ", ".join(part.partition("_")[0] for part in one.degraded)
            yield warning(
                one.site, f"its link to {one.target} is worse than usual ({parts})", "Look at `windfall links`"
            )


def of_hardware(profiles: Mapping[str, Hardware]) -> Iterator[Finding]:
    """Vendor stacks that are half there, and those that are whole."""
    for site, hardware in profiles.items():
        if not hardware.missing:
            yield good(site, f"{counted(len(hardware.accelerators), 'accelerators')}, no vendor stack is half there")
        for part, why in hardware.missing.items():
            yield warning(site, f"{part} cannot be read: {why}", "Mend the driver, or remove what is left of it")
