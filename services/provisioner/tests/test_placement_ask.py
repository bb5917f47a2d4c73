"""Asking for a placement from a shell: files in, a table or JSON out, and a documented exit code."""

import json
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
PAGE = (Path(__file__).parents[3] / "docs/placement.md").read_text()
QUESTION = PAGE.partition("```yaml\n")[2].partition("```")[0]
ANSWER = PAGE.partition("question.yaml\n```\n\n```\n")[2].partition("```")[0]


@pytest.fixture
def question(tmp_path: Path) -> Path:
    for site in ("quebec", "atlanta"):
        (tmp_path / f"{site}.json").write_text(json.dumps({"items": [NODE]}))
    (tmp_path / "quebec-pods.json").write_text(json.dumps({"items": []}))
    golden = Path(__file__).parents[3] / "libs/contracts/tests/golden/node.profiled.json"
    said = json.loads(golden.read_text())["body"]
    accelerator = {"vendor": "nvidia", "model": "NVIDIA A100-SXM4-80GB", "memory_bytes": 80 * 2**30}
    ways = [{"first": 0, "second": 1, "kind": "nvlink", "gb_per_s": 300.0}]
    said |= {"site": "quebec", "hardware": {"accelerators": [accelerator] * 2, "interconnects": ways}}
    (tmp_path / "profiled.jsonl").write_text(json.dumps(said) + "\n\n")
    path = tmp_path / "question.yaml"
    path.write_text(QUESTION)
    return path


def test_the_page_shows_what_is_printed(question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(question)]) == 0
    assert capsys.readouterr().out == ANSWER


def test_json_holds_the_placement_and_the_verdicts(question: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(question), "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["placement"]["site"] == "quebec" and answer["placement"]["workers"] == {"gpu-0": 2}
    assert answer["placement"]["node_selector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
    assert len(answer["verdicts"]) == 4


def test_what_is_asked_of_a_measurement_is_heard(question: Path) -> None:
    question.write_text(QUESTION.replace("gpus: 4", "gpus: 4, interconnect_gb_per_s: 200"))
    assert main([str(question)]) == 0
    question.write_text(QUESTION.replace("gpus: 4", "gpus: 4, interconnect_gb_per_s: 400"))
    assert main([str(question)]) == 1


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
