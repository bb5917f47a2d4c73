"""What a person gets wrong about the watcher's settings, and what the right ones mean."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.energy.grammar import parse
from windfall.energy.rule import below
from windfall.energy.shipped import synthetic_trace
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.sources import provider_of
from windfall.energy_watcher.terms import terms_of
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.settings import load

HOUR = timedelta(hours=1)
KINDS = {"carbon": "average", "price": "price"}
TWO = json.dumps({name: {"provider": "static", "value": 5, "kind": kind} for name, kind in KINDS.items()})


def environ(folder: Path, **changes: str) -> dict[str, str]:
    trace = folder / "trace.csv"
    if not trace.exists():
        trace.write_text("\n".join(synthetic_trace()))
    told = {"site": "site-a", "state_dir": str(folder), "trace_file": str(trace), "static_intensity": "42"}
    return {"WINDFALL_" + name.upper(): value for name, value in {**told, **changes}.items() if value}


def started(settings: WatcherSettings) -> None:
    """As far as a watcher comes before it watches."""
    sections = settings.sections.items()
    terms_of(settings, {name: provider_of(told, Means(settings.site, name, {})) for name, told in sections})


def test_the_short_form_is_one_signal_called_carbon(tmp_path: Path) -> None:
    settings = load(WatcherSettings, environ(tmp_path, open_below="90", close_above="120", trace_column="site-b"))
    assert settings.surplus == below("carbon", 90, 120)
    (section,) = settings.sections.values()
    assert section.model_dump(exclude_defaults=True) == {
        "provider": "replay",
        "trace_file": tmp_path / "trace.csv",
        "column": "site-b",
    }


def test_the_long_form_names_signals_and_a_rule(tmp_path: Path) -> None:
    limits = json.dumps({"price": "PT90M"})
    told = environ(tmp_path, signals=TWO, rule="carbon < 100 and price < 20..40", stale_after_of=limits, trace_file="")
    settings = load(WatcherSettings, told)
    assert settings.surplus == parse("carbon < 100..150 and price < 20..40")
    assert list(settings.sections) == ["carbon", "price"]
    assert (settings.limit("carbon"), settings.limit("price")) == (HOUR / 4, 1.5 * HOUR)
    started(settings)


HEAD, GOOD = "point_time,site-a", "2026-01-01 00:00:00+00:00,437.8"


@pytest.mark.parametrize(
    ("content", "says", "code"),
    [
        (None, ["cannot read the trace", "No such file", "WINDFALL_TRACE_FILE"], ExitCode.RESOURCE),
        (b"\xff\xfe\x00", ["not text in UTF-8"], ExitCode.USAGE),
        (b"", ["line 1", "point_time"], ExitCode.USAGE),
        (f"{HEAD}\n{GOOD}\n2026-01-01 00:05:00+00:00,nan\n".encode(), ["line 3, column site-a: 'nan'"], ExitCode.USAGE),
        (b"point_time,site-q\n", ["no column 'site-a'", "Name one of these: site-q"], ExitCode.USAGE),
        (
            f"{HEAD}\n{GOOD}\n2026-01-01 00:30:00+00:00,90\n".encode(),
            ["0:30:00 apart", "WINDFALL_STALE_AFTER"],
            ExitCode.USAGE,
        ),
    ],
    ids=["missing", "binary", "empty", "bad-row", "no-column", "too-coarse"],
)
def test_a_trace_that_cannot_be_replayed(tmp_path: Path, content: bytes | None, says: list[str], code: int) -> None:
    trace = tmp_path / "other.csv"
    if content is not None:
        trace.write_bytes(content)
    with pytest.raises(Mistake) as refused:
        started(load(WatcherSettings, environ(tmp_path, trace_file=str(trace))))
    assert refused.value.exit_code == code
    assert "\n" not in str(refused.value)
    for part in says:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"signal": "tarot"}, ["WINDFALL_SIGNAL", "'replay'", "'static'"]),
        ({"trace_file": ""}, ["WINDFALL_TRACE_FILE is missing"]),
        ({"signal": "static", "static_intensity": ""}, ["WINDFALL_STATIC_INTENSITY is missing"]),
        ({"signal": "static", "static_intensity": "nan"}, ["WINDFALL_STATIC_INTENSITY"]),
        ({"signal": "static", "poll_interval": "PT1H"}, ["WINDFALL_POLL_INTERVAL must be shorter"]),
        ({"open_below": "200"}, ["open below 200 is over close above 150"]),
        ({"grace": "-PT1M", "trace_file": ""}, ["grace is negative", "WINDFALL_TRACE_FILE is missing"]),
        ({"grace": "soon", "dwell": "later", "site": "No Site"}, ["WINDFALL_GRACE", "WINDFALL_DWELL", "WINDFALL_SITE"]),
        ({"forecast_horizon": "-PT1H"}, ["WINDFALL_FORECAST_HORIZON"]),
        ({"signals": "carbon"}, ["WINDFALL_SIGNALS: not JSON"]),
        ({"signals": TWO, "rule": "wind > 5"}, ["WINDFALL_RULE reads 'wind', and there are carbon, price"]),
        ({"rule": "carbon less 5"}, ["WINDFALL_RULE, column 8, at 'less 5': '<' or '>' is missing"]),
        ({"check": "second"}, ["WINDFALL_CHECK is 'second', and there are carbon"]),
        ({"check": "carbon"}, ["WINDFALL_CHECK is 'carbon', which the rule reads itself"]),
        ({"stale_after_of": '{"wind": "PT1H"}'}, ["WINDFALL_STALE_AFTER_OF names 'wind', and there are carbon"]),
        ({"stale_after_of": '{"carbon": "PT0S"}'}, ["WINDFALL_STALE_AFTER_OF holds a limit that is not positive"]),
        ({"stale_after_of": "PT1H"}, ["WINDFALL_STALE_AFTER_OF: not JSON"]),
        ({"plan_limit": "-1"}, ["WINDFALL_PLAN_LIMIT"]),
    ],
    ids=[
        "unknown-signal",
        "no-file",
        "no-value",
        "nan",
        "slow-poll",
        "thresholds-swapped",
        "two-at-once",
        "three-at-once",
        "negative-horizon",
        "signals-no-json",
        "rule-unknown-signal",
        "rule-unreadable",
        "check-unknown",
        "check-in-the-rule",
        "limit-of-nothing",
        "limit-of-zero",
        "limits-no-json",
        "negative-plan-limit",
    ],
)
def test_settings_that_are_wrong(tmp_path: Path, changes: dict[str, str], says: list[str]) -> None:
    with pytest.raises(Mistake) as refused:
        load(WatcherSettings, environ(tmp_path, **changes))
    for part in says:
        assert part in str(refused.value)


def test_durations_are_iso_or_clock_time(tmp_path: Path) -> None:
    settings = load(WatcherSettings, environ(tmp_path, grace="PT15M", dwell="00:01:30", forecast_horizon="PT12H"))
    assert settings.policy.grace == timedelta(minutes=15)
    assert settings.policy.dwell == timedelta(seconds=90)
    assert settings.forecast_horizon == 12 * HOUR


def test_the_process_ends_with_one_clear_line(tmp_path: Path) -> None:
    trace = tmp_path / "bad.csv"
    trace.write_text(f"{HEAD}\n{GOOD}\n2026-01-01 00:05:00+00:00,many\n")
    ended = subprocess.run(
        [sys.executable, "-m", "windfall.energy_watcher"],
        env={**os.environ, **environ(tmp_path, trace_file=str(trace), nats_url="nats://127.0.0.1:9")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == ExitCode.USAGE
    (line,) = ended.stderr.splitlines()
    assert "line 3, column site-a: 'many' is not a number" in line
