"""``windfall report``: what a site has kept, checked and summed, and what was done to it."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from windfall.cli import ledger, plots, report
from windfall.cli.recording import Said, line
from windfall.cli.summary import Run, energy, summarise
from windfall.contracts.events import EnergyRecorded, SignalKind
from windfall.energy.book import Book, Terms, begin, finish, hear, learn
from windfall.energy.chain import Entry, Genesis, Sealed, public_key_of, seal
from windfall.energy.intensity import Belief
from windfall.energy.ledger import Told
from windfall.energy.quotes import Quote
from windfall.servicekit.errors import ExitCode, Mistake


def _key(site: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(site.encode().ljust(32, b"."))


def _kept(site: str, run: Run, recorded: Sequence[Said]) -> list[Sealed]:
    """What the site's watcher would have kept of the run."""
    genesis = Genesis(
        site=site, federation=run.federation, public_key=public_key_of(_key(site)), created_at=run.trace_start
    )
    sealed = [seal(genesis, _key(site))]
    terms = Terms(power=run.power, belief=Belief(timedelta(hours=1)), clean_below_g_per_kwh=run.open_below_g_per_kwh)
    book = begin(genesis, sealed[0].hash)
    for point in run.traces[site].points:
        book = learn(book, Quote(SignalKind.AVERAGE, point.point_time, point.intensity_g_per_kwh), terms)

    def keep(closed: tuple[Book, tuple[Entry, ...]]) -> Book:
        sealed.extend(seal(entry, _key(site)) for entry in closed[1])
        return closed[0]

    for said in recorded:
        if isinstance(said.message, Told) and said.message.site == site:
            book = keep(hear(book, said.message, said.message.at, terms))
    keep(finish(book, run.trace_end, terms))
    return sealed


def _recorded(sealed: Sealed) -> Said:
    entry = sealed.record
    assert isinstance(entry, Entry)
    fields = entry.model_dump(include=set(EnergyRecorded.model_fields)) | {"state": entry.state.value}
    message = EnergyRecorded(**fields, id=UUID(sealed.hash[:32]), at=entry.end, entry_hash=sealed.hash)
    return Said(message, "/windfall/energy-watcher/" + entry.site)


