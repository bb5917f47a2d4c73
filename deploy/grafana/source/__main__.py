"""Writes every dashboard: ``python -m deploy.grafana.source``. They are generated; a test holds them to this folder."""

import json
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.source import bus, energy, fleet, hardware, rounds, run

BOARDS: Final = {
    "bus": bus.made,
    "energy": energy.made,
    "fleet": fleet.made,
    "hardware": hardware.made,
    "rounds": rounds.made,
    "run": run.made,
}
FOLDER: Final = Path(__file__).parents[1] / "dashboards"


def rendered(name: str) -> str:
    """One dashboard as JSON."""
    return json.dumps(json.loads(JSONEncoder(sort_keys=True).encode(BOARDS[name]().build())), indent=1) + "\n"


if __name__ == "__main__":
    for board in BOARDS:
        (FOLDER / f"{board}.json").write_text(rendered(board))
