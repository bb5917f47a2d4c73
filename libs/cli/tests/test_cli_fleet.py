"""The plan of a demo: which processes, with which environment."""

import importlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest

from windfall.cli.fleet import DAY, FAST, FlowerApp, Plan, Program, Wish, in_words, plan
from windfall.cli.preparation import HELD_OUT_CHARACTERS, Asked, furnish, prepare, split
from windfall.contracts.subjects import HUB
from windfall.servicekit.clock import ReplayClock, parse_clock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import Settings, load

SITES = ("site-a", "site-b", "site-c")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def _plan(folder: Path = Path("/run-folder")) -> Plan:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    wish = Wish(folder, SITES, folder / "trace.csv", start, start + timedelta(days=1), task_settings={"preset": "tiny"})
    return plan(wish, NOW, count(40_000))


PLAN = _plan()
BY_NAME: Mapping[str, Program] = {program.name: program for program in PLAN.programs}


def test_a_hub_and_a_leaf_for_each_site() -> None:
    hub, *leaves = PLAN.servers
    assert hub.domain == HUB
    assert [leaf.domain for leaf in leaves] == list(SITES)
    assert all(leaf.hub_leaf_port == hub.leaf_port for leaf in leaves)


def test_no_two_things_share_a_port_or_a_folder() -> None:
    ports = [server.port for server in PLAN.servers] + [int(PLAN.coordinator.rpartition(":")[2])]
    assert len(set(ports)) == len(ports)
    folders = [program.folder for program in PLAN.programs]
    assert len(set(folders)) == len(folders)
    traces = [program.environ["WINDFALL_TRACES_FILE"] for program in PLAN.programs]
    assert len(set(traces)) == len(traces)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("service", ["energy-watcher", "provisioner", "profiler"])
def test_each_site_has_its_own_three(service: str, site: str) -> None:
    environ = BY_NAME[f"{service}@{site}"].environ
    server = next(server for server in PLAN.servers if server.domain == site)
    assert environ["WINDFALL_SITE"] == site
    assert environ["WINDFALL_NATS_URL"] == server.url


def test_the_coordinator_comes_first_and_serves_the_hub() -> None:
    first = PLAN.programs[0]
    assert first.name == "federation-coordinator@hub"
    assert "WINDFALL_SITE" not in first.environ
    assert first.environ["WINDFALL_NATS_URL"] == PLAN.hub_url


def test_all_share_one_clock() -> None:
    (text,) = {program.environ["WINDFALL_CLOCK"] for program in PLAN.programs}
    assert parse_clock(text) == ReplayClock(PLAN.wish.trace_start, NOW, DAY.speed)


@pytest.mark.parametrize("pace", [DAY, FAST], ids=["day", "fast"])
def test_wall_durations_become_business_time(pace: object) -> None:
    assert DAY.business(timedelta(seconds=1)) == timedelta(minutes=16)
    assert pace in (DAY, FAST)


@pytest.mark.parametrize("program", PLAN.programs, ids=lambda program: program.name)
def test_every_service_understands_what_it_is_told(program: Program) -> None:
    service = program.argv[2].removeprefix("windfall.")
    module = importlib.import_module(f"windfall.{service}.settings")
    (kind,) = [
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Settings) and found.__module__ == module.__name__
    ]
    own = {key: value for key, value in program.environ.items() if not key.startswith("WINDFALL_TRAINER_")}
    told = {key for key in own if key.startswith("WINDFALL_")}
    assert told <= {f"WINDFALL_{name.upper()}" for name in kind.model_fields}
    load(kind, own)


def test_a_plan_can_be_read() -> None:
    assert len(in_words(PLAN)) == len(PLAN.servers) + len(PLAN.programs) == 14


@pytest.mark.parametrize("sites", [1, 2, 3, 7])
def test_text_is_split_into_equal_parts_and_the_end_is_held_out(sites: int) -> None:
    text = "".join(chr(33 + index % 90) for index in range(HELD_OUT_CHARACTERS + 100_000))
    shards, held_out = split(text, sites)
    assert len({len(shard) for shard in shards}) == 1
    assert text.startswith("".join(shards))
    assert text.endswith(held_out) and len(held_out) == HELD_OUT_CHARACTERS


def test_a_run_folder_is_furnished(tmp_path: Path) -> None:
    prepared = prepare(Asked(fast=True, out=tmp_path / "run", sites=("site-b", "site-c")), NOW)
    assert prepared.wish.sites == ("site-b", "site-c")
    made = plan(prepared.wish, NOW, count(40_000))
    furnish(made)
    texts = [(made.data_of(site) / "text.txt").read_text() for site in prepared.wish.sites]
    assert texts[0] != texts[1]
    assert (made.held_out / "text.txt").read_text() not in texts
    assert prepared.wish.trace_file.read_text().startswith("point_time,site-b,site-c\n")
    assert prepared.wish.trace_end - prepared.wish.trace_start == timedelta(hours=6, minutes=30)


def test_a_flower_app_takes_the_place_of_coordinator_and_trainer() -> None:
    app = FlowerApp(Path("/app"), "somebodys", "rounds=3")
    chosen = plan(replace(PLAN.wish, flower=app), NOW, count(40_000))
    coordinator, *others = chosen.programs
    assert coordinator.name == "federation-coordinator@hub"
    assert coordinator.argv[-1] == "windfall.flower_adapter.coordinator"
    assert coordinator.environ["WINDFALL_FLOWER_APP"] == "/app"
    assert coordinator.environ["WINDFALL_RUN_CONFIG"] == "rounds=3"
    (provisioner,) = [program for program in others if program.name == "provisioner@site-b"]
    assert provisioner.environ["WINDFALL_NODE_MODULE"] == "windfall.flower_adapter.site"
    assert provisioner.environ["WINDFALL_TRAINER_NODE_CONFIG"] == "partition-id=1 num-partitions=3"
    settings = importlib.import_module("windfall.provisioner.settings")
    assert load(settings.ProvisionerSettings, provisioner.environ).node_module == "windfall.flower_adapter.site"


@pytest.mark.parametrize(
    ("toml", "text"),
    [
        (None, "cannot read"),
        ("[project]\nname = 'x'", "is not that of a Flower app"),
        ("[[", "Mend it and start again"),
    ],
)
def test_a_folder_that_is_no_flower_app_is_refused_before_anything_starts(
    tmp_path: Path, toml: str | None, text: str
) -> None:
    if toml is not None:
        (tmp_path / "pyproject.toml").write_text(toml)
    with pytest.raises(Mistake, match=text):
        prepare(Asked(flower_app=tmp_path, out=tmp_path / "run"), NOW)
    assert not (tmp_path / "run").exists()


def test_a_sites_data_is_its_own_folder_where_there_is_one(tmp_path: Path) -> None:
    (tmp_path / "site-a").mkdir()
    app = FlowerApp(Path("/app"), "somebodys", data=tmp_path)
    chosen = plan(replace(PLAN.wish, flower=app), NOW, count(40_000))
    assert chosen.data_of("site-a") == tmp_path / "site-a"
    assert chosen.data_of("site-b") == tmp_path


def test_long_durations_are_written_as_settings_read_them() -> None:
    slow = replace(PLAN.wish, pace=replace(DAY, speed=1.0, stale_after=timedelta(days=12.5, microseconds=250_000)))
    (watcher, *_) = plan(slow, NOW, count(40_000)).named("energy-watcher")
    assert watcher.environ["WINDFALL_STALE_AFTER"] == "PT1080000.25S"
