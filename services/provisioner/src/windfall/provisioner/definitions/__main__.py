"""``make crds``: ``python -m windfall.provisioner.definitions FOLDER``."""

import sys
from pathlib import Path

import yaml

from windfall.provisioner.definitions.crds import crds

HEADER = "# Made by `make crds` from windfall.contracts.resources; do not edit.\n"


def rendered() -> dict[str, str]:
    """File name → its text."""
    return {
        f"{name}.yaml": HEADER + yaml.safe_dump(crd, sort_keys=False, width=120, allow_unicode=True)
        for name, crd in crds().items()
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in rendered().items():
        (folder / file).write_text(text, encoding="utf-8")
        sys.stdout.write(f"written {folder / file} ({len(text.encode()) // 1024} KiB)\n")
