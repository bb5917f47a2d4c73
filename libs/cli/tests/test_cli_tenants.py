"""Who else is at a hub and what is lent: the decisions, and every way in which they say no."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from windfall.cli.identity import register as decisions
from windfall.cli.identity import tenants, token
from windfall.cli.identity.folders import HubFile, HubFolder
from windfall.cli.identity.register import Certified, Guest, Lent, Refusal, Register, Wish
from windfall.cli.identity.tenant_keys import keys_for
from windfall.servicekit import nkey
from windfall.servicekit.errors import Mistake

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GIB = 1024**3
OWN = {"federation-coordinator": f"U{'O' * 55}"}
OPENED = Lent(fact="window.opened.quebec", lender="default", borrower="lab")


def guest(key: str = "L", gib: int = 1) -> Guest:
    keys = {"admin": f"U{key * 55}"}
    return Guest(federation="gcn", coordinator="lab.example.org:9500", keys=keys, max_bytes=gib * GIB, since=NOON)


def two() -> Register:
    return tenants.let_in(Register(), "lab", guest(), OWN, NOON)


def joined(register: Register, site: str, tenant: str, key: str) -> Register:
    digest = token.digest(site.encode())
    wish = Wish(site=site, leaf_nkey=f"U{key * 55}", requests={})
    after = decisions.give_token(register, site, digest, NOON, timedelta(hours=1), tenant)
    after, admissible = decisions.ask(after, wish, digest, NOON, NOON, automatic=True)
    assert admissible
    certificate = Certified(service="leaf", serial=site, der="", until=NOON + timedelta(days=90))
    return decisions.admit(after, site, [certificate], NOON)


def test_a_site_belongs_to_the_tenant_that_its_token_is_of() -> None:
    after = joined(joined(two(), "quebec", "default", "Q"), "texas", "lab", "T")
    assert tenants.leaves_of(after, "default") == {"quebec": f"U{'Q' * 55}"}
    assert tenants.tenant_of(after, "lab").leaves == {"texas": f"U{'T' * 55}"}
    # What a register said before there were tenants is the default one's.
    old = Register.model_validate({"members": {"quebec": after.members["quebec"].model_dump(exclude={"tenant"})}})
    assert old.members["quebec"].tenant == "default" and not old.tenants
    with pytest.raises(Refusal, match="texas is a site of lab"):
        decisions.give_token(after, "texas", "d", NOON, timedelta(hours=1))
    with pytest.raises(Refusal, match="no tenant acme is here"):
        decisions.give_token(after, "oregon", "d", NOON, timedelta(hours=1), "acme")


def test_whose_a_site_is_stands_in_its_token() -> None:
    digest, wish = token.digest(b"q"), Wish(site="quebec", leaf_nkey=f"U{'Q' * 55}", requests={})
    after = decisions.give_token(two(), "quebec", digest, NOON, timedelta(hours=1), owner="acme")
    after, _ = decisions.ask(after, wish, digest, NOON, NOON, automatic=True)
    after = joined(decisions.admit(after, "quebec", [], NOON), "texas", "default", "T")
    assert tenants.owners_of(after, "default") == {"quebec": "acme"} and not tenants.owners_of(after, "lab")


def test_a_tenant_goes_once_its_sites_have_and_takes_its_loans_along() -> None:
    after = tenants.lend(joined(two(), "texas", "lab", "T"), OPENED, NOON, ends=False)
    after = decisions.give_token(after, "oregon", "d", NOON, timedelta(hours=1), "lab")
    with pytest.raises(Refusal, match=r"lab has the sites texas. `windfall site revoke texas` first"):
        tenants.let_go(after, "lab", NOON)
    after = tenants.let_go(decisions.revoke(after, "texas", "sold", NOON), "lab", NOON)
    assert not (after.tenants or after.loans or any(one.tenant == "lab" for one in after.tokens.values()))
    with pytest.raises(Refusal, match="no tenant lab is here"):
        tenants.let_go(after, "lab", NOON)


def test_a_loan_is_there_once_and_ends() -> None:
    after = tenants.lend(tenants.lend(two(), OPENED, NOON, ends=False), OPENED, NOON, ends=False)
    assert [loan.subject for loan in tenants.loans_of(after)] == ["windfall.v1.window.opened.quebec"]
    assert list(tenants.lends(after, "default")) == ["lab:window.opened.quebec"]
    assert not list(tenants.lends(after, "lab"))
    after = tenants.lend(after, OPENED, NOON, ends=True)
    assert not after.loans
    with pytest.raises(Refusal, match=r"default lends lab no window.opened.quebec"):
        tenants.lend(after, OPENED, NOON, ends=True)
    for fact, lender, borrower in (
        ("window.opened.*", "default", "lab"),
        ("window.sold.quebec", "default", "lab"),
        ("window.opened.quebec", "lab", "lab"),
        ("window.opened.quebec", "acme", "lab"),
    ):
        with pytest.raises(Refusal, match=r"no name|lends no fact|lends itself|no tenant acme"):
            tenants.lend(after, Lent(fact=fact, lender=lender, borrower=borrower), NOON, ends=False)


@pytest.mark.parametrize(
    ("name", "one", "why"),
    [
        ("default", guest("X"), "cannot be called 'default'"),
        ("acme", guest("L"), "two have one key"),
        ("acme", guest("O"), "two have one key"),
        ("acme", guest("X", 14), "14 GiB together"),
    ],
)
def test_who_cannot_be_told_apart_or_kept_is_not_let_in(name: str, one: Guest, why: str) -> None:
    with pytest.raises(Refusal, match=why):
        tenants.let_in(two(), name, one, OWN, NOON)


def test_keys_that_are_not_given_are_made_once(tmp_path: Path) -> None:
    ports = {"enrolment_port": 1, "leaf_port": 2, "coordinator_port": 3, "nats_port": 4}
    HubFolder(tmp_path).write(HubFile(federation="demo", host="h", listen="l", **ports))
    admin = nkey.new().public
    first, lines = keys_for(tmp_path, "lab", [f"admin={admin}"])
    assert first["admin"] == admin and len(lines) == 1 and nkey.is_public(first["federation-coordinator"])
    assert keys_for(tmp_path, "lab", [f"admin={admin}"])[0] == first
    wrong = f"{admin[:-1]}{'A' if admin[-1] != 'A' else 'B'}"
    for given, why in ((f"admin={wrong}", "is no user's key"), (f"profiler={admin}", "is no user's key")):
        with pytest.raises(Mistake, match=why):
            keys_for(tmp_path, "lab", [given])
    with pytest.raises(Mistake, match="is no name"):
        keys_for(tmp_path, "../lab", [])
    with pytest.raises(Mistake, match="there is no hub"):
        keys_for(tmp_path / "nowhere", "lab", [])
