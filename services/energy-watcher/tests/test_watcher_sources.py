"""The promises of every source, and what a person gets wrong about them."""

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import plausible
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.source import ADAPTERS, Source
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.settings import load

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def environ(folder: Path, **changes: str) -> dict[str, str]:
    trace = folder / "trace.csv"
    if not trace.exists():
        trace.write_text("\n".join(synthetic_trace()))
    told = {"site": "site-a", "state_dir": str(folder), "trace_file": str(trace), "static_intensity": "42"}
    return {"WINDFALL_" + name.upper(): value for name, value in {**told, **changes}.items() if value}


@pytest.fixture(params=sorted(ADAPTERS))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    settings = load(WatcherSettings, environ(tmp_path, signal=request.param))
    return ADAPTERS[request.param](settings)


def test_every_name_has_an_adapter() -> None:
    assert set(ADAPTERS) == set(get_args(WatcherSettings.model_fields["signal"].annotation))


async def test_readings_are_news_in_order(source: Source) -> None:
    for after in (None, NOON - HOUR):
        news = await source.readings(after, NOON)
        assert news and all(plausible(reading.intensity_g_per_kwh) for reading in news)
        assert all(later.point_time > earlier.point_time for earlier, later in pairwise(news))
        assert news[-1].point_time <= NOON
        assert after is None or news[0].point_time > after


async def test_a_forecast_stays_within_its_horizon(source: Source) -> None:
    ahead = await source.ahead(NOON, HOUR)
    assert all(NOON < reading.point_time <= NOON + HOUR for reading in ahead)
    assert all(later.point_time > earlier.point_time for earlier, later in pairwise(ahead))
    assert list(await source.ahead(NOON, timedelta(0))) == []


def test_the_next_look_lies_ahead(source: Source) -> None:
    following = source.next_at(NOON)
    assert following is None or following > NOON
    assert not source.ended(NOON)


async def test_a_trace_ends_one_step_after_its_last_reading(tmp_path: Path) -> None:
    replay = ADAPTERS["replay"](load(WatcherSettings, environ(tmp_path)))
    last = datetime(2026, 1, 2, tzinfo=UTC)
    assert replay.next_at(last) == last + timedelta(minutes=5)
    assert not replay.ended(last)
    assert replay.ended(last + timedelta(minutes=5))


async def test_a_column_may_have_another_name(tmp_path: Path) -> None:
    replay = ADAPTERS["replay"](load(WatcherSettings, environ(tmp_path, site="quebec", trace_column="site-b")))
    (first, *_) = await replay.readings(None, NOON)
    assert first.intensity_g_per_kwh == 628.3


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
        ADAPTERS["replay"](load(WatcherSettings, environ(tmp_path, trace_file=str(trace))))
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
