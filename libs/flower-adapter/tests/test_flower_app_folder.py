"""A Flower app as its folder says; and the versions of Flower that run one."""

from pathlib import Path

import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from windfall.flower_adapter import shim
from windfall.flower_adapter.app_folder import load, node_config, read_app, run_config
from windfall.servicekit.errors import Mistake

APP = Path(__file__).parents[3] / "tests" / "flower_apps" / "adding"


def test_a_stock_app_is_read_and_its_configuration_overridden() -> None:
    app = read_app(APP)
    assert (app.name, app.version, app.client) == ("windfall/adding", "1.0.0", "adding.client_app:app")
    config = run_config(app, "elements=9 fraction-evaluate=0.5")
    assert (config["elements"], config["fraction-evaluate"], config["num-server-rounds"]) == (9, 0.5, 3)
    assert node_config('partition-id=1 name="a b" up=true') == {"partition-id": 1, "name": "a b", "up": True}


def test_its_components_are_loaded_by_reference() -> None:
    app = read_app(APP)
    assert isinstance(load(app, app.server, ServerApp), ServerApp)
    with pytest.raises(Mistake, match="It must be a ClientApp"):
        load(app, app.server, ClientApp)
    with pytest.raises(Mistake, match="nothing is fetched"):
        load(app, "adding.nowhere:app", ClientApp)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [("rounds=3", "has no 'rounds'"), ("elements", "is not like"), ("elements=maybe", "Write values as in TOML")],
)
def test_a_wrong_override_is_one_line(overrides: str, text: str) -> None:
    with pytest.raises(Mistake, match=text):
        run_config(read_app(APP), overrides)


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        (None, "cannot read"),
        ("[project]\nname = 'x'\n", "is not that of a Flower app"),
        ("[[", "Mend it"),
        ("project = 3\n[tool.flwr.app.components]\nserverapp = 'a:b'\nclientapp = 'a:b'\n", "is not that of"),
    ],
)
def test_a_folder_that_is_no_app_is_one_line(tmp_path: Path, toml: str | None, text: str) -> None:
    if toml is not None:
        (tmp_path / "pyproject.toml").write_text(toml)
    with pytest.raises(Mistake, match=text):
        read_app(tmp_path)


def test_a_version_of_flower_that_was_not_tried_is_refused_in_one_line() -> None:
    shim.check_version()
    with pytest.raises(Mistake, match=r"flwr 1\.42\.0 is installed; this adapter supports flwr 1\.41\.0"):
        shim.check_version("1.42.0")
