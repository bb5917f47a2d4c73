"""What a person writes to have signals, and what they are told when it is wrong."""

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from windfall.contracts.events import SignalKind
from windfall.energy_watcher.credentials import credential, optional_credential
from windfall.energy_watcher.prometheus import PrometheusSection
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.sources import PROVIDERS, Signals, provider_of, signals_of
from windfall.energy_watcher.watttime import WattTimeSection
from windfall.servicekit.errors import ExitCode, Mistake

GOOD = {
    "carbon": {"provider": "watttime", "region": "CAISO_NORTH"},
    "surplus": {"provider": "prometheus", "url": "https://meter.example", "query": "sum(w)", "kind": "surplus"},
}


class Told(BaseModel):
    """As the watcher's settings hold them."""

    model_config = ConfigDict(frozen=True)

    signals: Signals


def test_several_named_signals_of_one_site() -> None:
    told = Told.model_validate({"signals": json.dumps(GOOD)})
    assert isinstance(told.signals["carbon"], WattTimeSection)
    assert isinstance(told.signals["surplus"], PrometheusSection)
    assert told.signals["carbon"].kind is SignalKind.MARGINAL
    assert told.signals["surplus"].kind is SignalKind.SURPLUS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "valid dictionary"),
        ('{"a": {"provider": "static", "value": 1}, "a": {"provider": "static", "value": 2}}', "a is there twice"),
        ('{"a": {}}', "a: unable to extract tag"),
        ('{"a": {"provider": "tarot"}}', "'watttime'"),
        ('{"a": {"provider": "watttime"}}', "a.region: field required"),
        ('{"A B": {"provider": "static", "value": 1}}', "string should match"),
        ('{"a": {"provider": "static", "value": 9999}}', "give gCO2/kWh from 0 to 5000"),
        ('{"a": {"provider": "static", "value": 1, "kind": "mood"}}', "a.kind"),
        ('{"a": {"provider": "watttime", "region": "X", "kind": "price"}}', "a.kind"),
        ('{"a": {"provider": "watttime", "region": "X&y=1"}}', "a.region"),
        ('{"a": {"provider": "vessim", "microgrid": "../../etc"}}', "a.microgrid"),
        ('{"a": {"provider": "uk_carbon_intensity", "region_id": 1, "postcode": "OX1"}}', "both given"),
        ('{"a": {"provider": "watttime", "region": "X", "url": "http://proxy.example"}}', "plain text"),
        ('{"a": {"provider": "watttime", "region": "X", "password": "hush-hush"}}', "a.password"),
    ],
)
def test_signals_that_are_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        signals_of(text)
    with pytest.raises(ValidationError) as whole:
        Told.model_validate({"signals": text})
    (mistake,) = whole.value.errors()
    assert "hush-hush" not in str(refused.value) + mistake["msg"]
    assert "\n" not in mistake["msg"]


def test_every_section_names_its_provider() -> None:
    assert set(PROVIDERS) == {
        "bus",
        "electricitymaps",
        "prometheus",
        "replay",
        "static",
        "uk_carbon_intensity",
        "vessim",
        "watttime",
    }


@pytest.mark.parametrize("text", ["pa ss-word!", "pa ss-word!\n", "pa ss-word!\r\n"])
def test_a_credential_of_a_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_bytes(text.encode())
    found = credential("WINDFALL_X", {"WINDFALL_X_FILE": str(tmp_path / "secret")})
    assert found.get_secret_value() == "pa ss-word!"
    assert "pa ss" not in f"{found!r} {found}"


@pytest.mark.parametrize(
    ("content", "says", "code"),
    [
        (None, "cannot read", ExitCode.RESOURCE),
        (b"", "is empty", ExitCode.USAGE),
        (b"\n", "is empty", ExitCode.USAGE),
        (b"hush\nhush\n", "line break", ExitCode.USAGE),
        ("hush-hüsh".encode(), "another character", ExitCode.USAGE),
        (b"hush\xff", "is not text", ExitCode.USAGE),
    ],
)
def test_a_file_that_holds_no_credential(tmp_path: Path, content: bytes | None, says: str, code: int) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Mistake, match=says) as refused:
        credential("WINDFALL_X", {"WINDFALL_X_FILE": str(path)})
    assert refused.value.exit_code == code
    assert "hush" not in f"{refused.value} {refused.value.__cause__}"


def test_a_credential_that_is_missing_or_there_twice(tmp_path: Path) -> None:
    assert optional_credential("WINDFALL_X", {}) is None
    with pytest.raises(Mistake, match=r"WINDFALL_X is missing\. Set it, or set WINDFALL_X_FILE"):
        credential("WINDFALL_X", {})
    with pytest.raises(Mistake, match="both set") as refused:
        credential("WINDFALL_X", {"WINDFALL_X": "hush-hush", "WINDFALL_X_FILE": "/x"})
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("told", "variable"),
    [
        (GOOD["carbon"], "WINDFALL_WATTTIME_USERNAME"),
        ({"provider": "electricitymaps", "zone": "DE"}, "WINDFALL_ELECTRICITYMAPS_TOKEN"),
    ],
)
def test_a_provider_without_its_credential(told: dict[str, str], variable: str) -> None:
    with pytest.raises(Mistake, match=f"{variable} is missing"):
        provider_of(signals_of({"a": told})["a"], Means("site-a", "a", {}))
