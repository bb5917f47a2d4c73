"""Asking for a placement from a shell: files in, a table or JSON out, and a documented exit code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from windfall.provisioner.placement.__main__ import main

NODE: dict[str, Any] = {
    "metadata": {"name": "gpu-0", "labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}},
    "spec": {},
    "status": {
        "allocatable": {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "8"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}
QUESTION = """
need: {workers: 2, gpus: 4, models: [a100], interconnect_gb_per_s: 200, jurisdictions: [CA]}
sites:
  - {site: quebec, jurisdiction: CA-QC, nodes: quebec.json, profiles: profiled.jsonl}
  - {site: atlanta, jurisdiction: US-GA, nodes: quebec.json}
"""


@pytest.fixture
def question(tmp_path: Path) -> Path:
    (tmp_path / "quebec.json").write_text(json.dumps({"items": [NODE]}))
    golden = Path(__file__).parents[3] / "libs/contracts/tests/golden/node.profiled.json"
    said = json.loads(golden.read_text())["body"]
    accelerator = {"vendor": "nvidia", "model": "NVIDIA A100-SXM4-80GB", "memory_bytes": 80 * 2**30}
    ways = [{"first": 0, "second": 1, "kind": "nvlink", "gb_per_s": 300.0}]
    said |= {"site": "quebec", "hardware": {"accelerators": [accelerator] * 2, "interconnects": ways}}
    (tmp_path / "profiled.jsonl").write_text(json.dumps(said) + "\n\n")
    path = tmp_path / "question.yaml"
    path.write_text(QUESTION)
    return path


def test_a_table_says_of_each_node_why(question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(question)]) == 0
    lines = [re.sub(r"\s{2,}", "  ", line.strip()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "SITE  NODE  WHY",
        "atlanta  -  jurisdiction: US-GA is not within CA",
        "atlanta  gpu-0  its site is not used: jurisdiction: US-GA is not within CA",
        "*  quebec  -  takes all 2 workers of 4 GPUs: 2 on gpu-0, measured 160.0 samples/s",
        "*  quebec  gpu-0  takes 2 of 2 workers",
    ]


def test_json_holds_the_placement_and_the_verdicts(question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(question), "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["placement"]["site"] == "quebec" and answer["placement"]["workers"] == {"gpu-0": 2}
    assert answer["placement"]["node_selector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert len(answer["verdicts"]) == 4


def test_nobody_takes_it(question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    question.write_text(QUESTION.replace("workers: 2", "workers: 3"))
    assert main([str(question), "-o", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["placement"] is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("workers: 2", "workers: 0"), "at least one worker"),
        (("workers: 2", "wrokers: 2"), "wrokers"),
        (("CA-QC", "Canada"), "jurisdiction"),
        (("quebec.json", "nowhere.json"), "cannot read"),
        (("quebec.json", "profiled.jsonl"), "no list of Kubernetes objects"),
        (("profiled.jsonl", "quebec.json"), "no node.profiled"),
        (("sites:", "sites: [}"), "asks nothing that can be answered"),
    ],
)
def test_a_wrong_question_is_told_in_one_line(
    question: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
) -> None:
    question.write_text(QUESTION.replace(*change, 1))
    assert main([str(question)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
