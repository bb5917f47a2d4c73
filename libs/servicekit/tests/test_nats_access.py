"""What a client shows to a NATS server, and how a person is told what is wrong with it. The charts' tests speak to real
servers that ask for all of it."""

from pathlib import Path

import pytest

from windfall.servicekit import nkey
from windfall.servicekit.errors import Mistake
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.settings import Settings, SiteSettings, load
from windfall.servicekit.testing.authority import Authority

URL = "tls://nats:4222"
PUBLISHED = "SU" + "ACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
"""Of NATS' own documentation; in two parts, because a test looks for seeds that were left somewhere."""


@pytest.fixture
def tls(tmp_path: Path) -> NatsTls:
    made = Authority(tmp_path, "authority").issue("service")
    return NatsTls(made.authority, made.certificate, made.key)


def test_an_open_server_is_shown_nothing() -> None:
    assert Access().options("nats://127.0.0.1:4222") == {"inbox_prefix": "_INBOX"}


def test_tls_is_asked_for_first_where_the_server_begins_with_it(tls: NatsTls) -> None:
    assert Access(tls).options(URL)["tls_handshake_first"] is False
    assert Access(tls, handshake_first=True).options(URL)["tls_handshake_first"] is True
    assert "tls_handshake_first" not in Access(handshake_first=True).options("nats://127.0.0.1:4222")


def test_each_domain_has_answers_of_its_own(tmp_path: Path) -> None:
    state = {"WINDFALL_STATE_DIR": str(tmp_path)}
    assert load(Settings, state).nats_access.inbox == "_INBOX.hub"
    assert load(SiteSettings, {**state, "WINDFALL_SITE": "quebec"}).nats_access.inbox == "_INBOX.quebec"


def test_a_seed_that_is_none_is_told_without_being_shown(tmp_path: Path) -> None:
    missing, wrong = tmp_path / "missing.nk", tmp_path / "wrong.nk"
    wrong.write_text("UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")
    with pytest.raises(Mistake, match="cannot read the nkey seed"):
        Access(nkey=missing).options("nats://127.0.0.1:4222")
    with pytest.raises(Mistake, match="holds no seed of a NATS user") as told:
        Access(nkey=wrong).options("nats://127.0.0.1:4222")
    assert "UDXU" not in str(told.value)


def test_half_a_certificate_is_a_mistake(tmp_path: Path) -> None:
    given = {"WINDFALL_STATE_DIR": str(tmp_path), "WINDFALL_NATS_CERTIFICATE": "tls.crt"}
    with pytest.raises(Mistake, match="WINDFALL_NATS_CERTIFICATE and WINDFALL_NATS_KEY go together"):
        load(Settings, given)


def test_a_key_is_written_as_nats_writes_it(tmp_path: Path) -> None:
    """The example of NATS' own documentation, and back."""
    path = tmp_path / "user.nk"
    path.write_text(f"{PUBLISHED}\n")
    known = nkey.read(path)
    assert known.public == "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    assert known.seed == path.read_text().strip() and known.seed not in repr(known)
    made = nkey.new()
    path.write_text(made.seed)
    assert nkey.read(path).public == made.public and made.seed.startswith("SU") and made.public.startswith("U")


@pytest.mark.parametrize("text", ["", "SU", "hunter2", PUBLISHED.replace("M6US", "M7US")])
def test_what_is_no_seed_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "user.nk"
    path.write_text(text)
    with pytest.raises(Mistake, match="holds no seed of a NATS user") as told:
        nkey.read(path)
    assert not text or text not in str(told.value).replace("begins with SU", "")
