"""What a site needs of the machines of its cluster: read from its settings, in one line when it is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.node_need import NodeNeed
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import load

GIVEN = {"WINDFALL_KUBE_IMAGE": "trainer:1", "WINDFALL_KUBE_VENDOR": "nvidia"}


def settings(need: object, **more: str) -> TrainerSettings:
    said = need if isinstance(need, str) else json.dumps(need)
    return load(TrainerSettings, GIVEN | {"WINDFALL_KUBE_NEED": said} | more)


def test_a_need_is_read() -> None:
    need = {"gpus": 8, "models": ["A100"], "interconnects": ["nvlink"], "samples_per_s": 10, "jurisdictions": ["CA"]}
    told = settings(need, WINDFALL_JURISDICTION="CA-QC")
    assert told.kube_need is not None and told.accelerators == 8 and told.jurisdiction == "CA-QC"
    assert told.kube_need.interconnects == {"nvlink"} and told.kube_need.arrangement == "pack"


def test_the_page_shows_a_need() -> None:
    page = (Path(__file__).parents[3] / "docs/placement.md").read_text(encoding="utf-8")
    shown = page.partition("```json need\n")[2].partition("```")[0]
    told = settings(shown).kube_need
    assert told is not None and told.gpu_memory_bytes == 79 * 2**30
    assert set(json.loads(shown)) | {"pools"} == set(NodeNeed.model_fields)
    assert all(f"`{name}`" in page for name in NodeNeed.model_fields)


def test_without_a_need_the_scheduler_chooses() -> None:
    told = load(TrainerSettings, GIVEN | {"WINDFALL_KUBE_ACCELERATORS": "2"})
    assert told.kube_need is None and told.accelerators == 2


@pytest.mark.parametrize(
    ("need", "more", "said"),
    [
        ("gpus: 8", {}, "WINDFALL_KUBE_NEED: invalid JSON"),
        ({"gpu": 8}, {}, "WINDFALL_KUBE_NEED: gpu: Extra inputs"),
        ({"gpus": 65}, {}, "gpus"),
        ({"interconnects": ["infiniband"]}, {}, "interconnects"),
        ({"jurisdictions": ["Canada"]}, {}, "jurisdictions"),
        ({"samples_per_s": -1}, {}, "samples_per_s"),
        ({"pools": [{"model": "a100"}]}, {}, "pools"),
        ({}, {"WINDFALL_JURISDICTION": "Quebec"}, "WINDFALL_JURISDICTION"),
        ({"gpus": 8}, {"WINDFALL_KUBE_ACCELERATORS": "4"}, "says 4 GPUs and WINDFALL_KUBE_NEED 8"),
        ({"models": ["H100"]}, {}, "nobody asks for any; add gpus to it"),
        ({"gpus": 8}, {"WINDFALL_KUBE_VENDOR": "none"}, "needs WINDFALL_KUBE_VENDOR"),
    ],
)
def test_a_wrong_need_is_one_line(need: Any, more: dict[str, str], said: str) -> None:
    with pytest.raises(Mistake) as refused:
        settings(need, **more)
    assert said in str(refused.value) and "\n" not in str(refused.value)
