"""What a decision needs to know of the cluster that it is for, and of the operator's own place in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from windfall.servicekit.kube import Kind
from windfall.servicekit.kube.kinds import PDB, PDB_BETA


@dataclass(frozen=True)
class Facts:
    """
    Args:
        minor: of the API server; ``30`` of ``v1.30.2``.
        environment: of the operator.
    """

    minor: int = 30
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, version: str, environment: Mapping[str, str] | None = None) -> "Facts":
        found = re.match(r"v?1\.(\d+)", version)
        return cls(int(found[1]) if found else cls.minor, environment or {})

    @property
    def pdb(self) -> Kind:
        return PDB if self.minor >= 21 else PDB_BETA

    @property
    def names_pods_by_index(self) -> bool:
        """Pods of a StatefulSet know which one they are."""
        return self.minor >= 28
