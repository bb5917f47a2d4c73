"""`windfall simulate` as a person runs it: what it writes, what it prints, and what it refuses."""

import json
import math
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from windfall.cli.__main__ import windfall
from windfall.energy.power import SiteState
from windfall.servicekit.errors import ExitCode, Mistake

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(minutes=5)
WORK = ("--work-site-hours", "2")


def run(*arguments: str) -> str:
    done = CliRunner().invoke(windfall, ["simulate", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def simulated(*arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("-o", "json", *arguments))
    return found


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """Six hours of two sites, of which NORTH is clean in the second and fourth, and their prices."""
    path = tmp_path / "trace.csv"
    rows = ["point_time,NORTH,south_1,price"]
    for step in range(72):
        hour = step // 12
        values = (40.0 if hour in (1, 3) else 400.0, 90.0 if hour == 2 else 600.0, -10.0 if hour == 3 else 50.0)
        rows.append(f"{(MIDNIGHT + step * STEP).isoformat()},{','.join(map(str, values))}")
    path.write_text("\n".join(rows) + "\n")
    return str(path)


def hours(interval: dict[str, Any]) -> float:
    lasted = datetime.fromisoformat(interval["end"]) - datetime.fromisoformat(interval["start"])
    return lasted / timedelta(hours=1)


def check(told: dict[str, Any], sites: set[str]) -> None:
    """No gap, no overlap, and the same energy as the summary says."""
    intervals, summary = told["intervals"], told["summary"]
    assert {interval["site"] for interval in intervals} == sites
    for site in sites:
        lived = [interval for interval in intervals if interval["site"] == site]
        assert (lived[0]["start"], lived[-1]["end"]) == (summary["start"], summary["end"])
        assert all(earlier["end"] == later["start"] for earlier, later in pairwise(lived))
        assert all(hours(interval) > 0 for interval in lived)
        trained = sum(hours(interval) for interval in lived if interval["state"] == "training")
        assert trained == pytest.approx(summary["sites"][site]["site_hours"], abs=1e-4)
        drawn = sum(hours(interval) * interval["power_kw"] for interval in lived)
        assert drawn == pytest.approx(summary["sites"][site]["energy_kwh"], abs=1e-5)
    assert {interval["state"] for interval in intervals} <= {state.value for state in SiteState}
    for figure in ("energy_kwh", "emissions_kg", "site_hours"):
        of_sites = math.fsum(each[figure] for each in summary["sites"].values())
        assert of_sites == pytest.approx(summary[figure], abs=1e-3)


@pytest.mark.parametrize("policy", ["windfall", "threshold", "always-on", "oracle"])
@pytest.mark.parametrize(
    "aim",
    [(), (*WORK, "--deadline-hours", "20"), ("--objective", "carbon", *WORK, "--replan-minutes", "60")],
    ids=["all-windows", "some-work", "carbon"],
)
def test_intervals_have_no_gap_and_agree_with_the_summary(policy: str, aim: tuple[str, ...]) -> None:
    told = simulated("--policy", policy, *aim)
    check(told, {"site-a", "site-b", "site-c"})
    assert told["summary"]["policy"] == policy
    if aim:
        assert told["summary"]["finished"]
        assert told["summary"]["site_hours"] == pytest.approx(2, abs=1e-3)


def test_emissions_are_those_of_the_trace(trace: str) -> None:
    told = simulated("--trace", trace, "--site", "north=NORTH", "--policy", "threshold")
    level = [40.0 if hour in (1, 3) else 400.0 for hour in range(6)]
    grams = 0.0
    for interval in told["intervals"]:
        at, end = (datetime.fromisoformat(interval[edge]) for edge in ("start", "end"))
        while at < end:
            until = min(end, at.replace(minute=0, second=0) + timedelta(hours=1))
            grams += interval["power_kw"] * ((until - at) / timedelta(hours=1)) * level[at.hour]
            at = until
    assert told["summary"]["emissions_kg"] == pytest.approx(grams / 1000, abs=1e-6)


def test_the_same_question_has_the_same_answer_and_the_file_holds_it(tmp_path: Path) -> None:
    first = run("-o", "json", "--forecast", "noisy:7", "--json", str(tmp_path / "out.json"))
    assert run("-o", "json", "--forecast", "noisy:7") == first
    assert json.loads((tmp_path / "out.json").read_text()) == json.loads(first)


def test_policies_stand_side_by_side() -> None:
    told = simulated("--policy", "all")
    assert list(told["contestants"]) == ["windfall", "threshold", "always-on", "oracle"]
    assert told["summary"] == told["contestants"]["windfall"]["summary"]
    assert told["intervals"] == told["contestants"]["windfall"]["intervals"]
    emitted = {who: each["summary"]["emissions_kg"] for who, each in told["contestants"].items()}
    assert emitted["oracle"] <= emitted["windfall"] < emitted["threshold"] < emitted["always-on"]
    asked = ("--policy", "oracle", "--policy", "threshold", "--policy", "oracle")
    assert list(simulated(*asked)["contestants"]) == ["oracle", "threshold"]
    for each in told["contestants"].values():
        check(each, {"site-a", "site-b", "site-c"})


def test_names_are_free_and_power_is_as_told(trace: str) -> None:
    powers = ("--power-idle", "0.5", "--power-train", "3", "--power-provision", "1.5", "--drain-seconds", "30")
    told = simulated("--trace", trace, "--site", "NORTH", "--site", "Süd 1=south_1", "--policy", "threshold", *powers)
    check(told, {"NORTH", "Süd 1"})
    drawn = {(interval["state"], interval["power_kw"]) for interval in told["intervals"]}
    assert drawn == {("off", 0.0), ("provisioning", 1.5), ("training", 3.0), ("draining", 3.0)}
    plain = simulated("--trace", trace, "--site", "NORTH", "--power-idle", "0.5")
    assert ("provisioning", 0.5) in {(interval["state"], interval["power_kw"]) for interval in plain["intervals"]}


def test_start_and_end_cut_the_trace_and_naive_ones_are_utc(trace: str) -> None:
    asked = ["--trace", trace, "--site", "NORTH", "--start", "2026-01-01T01:00:00+01:00", "--end", "2026-01-01T03:00"]
    summary = simulated(*asked)["summary"]
    assert (summary["start"], summary["end"]) == ("2026-01-01T00:00:00+00:00", "2026-01-01T03:00:00+00:00")
    assert "--end 2026-01-01T03:00 has no time zone: it is read as UTC" in run(*asked)


def test_a_trace_without_zones_is_utc_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "naive.csv"
    path.write_text("oootime,X\n2026-01-01 00:00:00,50\n2026-01-01 00:05:00,50\n2026-01-01 00:10:00,50\n")
    said = run("--trace", str(path))
    assert "has no time zones: its instants are read as UTC" in said
    assert simulated("--trace", str(path))["summary"]["end"] == "2026-01-01T00:15:00+00:00"


def test_speed_and_prices(trace: str) -> None:
    sites = ("--trace", trace, "--site", "NORTH", "--site", "south_1")
    prices = ("--price", "NORTH=price", "--price", "south_1=price")
    asked = (*sites, *prices, "--objective", "cost", *WORK, "--speed", "NORTH=2")
    told = simulated(*asked, "--policy", "oracle")
    check_cost = told["summary"]["cost"]
    assert check_cost < 0, "an hour of negative prices is enough for the work"
    assert told["summary"]["site_hours"] == pytest.approx(2, abs=1e-3)
    assert " cost" in run(*asked)
    assert " cost" not in run(*sites)


def test_the_table_has_a_row_for_each_policy_and_with_verbose_for_each_site() -> None:
    lines = run("--policy", "all", "-v").splitlines()
    for who in ("windfall", "threshold", "always-on", "oracle"):
        assert sum(line.startswith(who) for line in lines) >= 4
    assert "of 50.00 site-hours" in run("--work-site-hours", "50")
    assert "late" in run("--work-site-hours", "20", "--deadline-hours", "3")


def test_a_plot_is_a_picture(tmp_path: Path) -> None:
    run("--policy", "all", "--plot", str(tmp_path / "out.png"))
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--site", "a=nowhere"), "--site 'a=nowhere': there is no column 'nowhere'"),
        (("--site", "nowhere"), "there is no column 'nowhere'"),
        (("--site", "=site-a"), "has no name"),
        (("--site", "a=site-a", "--site", "a=site-b"), "names a site twice"),
        (("--start", "2026-01-01T12:00Z", "--end", "2026-01-01T11:00Z"), "is not before --end"),
        (("--start", "2025-01-01T00:00Z"), "--start 2025-01-01T00:00:00Z is outside the trace"),
        (("--end", "2027-01-01T00:00Z"), "--end 2027-01-01T00:00:00Z is outside the trace"),
        (("--start", "noon"), "--start is 'noon', no instant of ISO 8601"),
        (("--start", "2026-01-01T10:00Z", "--end", "2026-01-01T10:04Z"), "no two readings"),
        (("--objective", "carbon"), "the objective carbon needs to know the work"),
        (("--objective", "budget", *WORK), "the objective budget needs a budget"),
        (("--budget-kg", "1"), "the objective fast knows no budget"),
        (("--plot", "picture.txt"), "--plot is picture.txt"),
        (("--objective", "cost", *WORK, "--price", "site-a=site-b"), "the objective cost needs a price for site-b"),
        (("--price", "site-z=site-b"), "--price 'site-z=site-b' is of no site"),
        (("--price", "site-a=euro"), "there is no column 'euro'"),
        (("--deadline-hours", "25"), "is after the end of the simulated time"),
        (("--deadline-hours", "nan"), "--deadline-hours is nan"),
        (("--deadline-hours", "0"), "--deadline-hours is 0"),
        (("--work-site-hours", "-1"), "--work-site-hours is -1"),
        (("--power-idle", "-0.1"), "--power-idle is -0.1"),
        (("--power-train", "0"), "--power-train is 0"),
        (("--power-train", "inf"), "--power-train is inf"),
        (("--provision-seconds", "-5"), "--provision-seconds is -5"),
        (("--provision-seconds", "1e300"), "--provision-seconds is 1e+300"),
        (("--speed", "site-a=0"), "--speed 'site-a=0' is no speed"),
        (("--speed", "site-a"), "--speed 'site-a' is no speed"),
        (("--speed", "site-z=2"), "--speed 'site-z=2' is of no site"),
        (("--forecast", "noisy:many"), "--forecast is 'noisy:many'"),
        (("--forecast", "noisy:-1"), "--forecast is 'noisy:-1'"),
        (("--forecast", "wise"), "--forecast is 'wise'"),
        (("--open", "150", "--close", "100"), "open below 150 is over close above 100"),
        (("--open", "nan"), "--open is nan"),
        (("--open", "9000"), "9000"),
    ],
)
def test_a_mistake_is_one_clear_line(arguments: tuple[str, ...], cause: str) -> None:
    with pytest.raises(Mistake) as refused:
        run(*arguments)
    assert cause in refused.value.cause
    assert refused.value.cure
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        (("nan", "50"), "line 2, column a: 'nan' is not from 0 to 5000 gCO2/kWh"),
        (("50", "-1"), "line 3, column a: '-1' is not from 0"),
        (("50", ""), "line 3, column a: '' holds nothing"),
        (("50", "4,4"), "line 3: 3 fields where the heading has 2"),
        (("50",), "1 rows with data"),
    ],
)
def test_a_bad_trace_is_told_by_line_and_column(tmp_path: Path, rows: tuple[str, ...], cause: str) -> None:
    path = tmp_path / "trace.csv"
    lines = [f"{(MIDNIGHT + step * STEP).isoformat()},{cells}" for step, cells in enumerate(rows)]
    path.write_text("\n".join(["point_time,a", *lines]))
    with pytest.raises(Mistake, match=str(path)) as refused:
        run("--trace", str(path))
    assert cause in refused.value.cause


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="cannot read the trace") as refused:
        run("--trace", str(tmp_path / "gone.csv"))
    assert refused.value.exit_code is ExitCode.RESOURCE
    with pytest.raises(Mistake, match="there is no folder") as refused:
        run("--json", str(tmp_path / "gone" / "out.json"))
    assert refused.value.exit_code is ExitCode.RESOURCE
    (tmp_path / "latin.csv").write_bytes(b"point_time,s\xfcd\n")
    with pytest.raises(Mistake, match="is not text in UTF-8"):
        run("--trace", str(tmp_path / "latin.csv"))


def test_too_many_sites_for_a_picture_are_refused_before_the_work(tmp_path: Path) -> None:
    sites = [part for place in range(13) for part in ("--site", f"s{place}=site-a")]
    with pytest.raises(Mistake, match="13 sites are too many"):
        run(*sites, "--plot", str(tmp_path / "out.png"))


def test_the_command_itself_ends_with_two_and_one_line() -> None:
    command = [sys.executable, "-m", "windfall.cli", "simulate", "--site", "nowhere"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("windfall: --site 'nowhere': there is no column 'nowhere'.")
    assert done.stderr.count("\n") == 1
