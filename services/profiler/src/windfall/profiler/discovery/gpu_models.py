"""One name for each GPU model, however drivers, tools and labels write it. The table is ``gpu_models.json``.

A canonical name is the model, its form where the same model comes in several, and its memory as it is sold; it is a
valid value of a Kubernetes label. A model that is not in the table has none, and passes through under its own.
"""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Final

_LABELLED: Final = re.compile(r"-(?:MIG-\d+g\.\d+gb.*|SHARED)$")
"""What GPU Feature Discovery adds to a product."""


@cache
def _table() -> tuple[dict[str, str], dict[str, str]]:
    """By name and by PCI device id."""
    table = json.loads(files(__package__).joinpath("gpu_models.json").read_text(encoding="utf-8"))
    by_name: dict[str, str] = {}
    by_id: dict[str, str] = {}
    for models in table.values():
        for canonical_model, known in models.items():
            by_name |= {_plain(name): canonical_model for name in known["names"]}
            by_id |= dict.fromkeys(known.get("pci", ()), canonical_model)
    return by_name, by_id


def canonical(model: str, pci_device: int | None = None) -> str | None:
    """The one name of a model, by the way in which anybody writes it, or by its PCI device id where that is decisive.

    Labels write dashes or underscores for blanks: ``NVIDIA-H100-80GB-HBM3``, ``AMD_Instinct_MI300X_OAM``.
    """
    by_name, by_id = _table()
    found = by_name.get(_plain(_LABELLED.sub("", model)))
    return found or (by_id.get(f"{pci_device:04x}") if pci_device is not None else None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()
