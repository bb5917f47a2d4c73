"""``windfall nkeys``: seeds that nobody else can read, and the public keys to paste."""

import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from windfall.cli.commands.running import nkeys
from windfall.cli.nkeys import made
from windfall.servicekit import nkey
from windfall.servicekit.errors import Mistake


def test_each_name_has_a_key_of_its_own_and_keeps_it(tmp_path: Path) -> None:
    first = list(made(tmp_path / "new", ["provisioner", "leaf"]))
    assert list(made(tmp_path / "new", ["provisioner", "leaf", "admin"]))[:2] == first
    assert len({line.split(": ")[1] for line in first}) == 2
    for line in first:
        name, public = line.split(": ")
        path = tmp_path / "new" / f"{name}.nk"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert nkey.read(path).public == public and nkey.read(path).seed not in line


def test_the_command_prints_what_the_charts_take(tmp_path: Path) -> None:
    said = CliRunner().invoke(nkeys, [str(tmp_path), "federation-coordinator"])
    assert said.exit_code == 0
    assert said.output == f"federation-coordinator: {nkey.read(tmp_path / 'federation-coordinator.nk').public}\n"


def test_a_name_that_is_none_and_a_file_that_is_no_seed_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="names no user"):
        list(made(tmp_path, ["../elsewhere"]))
    (tmp_path / "leaf.nk").write_text("nothing")
    with pytest.raises(Mistake, match="holds no seed"):
        list(made(tmp_path, ["leaf"]))
