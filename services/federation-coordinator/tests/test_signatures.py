"""What a site signs counts for that site, that round and those words; whatever else carries a signature is refused."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.attestation import PREFIX, signed_bytes, statement
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.signatures import Demand, Signatures, Trust
from windfall.servicekit.journal import Journal
from windfall.servicekit.signing import Signer, signer_of
from windfall.servicekit.testing.authority import Authority


def manifest(**changes: object) -> pb.Manifest:
    key = pb.ContributionKey(federation="demo", site="site-a", round=3, attempt=2)
    made = pb.Manifest(
        key=key, lease_token=4, base_digest="ab" * 32, codec="fp32", tokens=64, steps=8, loss=2.25,
        total_bytes=100, sha256="cd" * 32, rows=[pb.RowRange(begin=0, end=8)],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def signed(made: pb.Manifest, signer: Signer) -> pb.Manifest:
    made.certificate, made.signature = signer.sign(signed_bytes(statement(made)))
    return made


class Fleet:
    """An authority, and what sites sign with."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "fleet")
        self.journal = Journal(None, "/test")
        self.revoked = folder / "revoked"
        self.revoked.write_text("")

    def signer(self, site: str, name: str = "") -> Signer:
        made = signer_of(self.authority.issue(name or site, site), site)
        assert made is not None
        return made

    def signatures(self, demand: Demand = "where-known", journal: Journal | None = None) -> Signatures:
        trust = Trust(self.authority.path, self.revoked, demand)
        return Signatures(journal or self.journal, trust, lambda: datetime.now(UTC))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def refusal(work: Callable[[], object]) -> str:
    with pytest.raises(Refusal) as error:
        work()
    assert error.value.reason == "signature"
    return error.value.detail


def test_what_a_site_signs_is_kept_with_what_proves_it(fleet: Fleet) -> None:
    signatures = fleet.signatures()
    proof = signatures.check(signed(manifest(), fleet.signer("site-a")))
    assert proof is not None
    rows = signatures.kept(proof)
    assert set(rows) == {f"{PREFIX}0000000003/site-a/2", "signers"}
    assert signatures.kept(None) == {}


def _tokens(made: pb.Manifest) -> None:
    made.tokens *= 1000


def _loss(made: pb.Manifest) -> None:
    made.loss = 0.01


def _round(made: pb.Manifest) -> None:
    made.key.round += 1


def _attempt(made: pb.Manifest) -> None:
    made.key.attempt += 1


def _federation(made: pb.Manifest) -> None:
    made.key.federation = "other"


def _bytes(made: pb.Manifest) -> None:
    made.sha256 = "ef" * 32


def _base(made: pb.Manifest) -> None:
    made.base_digest = "ef" * 32


def _rows(made: pb.Manifest) -> None:
    made.rows.append(pb.RowRange(begin=8, end=16))


def _signature(made: pb.Manifest) -> None:
    made.signature = made.signature[:-1] + bytes([made.signature[-1] ^ 1])


@pytest.mark.parametrize(
    "change",
    [_tokens, _loss, _round, _attempt, _federation, _bytes, _base, _rows, _signature],
    ids=lambda one: one.__name__,
)
def test_a_word_that_was_changed_after_signing_is_refused(fleet: Fleet, change: Callable[[pb.Manifest], None]) -> None:
    made = signed(manifest(), fleet.signer("site-a"))
    change(made)
    said = refusal(lambda: fleet.signatures().check(made))
    assert said == "the signature is not of site-a's key over what is said here"


def test_where_a_cut_upload_goes_on_is_not_signed(fleet: Fleet) -> None:
    made = signed(manifest(), fleet.signer("site-a"))
    made.offset = 50
    assert fleet.signatures().check(made) is not None


