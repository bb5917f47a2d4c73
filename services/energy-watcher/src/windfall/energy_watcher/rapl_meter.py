"""Processor packages, by RAPL's counter as Linux shows it: microjoules that run over.

``/sys/class/powercap/intel-rapl:<package>/{name,energy_uj,max_energy_range_uj}``: Linux, Documentation/power/powercap.
AMD's processors are there too. Since 2020 only root may read it (CVE-2020-8694). Subzones (``intel-rapl:0:1``) are
parts of their package, and ``psys`` is the platform around them: neither is counted beside it.
"""

from datetime import datetime
from pathlib import Path
from typing import Final, Self

from windfall.energy.meter import Counter, Reading
from windfall.servicekit.errors import Transient

POWERCAP: Final = Path("/sys/class/powercap")
_MOST_W: Final = 1000.0
"""No processor package draws more."""
_UJ_PER_J: Final = 1e6


class RaplMeter:
    """All packages of a machine. Use :meth:`of_this_machine`."""

    name = "rapl"

    def __init__(self, packages: tuple[Path, ...]) -> None:
        self._packages = packages

    @classmethod
    def of_this_machine(cls, powercap: Path = POWERCAP) -> Self | None:
        """None where there is no such counter, or this user may not read it."""
        try:
            zones = sorted(path for path in powercap.glob("intel-rapl:*") if path.name.count(":") == 1)
            packages = tuple(zone for zone in zones if (zone / "name").read_text("ascii").startswith("package"))
            for package in packages:
                _counter(package)
        except (OSError, ValueError):
            return None
        return cls(packages) if packages else None

    async def read(self, now: datetime) -> Reading:
        try:
            return Reading(now, self.name, {package.name: _counter(package) for package in self._packages})
        except (OSError, ValueError) as error:
            raise Transient(f"RAPL cannot be read: {error}") from error

    async def close(self) -> None:
        """There is nothing to let go of."""


def _counter(package: Path) -> Counter:
    counted, most = ((package / name).read_text(encoding="ascii") for name in ("energy_uj", "max_energy_range_uj"))
    return Counter(int(counted) / _UJ_PER_J, wraps_at_j=int(most) / _UJ_PER_J, most_w=_MOST_W)
