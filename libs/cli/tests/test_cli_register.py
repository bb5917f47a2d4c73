"""Who is enrolled and by which token: the decisions, and every way in which they say no."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from windfall.cli.identity import register as decisions
from windfall.cli.identity import token
from windfall.cli.identity.register import Cause, Certified, Refusal, Register, Wish
from windfall.cli.identity.signing import requested
from windfall.servicekit.errors import Mistake

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DIGEST = token.digest(b"s" * 16)


def wish(site: str = "quebec", key: str = "A") -> Wish:
    return Wish(site=site, leaf_nkey=f"U{key * 55}", requests={"leaf": b64encode(key.encode()).decode()})


def certificate(serial: str, until: datetime = NOON + 90 * 24 * HOUR) -> Certified:
    return Certified(service="leaf", serial=serial, der="", until=until)


def given_token(lasts: timedelta = HOUR) -> Register:
    return decisions.give_token(Register(), "quebec", DIGEST, NOON, lasts)


def enrolled(serial: str = "1", key: str = "A") -> Register:
    after, admissible = decisions.ask(given_token(), wish(key=key), DIGEST, NOON, NOON, automatic=True)
    assert admissible
    return decisions.admit(after, "quebec", [certificate(serial)], NOON)


def refused(
    register: Register, one: Wish, secret: str = DIGEST, now: datetime = NOON, theirs: datetime = NOON
) -> Refusal:
    with pytest.raises(Refusal) as refusal:
        decisions.ask(register, one, secret, now, theirs, automatic=True)
    return refusal.value


def test_a_site_waits_for_a_person_and_then_is_admitted() -> None:
    after, admissible = decisions.ask(given_token(), wish(), DIGEST, NOON, NOON, automatic=False)
    assert not admissible and list(after.waiting) == ["quebec"]
    # Asking again changes nothing, however often.
    assert decisions.ask(after, wish(), DIGEST, NOON + 2 * HOUR, NOON + 2 * HOUR, automatic=False) == (after, False)
    after = decisions.approve(after, "quebec", NOON)
    assert decisions.ask(after, wish(), DIGEST, NOON, NOON, automatic=False) == (after, True)
    after = decisions.admit(after, "quebec", [certificate("1")], NOON)
    assert list(after.members) == ["quebec"] and not after.waiting
    # A reply that was lost is said again.
    assert decisions.ask(after, wish(), DIGEST, NOON, NOON, automatic=False) == (after, True)
    assert [entry.what for entry in after.history] == ["token", "asked", "approved", "enrolled"]


def test_a_token_holds_for_its_site_once_and_for_its_time() -> None:
    register = given_token()
    assert "gave no such token" in str(refused(register, wish(), "f" * 64))
    assert "is for quebec, not for texas" in str(refused(register, wish("texas")))
    assert "expired at 2026-01-01 13:00Z" in str(refused(register, wish(), now=NOON + HOUR, theirs=NOON + HOUR))
    assert "used already" in str(refused(enrolled(), wish(key="B")))
    assert all(one.cause is Cause.TOKEN and "site token" in one.cure for one in (refused(register, wish(), "f" * 64),))


def test_clocks_that_are_apart_are_named() -> None:
    behind = refused(given_token(), wish(), theirs=NOON - timedelta(minutes=42))
    ahead = refused(given_token(), wish(), theirs=NOON + HOUR)
    assert behind.cause is Cause.CLOCK and "42 min behind the hub's, which says 12:00:00Z" in str(behind)
    assert "60 min ahead of" in str(ahead)


def test_a_key_of_another_site_is_not_taken() -> None:
    register = decisions.give_token(enrolled(), "texas", token.digest(b"t" * 16), NOON, HOUR)
    assert "another site's" in str(refused(register, wish("texas"), token.digest(b"t" * 16)))


def test_what_is_revoked_counts_no_longer_until_the_site_is_enrolled_anew() -> None:
    register = decisions.revoke(enrolled(), "quebec", "sold", NOON)
    assert not register.members and set(register.revoked) == {"1"} and not register.tokens
    assert "gave no such token" in str(refused(register, wish()))
    with pytest.raises(Refusal, match="no site quebec is enrolled"):
        decisions.revoke(register, "quebec", "again", NOON)
    register = decisions.give_token(register, "quebec", DIGEST, NOON, HOUR)
    register, _ = decisions.ask(register, wish(key="B"), DIGEST, NOON, NOON, automatic=True)
    register = decisions.admit(register, "quebec", [certificate("2")], NOON)
    assert list(register.members) == ["quebec"] and set(register.revoked) == {"1"}


def test_whoever_is_enrolled_anew_has_new_certificates_alone() -> None:
    register = decisions.give_token(enrolled(), "quebec", "d" * 64, NOON, HOUR)
    register, _ = decisions.ask(register, wish(key="B"), "d" * 64, NOON, NOON, automatic=True)
    register = decisions.admit(register, "quebec", [certificate("2")], NOON)
    assert set(register.revoked) == {"1"}
    assert decisions.holder(register, "2", NOON)[0] == "quebec"
    with pytest.raises(Refusal, match="revoked"):
        decisions.holder(register, "1", NOON)


def test_a_renewed_certificate_stands_beside_the_one_before_until_that_ends() -> None:
    soon = NOON + HOUR
    after, _ = decisions.ask(given_token(), wish(), DIGEST, NOON, NOON, automatic=True)
    register = decisions.admit(after, "quebec", [certificate("1", soon)], NOON)
    register = decisions.renewed(register, "quebec", certificate("2"), NOON)
    assert [decisions.holder(register, serial, NOON)[0] for serial in ("1", "2")] == ["quebec"] * 2
    with pytest.raises(Refusal):
        decisions.holder(register, "1", soon)
    later = decisions.revoke(register, "quebec", "sold", soon)
    assert set(later.revoked) == {"2"}, "what has ended need not be remembered"


@given(st.lists(st.sampled_from(["token", "ask", "other", "approve", "admit", "revoke", "late"]), max_size=12))
def test_nobody_is_a_member_without_a_token_and_an_approval(steps: list[str]) -> None:
    register, now, approved = Register(), NOON, False
    for step in steps:
        try:
            if step == "token":
                register = decisions.give_token(register, "quebec", DIGEST, now, HOUR)
            elif step in ("ask", "other"):
                one = wish(key="A" if step == "ask" else "B")
                register, _ = decisions.ask(register, one, DIGEST, now, now, automatic=False)
            elif step == "approve":
                register, approved = decisions.approve(register, "quebec", now), True
            elif step == "admit" and "quebec" in register.waiting and register.waiting["quebec"].approved:
                register = decisions.admit(register, "quebec", [certificate("1")], now)
            elif step == "revoke":
                register, approved = decisions.revoke(register, "quebec", "", now), False
            elif step == "late":
                now += 2 * HOUR
        except Refusal:
            continue
        assert approved or not register.members
        assert Register.model_validate_json(register.model_dump_json()) == register


def test_a_token_is_read_as_it_is_written_and_shows_its_secret_nowhere_else() -> None:
    made = token.new("quebec", b"f" * 32)
    assert token.read(f" {made.written()}\n") == made
    assert str(made.secret) not in repr(made)
    for cut in (made.written()[:-3], "quebec", "a.b.c", "", f"QUEBEC{made.written()[6:]}", "….….…"):
        with pytest.raises(Mistake, match="no token"):
            token.read(cut)


def test_a_site_s_request_says_whose_it_is() -> None:
    assert requested("quebec", "leaf", ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(Mistake, match="hub's domain"):
        token.site_named("hub")