def _hand_over(folder: Path, site: str, sealed: Sequence[Sealed]) -> None:
    (folder / ledger.FOLDER).mkdir(exist_ok=True)
    (folder / ledger.FOLDER / f"{site}.jsonl").write_text("".join(f"{each.line}\n" for each in sealed))
    pem = (
        _key(site)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (folder / ledger.FOLDER / f"{site}.pub").write_bytes(pem)


@pytest.fixture
def folder(run: Run, recorded: Sequence[Said], tmp_path: Path) -> Path:
    """A run folder with the ledgers of all sites, and the events that they published."""
    said = list(recorded)
    for site in run.sites:
        sealed = _kept(site, run, recorded)
        _hand_over(tmp_path, site, sealed)
        said += [_recorded(each) for each in sealed[1:]]
    (tmp_path / "events.jsonl").write_text("".join(f"{line(each)}\n" for each in said))
    return tmp_path


def _figures(folder: Path) -> dict[str, object]:
    found = ledger.section(*ledger.of_run(folder))
    assert found is not None
    return found


def test_the_ledgers_agree_with_the_account_after_the_fact(run: Run, recorded: Sequence[Said], folder: Path) -> None:
    found = ledger.section(*ledger.of_run(folder))
    assert found is not None and found["verified"]
    used, always = energy(run, recorded)
    for site in run.sites:
        total = found["sites"][site]["total"]
        assert total["energy_kwh"] == pytest.approx(used.sites[site].energy_kwh, rel=0.01)
        assert total["emissions_kg"] == pytest.approx(used.sites[site].emissions_kg, rel=0.01)
        assert total["always_on_kg"] == pytest.approx(always.sites[site].emissions_kg, rel=0.01)
    summary = summarise(run, recorded, found)
    assert summary["ledger"]["total"]["energy_kwh"] == pytest.approx(summary["energy_kwh"], rel=0.01)
    assert summary["ledger"]["total"]["emissions_kg"] == pytest.approx(summary["emissions_kg"], rel=0.01)
    assert summary["ledger"]["total"]["clean_energy_share"] == pytest.approx(summary["clean_energy_share"], rel=0.01)
    assert summary["ledger"]["total"]["always_on_kwh"] == pytest.approx(summary["energy_always_on_kwh"], rel=0.01)


def test_states_add_up_to_their_total(run: Run, folder: Path) -> None:
    found = ledger.section(*ledger.of_run(folder))
    assert found is not None
    for name in ("energy_kwh", "emissions_kg", "always_on_kwh", "always_on_kg"):
        assert sum(state[name] for state in found["states"].values()) == pytest.approx(found["total"][name], abs=1e-5)
        sites = [site["total"][name] for site in found["sites"].values()]
        assert sum(sites) == pytest.approx(found["total"][name], abs=1e-5)
    assert list(found["states"]) == ["off", "provisioning", "idle", "training", "draining"]
    assert found["states"]["training"]["method"] == "modelled" and found["states"]["off"]["method"] == "–"
    json.dumps(found, allow_nan=False)


def _report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "windfall.cli", "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_shows_a_run(run: Run, folder: Path) -> None:
    shown = _report(folder)
    assert (shown.returncode, shown.stderr) == (ExitCode.OK, "")
    rows = [row.split() for row in shown.stdout.splitlines()]
    assert rows[0][:3] == ["site", "state", "kWh"]
    assert {tuple(row[:2]) for row in rows[1:-4]} >= {("site-a", "training"), ("site-c", "total"), ("all", "total")}
    assert shown.stdout.count("entries hold, signed by") == len(run.sites)
    machine = _report(folder, "-o", "json")
    version = {"apiVersion": "windfall.dev/cli/v1", "kind": "Statement"}
    assert json.loads(machine.stdout) == {**version, **_figures(folder)}


def _edit(path: Path) -> None:
    lines = path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"state":"provisioning"', '"state":"idle"')
    path.write_text("".join(lines))


def _cut(path: Path) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_edit, "the ledger of site-b is broken at entry 2: its content is not what was hashed"),
        (_cut, "the end is cut off: the site published entries up to"),
        (lambda path: path.write_text(""), "there is no record at all"),
        (lambda path: path.write_bytes(b"\xff\x00"), "it is not a record"),
        (lambda path: path.with_name("site-a.pub").replace(path.with_name("site-b.pub")), "under the key"),
    ],
    ids=["edited", "cut", "emptied", "noise", "another key"],
)
def test_a_broken_ledger_is_one_line_and_a_failure(folder: Path, harm: Callable[[Path], object], words: str) -> None:
    harm(folder / ledger.FOLDER / "site-b.jsonl")
    shown = _report(folder)
    assert shown.returncode == ExitCode.FAILED
    assert shown.stderr.startswith("windfall: ") and shown.stderr.count("\n") == 1
    assert words in shown.stderr
    broken = next(row.split() for row in shown.stdout.splitlines() if row.startswith("site-b"))
    assert broken[1:3] == ["broken", "–"]
    assert "site-a  training" in shown.stdout.replace("   ", "  ")


def test_one_ledger_alone_and_with_a_key_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    one = folder / ledger.FOLDER / "site-a.jsonl"
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    (alone / "ledger.jsonl").write_text(one.read_text())
    assert "(as the ledger itself says)" in _report(alone).stdout
    assert "(as the ledger itself says)" not in _report(alone, "--key", one.with_suffix(".pub")).stdout
    assert _report(alone, "--key", one.with_name("site-b.pub")).returncode == ExitCode.FAILED


def test_what_cannot_be_reported_says_why(folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    noise = tmp_path / "noise.pub"
    noise.write_text("no key")
    one = folder / ledger.FOLDER / "site-a.jsonl"
    for path, key, words in (
        (empty, None, "there is no ledger in"),
        (tmp_path / "absent.jsonl", None, "cannot read"),
        (folder, noise, "--key is one site's"),
        (one, noise, "holds no public key in PEM"),
        (one, tmp_path / "absent.pub", "cannot read"),
    ):
        with pytest.raises(Mistake, match=words):
            ledger.of_run(path, key)
    assert ledger.section(()) is None


def test_the_page_shows_the_ledgers(run: Run, recorded: Sequence[Said], folder: Path) -> None:
    found = ledger.section(*ledger.of_run(folder))

    def page(section: dict[str, object] | None) -> str:
        return report.page(
            summary=summarise(run, recorded, section),
            said=recorded,
            spans=[],
            pictures={"loss": plots.svg(plots.losses(recorded)), "windows": "<svg></svg>"},
            processes=[],
            policy={"seed": "11"},
            settings={},
            digests={},
            command="windfall demo",
        )

    assert "all of them hold" in page(found) and "<td>provisioning</td>" in page(found)
    assert "No site has kept a ledger." in page(None)
    _edit(folder / ledger.FOLDER / "site-b.jsonl")
    assert "the ledger of site-b is broken at entry 2" in page(ledger.section(*ledger.of_run(folder)))
