"""A provider of somebody else's comes through the door as an installed package: a module and an entry point."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from windfall.energy_watcher.section import Means
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.sources import provider_of, signals_of

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MODULE = """
from windfall.contracts.events import SignalKind
from windfall.energy.quotes import Quote
from windfall.energy_watcher.section import OwnSection


class TideSection(OwnSection):
    harbour: str
    metres: float = 4.0


class Tide:
    section = TideSection
    kind = SignalKind.SURPLUS

    def __init__(self, told, means):
        self.region, self.told = told.harbour, told

    @classmethod
    def of(cls, told, means):
        return cls(told, means)

    async def current(self, now):
        return Quote(self.kind, now, 1000 * self.told.metres, self.region)


class NoSection:
    pass
"""
POINTS = """[windfall.providers]
tide = tides:Tide
static = tides:Tide
absent = no_such_module:Tide
nothing = tides:Nobody
bare = tides:NoSection
"""


@pytest.fixture(autouse=True)
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tides.py").write_text(MODULE)
    installed = tmp_path / "tides-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tides\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))


async def test_it_stands_beside_those_that_ship() -> None:
    text = '{"grid": {"provider": "static", "value": 7}, "sea": {"provider": "tide", "harbour": "brest", "metres": 6}}'
    told = signals_of(text)
    assert list(told) == ["grid", "sea"]
    sea = provider_of(told["sea"], Means("site-a", "sea", {}))
    assert sea.region == "brest"
    assert (await sea.current(NOON)).value == 6000
    # Nobody takes the place of one that ships.
    assert type(provider_of(told["grid"], Means("site-a", "grid", {}))).__name__ == "Static"


def test_settings_keep_its_section_whole(tmp_path: Path) -> None:
    settings = WatcherSettings.model_validate(
        {"site": "site-a", "state_dir": tmp_path, "signals": '{"sea": {"provider": "tide", "harbour": "brest"}}'}
        | {"rule": "sea > 3000"}
    )
    assert settings.sections["sea"].model_dump() == {"provider": "tide", "harbour": "brest", "metres": 4.0}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"provider": "tide"}, "sea.harbour: field required"),
        ({"provider": "tide", "harbour": "brest", "password": "hush-hush"}, "sea.password: extra inputs"),
        ({"provider": "tide", "harbour": "brest", "metres": "many"}, "sea.metres: input should be a valid number"),
        ({"provider": "absent"}, "provider 'absent' cannot be imported from 'no_such_module:Tide': No module"),
        ({"provider": "nothing"}, "provider 'nothing' cannot be imported from 'tides:Nobody'"),
        ({"provider": "bare"}, "provider 'bare': tides:NoSection is no provider; give it a section"),
        ({"provider": "moon"}, "input tag 'moon' found using 'provider' does not match any"),
        ({"provider": ["tide"]}, "sea"),
    ],
    ids=["missing", "extra", "value", "module", "class", "no section", "unknown", "no name"],
)
def test_a_mistake_is_one_line(section: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        signals_of(json.dumps({"sea": section}))
    assert "\n" not in str(refused.value) and "hush" not in str(refused.value)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="should match pattern"):
        signals_of('{"The Sea": {"provider": "tide", "harbour": "brest"}}')
