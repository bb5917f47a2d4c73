"""Settings: all of them right, or one line that names every mistake."""

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.settings import Settings, SiteSettings, TlsSettings, load
from windfall.servicekit.tls import Tls


class Watching(SiteSettings):
    """A service's own."""

    threshold_g_per_kwh: float = Field(gt=0)
    grace: timedelta = timedelta(minutes=10)
    poll: timedelta | None = None


GOOD = {
    "WINDFALL_SITE": "site-a",
    "WINDFALL_STATE_DIR": "/var/lib/windfall",
    "WINDFALL_THRESHOLD_G_PER_KWH": "120.5",
}


def test_what_is_unset_takes_its_default() -> None:
    settings = load(Watching, GOOD)
    assert settings == Watching(site="site-a", state_dir=Path("/var/lib/windfall"), threshold_g_per_kwh=120.5)
    assert settings.nats_url == "nats://127.0.0.1:4222"
    assert settings.clock == "system"
    assert settings.grace == timedelta(minutes=10)


def test_what_is_empty_is_unset() -> None:
    # A compose file or a chart passes on what it was not told as an empty string.
    settings = load(Watching, GOOD | {"WINDFALL_TRACES_FILE": "", "WINDFALL_CLOCK": "", "WINDFALL_GRACE": ""})
    assert settings == load(Watching, GOOD)
    with pytest.raises(Mistake, match="WINDFALL_STATE_DIR: field required"):
        load(Watching, GOOD | {"WINDFALL_STATE_DIR": ""})


@pytest.mark.parametrize(
    ("text", "grace"),
    [
        ("PT10M", timedelta(minutes=10)),
        ("P1DT1S", timedelta(days=1, seconds=1)),
        ("600", timedelta(minutes=10)),
        ("0.5", timedelta(seconds=0.5)),
    ],
)
def test_durations_are_iso_8601_or_seconds(text: str, grace: timedelta) -> None:
    settings = load(Watching, GOOD | {"WINDFALL_GRACE": text, "WINDFALL_POLL": text})
    assert settings.grace == settings.poll == grace


def test_other_variables_are_nobodys_business() -> None:
    assert load(Watching, GOOD | {"WINDFALL_NO_SUCH": "x", "SITE": "y", "PATH": "/bin"}) == load(Watching, GOOD)


def test_settings_do_not_change() -> None:
    settings = load(Watching, GOOD)
    with pytest.raises(ValidationError, match="frozen"):
        settings.site = "site-b"


def test_every_mistake_is_named_at_once_in_one_line() -> None:
    wrong = {
        "WINDFALL_SITE": "Site A!",
        "WINDFALL_NATS_URL": "localhost",
        "WINDFALL_CLOCK": "sundial",
        "WINDFALL_HEALTH_PORT": "70000",
        "WINDFALL_THRESHOLD_G_PER_KWH": "-1",
        "WINDFALL_GRACE": "soon",
    }
    with pytest.raises(Mistake) as mistake:
        load(Watching, wrong)
    said = str(mistake.value)
    assert "\n" not in said
    for variable in [*wrong, "WINDFALL_STATE_DIR"]:
        assert said.count(variable) == 1, variable
    assert "'sundial'" in said
    assert "Value error" not in said
    assert mistake.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("variable", "text", "because"),
    [
        ("SITE", "hub", "the hub's domain"),
        ("SITE", "a.b", "pattern"),
        ("SITE", "a" * 49, "pattern"),
        ("SITE", "-a", "pattern"),
        ("NATS_URL", "http://host:4222", "nats://host:4222"),
        ("NATS_URL", "nats://", "nats://host:4222"),
        ("NATS_URL", "nats://host:port", "[Pp]ort"),
        ("NATS_URL", "nats://host:99999", "[Pp]ort"),
        ("HEALTH_PORT", "-1", "greater than or equal"),
        ("HEALTH_PORT", "http", "integer"),
        ("THRESHOLD_G_PER_KWH", "nan", "finite|greater"),
        ("THRESHOLD_G_PER_KWH", "inf", "finite"),
        ("GRACE", "nan", "timedelta"),
        ("GRACE", "inf", "timedelta"),
        ("CLOCK", "replay:x", "neither"),
    ],
)
def test_a_mistake_is_named(variable: str, text: str, because: str) -> None:
    with pytest.raises(Mistake, match=f"WINDFALL_{variable}: .*({because})"):
        load(Watching, GOOD | {f"WINDFALL_{variable}": text})


def test_a_hub_service_needs_no_site() -> None:
    assert load(Settings, {"WINDFALL_STATE_DIR": "x"}).state_dir == Path("x")


class Served(Settings, TlsSettings):
    """A service that serves or calls over TLS."""


def test_half_given_tls_is_a_mistake_and_never_plaintext(tmp_path: Path) -> None:
    given = {"WINDFALL_STATE_DIR": str(tmp_path), "WINDFALL_TLS_CERTIFICATE": "a.pem", "WINDFALL_TLS_KEY": "a.key"}
    with pytest.raises(Mistake, match="WINDFALL_TLS_AUTHORITY"):
        load(Served, given)
    whole = load(Served, given | {"WINDFALL_TLS_AUTHORITY": "ca.pem"})
    assert whole.tls == Tls(Path("a.pem"), Path("a.key"), Path("ca.pem"))
    assert load(Served, {"WINDFALL_STATE_DIR": str(tmp_path)}).tls is None
