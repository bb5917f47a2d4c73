"""Dashboards and alerts ask for what the code emits, and for nothing else."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.grafana.source.__main__ import BOARDS, FOLDER, rendered
from windfall.servicekit.instruments import ALL, Instrument, Shape

ROOT = Path(__file__).parents[1]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
ALWAYS = {"job", "instance", "le"}
"""Labels that every series, or every bucket, has."""


def series_of(instrument: Instrument) -> list[str]:
    name = instrument.prometheus
    return [f"{name}{end}" for end in ("_bucket", "_sum", "_count")] if instrument.shape is Shape.HISTOGRAM else [name]


KNOWN = {series: one for one in ALL for series in series_of(one)}


def expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "expr" and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


def check(expression: str, records: set[str]) -> None:
    asked = set(re.findall(r"\b(?:windfall|messaging|rpc|hw)_\w+(?=[\[{ ),]|$)", strip_labels(expression)))
    assert asked or any(record in expression for record in records), f"asks for nothing of ours: {expression}"
    unknown = asked - KNOWN.keys()
    assert not unknown, f"{unknown} is not emitted: {expression}"
    labels = ALWAYS.union(*(KNOWN[name].labels for name in asked), ["windfall_site", "windfall_federation"])
    used = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)\"", expression))
    used |= {one.strip() for group in re.findall(r"(?:by|on) \(([^)]*)\)", expression) for one in group.split(",")} - {
        ""
    }
    assert used <= labels, f"{used - labels} is no label of {asked}: {expression}"


def strip_labels(expression: str) -> str:
    return re.sub(r"(?:by|on) \([^)]*\)|\{[^}]*\}", " ", expression)


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_dashboard_is_what_its_source_says(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == rendered(name), "run `make dashboards`"


@pytest.mark.parametrize("name", sorted(BOARDS))
def test_a_dashboard_asks_for_what_is_emitted(name: str) -> None:
    board = json.loads(rendered(name))
    found = list(expressions(board))
    assert len(found) >= 10
    for expression in found:
        check(expression, set())
    for panel in board["panels"]:
        assert panel["title"] and panel["description"].endswith(".")


def test_no_metric_is_left_out_of_sight() -> None:
    shown = " ".join(expression for name in BOARDS for expression in expressions(json.loads(rendered(name))))
    shown += " ".join(expressions(yaml.safe_load(RULES.read_text())))
    assert {one.name for one in ALL if one.prometheus not in shown} == set()


def test_alerts_ask_for_what_is_emitted_and_say_what_to_do() -> None:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    records = {rule["record"] for rule in rules if "record" in rule}
    page = (ROOT / "docs" / "operations.md").read_text()
    alerts = [rule for rule in rules if "alert" in rule]
    assert len(alerts) >= 13
    for rule in rules:
        check(rule["expr"], records)
    for alert in alerts:
        anchor = alert["annotations"]["runbook"].removeprefix("docs/operations.md#")
        assert anchor == alert["alert"].lower()
        assert f'<a id="{anchor}"></a>{alert["alert"]}' in page


def test_alerts_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on the PATH")
    for what in (["check", "rules", RULES], ["test", "rules", RULES.with_name("rules_test.yaml")]):
        subprocess.run([promtool, *map(str, what)], check=True, timeout=60)
