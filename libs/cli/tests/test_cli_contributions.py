"""``windfall contributions``: what a coordinator kept is held against sites' signatures, wherever it is looked at."""

import json
import subprocess
import sys
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from windfall.cli.contributions import JOURNAL
from windfall.contracts.attestation import Attestation, Statement, journal_key, signed_bytes, statement
from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.journal import Journal
from windfall.servicekit.signing import Signer, signer_of
from windfall.servicekit.testing.authority import Authority


def attested(signer: Signer, site: str, round_number: int, tokens: int = 64) -> Attestation:
    made = pb.Manifest(
        key=pb.ContributionKey(federation="demo", site=site, round=round_number, attempt=1),
        lease_token=1,
        base_digest="ab" * 32,
        codec="topk-ef",
        tokens=tokens,
        steps=8,
        loss=2.5,
        total_bytes=100,
        sha256="cd" * 32,
    )
    said = statement(made)
    certificate, signature = signer.sign(signed_bytes(said))
    return Attestation(
        statement=said,
        signature=b64encode(signature).decode(),
        certificate=b64encode(certificate).decode(),
        checked_at=datetime.now(UTC),
    )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "fleet")


@pytest.fixture
def kept(authority: Authority) -> list[Attestation]:
    found = []
    for site in ("quebec", "texas"):
        signer = signer_of(authority.issue(site, site), site)
        assert signer is not None
        found += [attested(signer, site, number) for number in range(3)]
    return found


def command(*words: str | Path) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "windfall.cli", "contributions", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.strip()


def written(path: Path, found: Sequence[Attestation]) -> Path:
    path.write_text("".join(f"{one.model_dump_json()}\n" for one in found))
    return path


def test_a_third_party_checks_what_it_was_handed(authority: Authority, kept: list[Attestation], tmp_path: Path) -> None:
    folder = tmp_path / "coordinator"
    journal = Journal(folder / JOURNAL, "/test")
    journal.commit(state={journal_key(Statement.model_validate_json(one.statement)): one for one in kept})
    # Its service still holds it open.
    code, handed, _ = command(folder, "--authority", authority.path, "-o", "jsonl")
    assert code == 0
    journal.close()
    file = tmp_path / "handed.jsonl"
    file.write_text(handed)
    code, said, _ = command(file, "--authority", authority.path)
    assert code == 0 and "6 of 6 contributions are signed by the sites that they name: quebec, texas" in said
    assert said.splitlines()[0].split() == [
        *("ROUND", "SITE", "ATTEMPT", "TOKENS", "STEPS", "CODEC", "BYTES", "SHA256", "HOLDS")
    ]
    code, listed, _ = command(file, "--authority", authority.path, "-o", "json")
    assert code == 0 and {one["holds"] for one in json.loads(listed)["items"]} == {"yes"}


def test_what_does_not_hold_is_found_in_one_line(authority: Authority, kept: list[Attestation], tmp_path: Path) -> None:
    altered = kept[1].statement.replace('"tokens":64', '"tokens":6400')
    assert altered != kept[1].statement
    harmed = {
        "not of quebec's key over what is said here": [kept[0], kept[1].model_copy(update={"statement": altered})],
        "it is there twice": [kept[0], kept[0]],
        "it is signed by texas": [attested(_signer(authority, "texas"), "quebec", 9)],
    }
    for because, found in harmed.items():
        file = written(tmp_path / "handed.jsonl", found)
        code, _, said = command(file, "--authority", authority.path)
        assert code == 1 and because in said and said.count("\n") == 0, said
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "fleet")
    code, _, said = command(written(tmp_path / "handed.jsonl", kept), "--authority", other.path)
    assert code == 1 and "6 of 6" in said and "another authority" in said


def _signer(authority: Authority, site: str) -> Signer:
    made = signer_of(authority.issue(f"{site}-again", site), site)
    assert made is not None
    return made


def test_every_mistake_is_one_line_with_its_cure(authority: Authority, kept: list[Attestation], tmp_path: Path) -> None:
    Journal(tmp_path / JOURNAL, "/test").close()
    (tmp_path / "no.jsonl").write_text("{}\n")
    file = written(tmp_path / "handed.jsonl", kept)
    for words, code, part in (
        ((tmp_path, "--authority", authority.path), 1, "there is no signed contribution"),
        ((tmp_path / "no.jsonl", "--authority", authority.path), 2, "line 1 is no signed contribution"),
        ((tmp_path / "nowhere", "--authority", authority.path), 3, "cannot read"),
        ((file, "--authority", tmp_path / "nothing.pem"), 3, "holds no certificate"),
        ((file,), 2, "--authority"),
    ):
        ended, _, said = command(*words)
        assert ended == code and part in said and said.count("\n") == 0, (ended, said)
