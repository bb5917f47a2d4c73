"""Profiles from a server and from files, and the command's exit code when hardware drifted."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import yaml
from click.testing import CliRunner

from windfall.cli import profile as profiles
from windfall.cli.__main__ import windfall
from windfall.cli.events import publish
from windfall.cli.server import declared
from windfall.contracts.events import Measured, NodeProfiled, Recommendation
from windfall.contracts.hardware import Accelerator, Hardware
from windfall.contracts.profile import Identity, Local, Profile, told
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.natsserver import NatsServer

GPU = Accelerator(vendor="amd", model="AMD Instinct MI300X", canonical_model="mi300x", driver="6.10.5")


def profiled(gpus: int = 8, site: str = "site-a") -> NodeProfiled:
    return NodeProfiled(
        id=uuid4(),
        at=datetime(2026, 1, 1, 12, tzinfo=UTC),
        site=site,
        window_id=UUID(int=5),
        lease_token=7,
        node=f"{site}-7",
        measured=Measured(
            fingerprint="v1",
            cpu_model="EPYC",
            cpu_cores=96,
            memory_bytes=2**40,
            matmul_gflops=61.25,
            missing={"link_rtt_ms": "no coordinator"},
        ),
        recommendation=Recommendation(micro_batch=8, local_steps=40, because="it is so"),
        hardware=Hardware(accelerators=(GPU,) * gpus),
    )


@pytest.fixture
async def url(nats_server: NatsServer) -> AsyncIterator[str]:
    """A site's server with its streams."""
    await declared([nats_server.plan])
    yield nats_server.url


def saved(path: Path, event: NodeProfiled) -> Path:
    path.write_text(profiles.document(told(event)))
    return path


async def test_the_newest_profile_is_had_and_lives_in_a_folder(url: str, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no node of 'site-a' was profiled yet"):
        await profiles.profiles(url, "site-a")
    with pytest.raises(Mistake, match="unknown site 'site-b'"):
        await profiles.of("site-b", url)
    for event in (profiled(7), newest := profiled(8)):
        await publish(url, event)
    assert await profiles.profiles(url) == {"site-a": told(newest)}
    folder = tmp_path / "fleet"
    found = await profiles.profiles(url)
    assert profiles.export(found, folder) == [(folder / "site-a.json", True)]
    assert profiles.export(found, folder) == [(folder / "site-a.json", False)]
    assert await profiles.compared(url, str(folder), None, 0.2) == []
    await publish(url, profiled(6))
    (drift,) = await profiles.compared(url, str(folder), None, 0.2)
    assert (drift.kind, drift.before, drift.after) == ("lost", "8 × mi300x", "6 × mi300x")


def test_a_file_is_shown_in_three_forms(tmp_path: Path) -> None:
    path = saved(tmp_path / "site-a.json", profiled())
    shown = {form: CliRunner().invoke(windfall, ["profile", "get", str(path), "-o", form]) for form in ("json", "yaml")}
    assert Profile.model_validate_json(shown["json"].output) == told(profiled())
    assert yaml.safe_load(shown["yaml"].output) == json.loads(shown["json"].output)
    assert json.loads(shown["json"].output)["apiVersion"] == "windfall.dev/profile/v1"
    table = CliRunner().invoke(windfall, ["profile", "get", str(path)]).output
    for cell in ("site-a", "site-a-7", "2026-01-01 12:00", "8 × mi300x", "6.10.5", "1024.0 GiB", "61.2"):
        assert cell in table


def test_drift_ends_with_its_own_code(tmp_path: Path) -> None:
    before, after = (saved(tmp_path / f"{n}.json", profiled(n)) for n in (8, 7))
    same = CliRunner().invoke(windfall, ["profile", "diff", str(before), str(before)])
    assert (same.exit_code, same.output) == (0, "")
    asked = CliRunner().invoke(windfall, ["profile", "diff", str(before), str(after), "-o", "json"])
    assert isinstance(asked.exception, Mistake)
    assert asked.exception.exit_code is ExitCode.DIFFERENT
    assert "the hardware of site-a is not as it was (1)" in str(asked.exception)
    assert json.loads(asked.output)["items"] == [
        {"site": "site-a", "part": "accelerators", "kind": "lost", "before": "8 × mi300x", "after": "7 × mi300x"}
    ]
    table = CliRunner().invoke(windfall, ["profile", "diff", str(before), str(after)]).output
    assert "8 × mi300x" in table


def test_a_fleet_is_compared_site_by_site(tmp_path: Path) -> None:
    was, now = tmp_path / "was", tmp_path / "now"
    for folder, sites in ((was, ("site-a", "site-b", "site-c")), (now, ("site-b", "site-c", "site-d"))):
        folder.mkdir()
        for site in sites:
            saved(folder / f"{site}.json", profiled(8 if folder is was or site == "site-c" else 7, site))
    asked = CliRunner().invoke(windfall, ["profile", "diff", str(was), str(now), "-o", "json"])
    assert [(one["site"], one["kind"]) for one in json.loads(asked.output)["items"]] == [
        ("site-b", "lost"),
        ("site-a", "lost"),
        ("site-d", "added"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [("{}", "is no profile: site"), ("hello", "is no profile"), (None, "cannot read"), ("[", "is no profile")],
)
def test_a_file_that_is_no_profile_is_said(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Mistake, match=why):
        profiles.read(path)


def test_an_empty_folder_and_strangers_are_said(tmp_path: Path) -> None:
    asked = CliRunner().invoke(windfall, ["profile", "get", str(tmp_path)])
    assert "there is no profile in" in str(asked.exception)


def test_what_stays_at_the_site_is_shown_there(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(told(profiled(1), Local(accelerators=(Identity(uuid="GPU-1"),))).model_dump_json())
    assert "GPU-1" in CliRunner().invoke(windfall, ["profile", "get", str(path), "-o", "yaml"]).output