def test_another_sites_key_and_an_unknown_authoritys_prove_nothing(fleet: Fleet, tmp_path: Path) -> None:
    signatures = fleet.signatures()
    said = refusal(lambda: signatures.check(signed(manifest(), fleet.signer("site-b"))))
    assert said == "it is signed by site-b, which may not speak for site-a"
    (tmp_path / "elsewhere").mkdir()
    strange = signer_of(Authority(tmp_path / "elsewhere", "fleet").issue("site-a", "site-a"), "site-a")
    assert strange is not None
    assert "another authority" in refusal(lambda: signatures.check(signed(manifest(), strange)))
    nameless = Signer(fleet.authority.issue("somebody"))
    assert "names no site" in refusal(lambda: signatures.check(signed(manifest(), nameless)))
    over = Signer(fleet.authority.issue("late", "site-a", timedelta(hours=-1)))
    assert "held until" in refusal(lambda: signatures.check(signed(manifest(), over)))
    assert "cannot be read" in refusal(lambda: signatures.check(manifest(signature=b"x", certificate=b"\x30\x00")))
    assert "bytes" in refusal(lambda: signatures.check(manifest(signature=b"x", certificate=bytes(10_000))))


def test_a_certificate_that_was_revoked_signs_no_more(fleet: Fleet) -> None:
    made = signed(manifest(), fleet.signer("site-a"))
    signatures = fleet.signatures()
    assert signatures.check(made) is not None
    fleet.revoked.write_text(f"{x509.load_der_x509_certificate(made.certificate).serial_number:x}\n")
    assert refusal(lambda: signatures.check(made)) == "the certificate was revoked"


def test_a_key_that_is_replaced_counts_from_the_next_signature_on(fleet: Fleet, tmp_path: Path) -> None:
    signatures = fleet.signatures("required")
    files = fleet.authority.issue("site-a", "site-a")
    signer = signer_of(files, "site-a")
    assert signer is not None
    before = signed(manifest(), signer)
    renewed = fleet.authority.issue("site-a-new", "site-a")
    # The certificate first, as a keeper does: until its key is there, too, the pair before signs.
    renewed.certificate.replace(files.certificate)
    assert signed(manifest(), signer).certificate == before.certificate
    renewed.key.replace(files.key)
    after = signed(manifest(), signer)
    assert after.certificate != before.certificate
    assert signatures.check(before) is not None and signatures.check(after) is not None


def test_who_must_sign(fleet: Fleet) -> None:
    unsigned, signer = manifest(), fleet.signer("site-a")
    known = fleet.signatures()
    known.admit("site-a", False)
    assert known.check(unsigned) is None
    fleet.journal.commit(state=known.kept(known.check(signed(manifest(), signer))))
    # From now on nobody may speak for it without its key, after a restart either.
    for signatures in (known, fleet.signatures()):
        assert refusal(lambda: signatures.check(unsigned)).startswith("site-a has signed before and does not now")  # noqa: B023
        assert "does not now" in refusal(lambda: signatures.admit("site-a", False))  # noqa: B023
        signatures.admit("site-a", True)
        signatures.admit("site-b", False)
    required = fleet.signatures("required", Journal(None, "/test"))
    assert "demands it" in refusal(lambda: required.admit("site-b", False))
    assert "demands it" in refusal(lambda: required.check(unsigned))
    off = fleet.signatures("off")
    off.admit("site-a", False)
    assert off.check(manifest(signature=b"nonsense")) is None


def test_whose_certificate_does_not_name_the_site_does_not_sign(fleet: Fleet) -> None:
    assert signer_of(None, "site-a") is None
    assert signer_of(fleet.authority.issue("somebody"), "site-a") is None
    assert signer_of(fleet.authority.issue("site-b", "site-b"), "site-a") is None


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**40), st.floats(allow_nan=False), st.booleans())
def test_a_statement_has_one_form(attempt: int, tokens: int, loss: float, partial_work: bool) -> None:
    made = manifest(tokens=tokens, loss=loss, partial=partial_work)
    made.key.attempt = attempt
    again = pb.Manifest.FromString(made.SerializeToString())
    assert statement(again) == statement(made)
    other = pb.Manifest.FromString(made.SerializeToString())
    other.tokens += 1
    assert statement(other) != statement(made)
