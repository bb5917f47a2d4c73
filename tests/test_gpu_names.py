"""Two services name GPUs, the profiler by product and placement by model: what one calls a GPU, the other knows."""

import json
from importlib.resources import files

import pytest

from windfall.profiler.discovery.gpu_models import canonical
from windfall.provisioner.placement.gpus import canonical_model

TABLE = json.loads(files("windfall.profiler.discovery").joinpath("gpu_models.json").read_text(encoding="utf-8"))
NAMES = [(product, name) for models in TABLE.values() for product, known in models.items() for name in known["names"]]
BY_BOARD = {"AMD INSTINCT MI200 (MCM) OAM LC MBA HPE C2", "AMD Instinct MI350 OAM"}
"""Called after a series, not after a model: only the table knows which one it is."""


@pytest.mark.parametrize(("product", "name"), NAMES)
def test_a_name_leads_both_to_one_model(product: str, name: str) -> None:
    assert canonical(name) == product
    if name not in BY_BOARD:
        assert canonical_model(name) == canonical_model(product)
