"""What a decision needs to know of the cluster that it is for."""

import re
from dataclasses import dataclass

from windfall.servicekit.kube import Kind
from windfall.servicekit.kube.kinds import PDB, PDB_BETA


@dataclass(frozen=True)
class Facts:
    """Of the API server."""

    minor: int = 30
    """``30`` of ``v1.30.2``."""

    @classmethod
    def of(cls, version: str) -> "Facts":
        found = re.match(r"v?1\.(\d+)", version)
        return cls(int(found[1])) if found else cls()

    @property
    def pdb(self) -> Kind:
        return PDB if self.minor >= 21 else PDB_BETA

    @property
    def names_pods_by_index(self) -> bool:
        """Pods of a StatefulSet know which one they are."""
        return self.minor >= 28
