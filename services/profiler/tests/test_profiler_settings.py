"""The profiler's settings: sensible when unset, refused by name when wrong."""

from datetime import timedelta
from pathlib import Path

import pytest

from windfall.profiler.settings import ProfilerSettings
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.settings import load

GIVEN = {"WINDFALL_SITE": "site-a", "WINDFALL_STATE_DIR": "state"}


def test_site_and_folder_are_enough() -> None:
    settings = load(ProfilerSettings, GIVEN)
    assert (settings.site, settings.state_dir) == ("site-a", Path("state"))
    assert settings.bench_budget == timedelta(seconds=30)
    assert settings.coordinator is None


def test_durations_are_iso_8601_or_seconds() -> None:
    settings = load(ProfilerSettings, GIVEN | {"WINDFALL_BENCH_BUDGET": "PT0.5S", "WINDFALL_TARGET_ROUND": "90"})
    assert (settings.bench_budget, settings.target_round) == (timedelta(seconds=0.5), timedelta(seconds=90))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WINDFALL_COORDINATOR", "coordinator"),
        ("WINDFALL_COORDINATOR", "http://coordinator:port"),
        ("WINDFALL_BENCH_BUDGET", "PT0S"),
        ("WINDFALL_LINK_BYTES", "0"),
        ("WINDFALL_LINK_BYTES", str(2**40)),
        ("WINDFALL_TARGET_ROUND", "-PT1S"),
        ("WINDFALL_PROBE", "guess"),
        ("WINDFALL_LISTEN", "nowhere"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(Mistake, match=name) as refused:
        load(ProfilerSettings, GIVEN | {name: value})
    assert refused.value.exit_code is ExitCode.USAGE
