"""Who else is at a hub, and what one tenant lends another: decisions as pure functions over the register.

Like those of :mod:`windfall.cli.identity.register` they give the register after them, or refuse.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from windfall.cli.identity.register import Cause, Guest, Lent, Refusal, Register, noted
from windfall.contracts.subjects import HUB
from windfall.contracts.tenancy import DEFAULT, Loan, Tenant
from windfall.servicekit.keyed_server import TENANTS_GIB
from windfall.servicekit.nats_rules import accounts

_LIST: Final = "`windfall tenant list` shows who is there"


def let_in(register: Register, name: str, guest: Guest, own: Mapping[str, str], now: datetime) -> Register:
    """A tenant beside the default one, or its keys, federation and room anew.

    Args:
        own: public nkeys of the hub's services, by service, which are nobody else's.

    Raises:
        Refusal: it cannot be called so, has somebody else's key, or there is no room.
    """
    tenants = {**register.tenants, name: guest}
    try:
        made = [tenant_of(register.model_copy(update={"tenants": tenants}), each) for each in tenants]
        accounts(HUB, own, leaves_of(register, DEFAULT), None, made)
    except ValueError as error:
        raise Refusal(Cause.REQUEST, str(error), "Name it otherwise, or make keys of its own") from error
    if sum(one.max_bytes for one in tenants.values()) > TENANTS_GIB * 1024**3:
        raise Refusal(
            Cause.REQUEST, f"tenants may store {TENANTS_GIB} GiB together", "Give them less with --gib, or take one out"
        )
    return noted(register, now, "let in", name, f"for {guest.federation}", tenants=tenants)


def let_go(register: Register, name: str, now: datetime) -> Register:
    """A tenant is here no longer, and what it lent or borrowed is not either.

    Raises:
        Refusal: there is none, or it has sites.
    """
    if name not in register.tenants:
        raise Refusal(Cause.UNKNOWN, f"no tenant {name} is here", _LIST)
    if sites := sorted(leaves_of(register, name)):
        raise Refusal(
            Cause.REQUEST, f"{name} has the sites {', '.join(sites)}", f"`windfall site revoke {sites[0]}` first"
        )
    return noted(
        register,
        now,
        "let go",
        name,
        tenants={key: one for key, one in register.tenants.items() if key != name},
        tokens={key: one for key, one in register.tokens.items() if one.tenant != name},
        waiting={key: one for key, one in register.waiting.items() if one.tenant != name},
        loans=tuple(one for one in register.loans if name not in (one.lender, one.borrower)),
    )


def lend(register: Register, lent: Lent, now: datetime, *, ends: bool) -> Register:
    """A loan begins, or ends.

    Raises:
        Refusal: it is of no fact, or of or for nobody who is here; there is no such loan to end.
    """
    try:
        loan = _loan(lent)
    except ValueError as error:
        raise Refusal(Cause.REQUEST, str(error), "Name one fact about one site or federation") from error
    for name in (loan.lender, loan.borrower):
        if name != DEFAULT and name not in register.tenants:
            raise Refusal(Cause.UNKNOWN, f"no tenant {name} is here", _LIST)
    others = tuple(one for one in register.loans if one != lent)
    if ends and others == register.loans:
        raise Refusal(Cause.UNKNOWN, f"{lent.lender} lends {lent.borrower} no {lent.fact}", _LIST)
    what = f"{lent.fact} to {lent.borrower}"
    return noted(
        register,
        now,
        "ends loan" if ends else "lends",
        lent.lender,
        what,
        loans=others if ends else (*others, lent),
    )


def leaves_of(register: Register, tenant: str) -> Mapping[str, str]:
    """Public nkeys by which the servers of a tenant's sites join, by site."""
    return {site: one.wish.leaf_nkey for site, one in sorted(register.members.items()) if one.tenant == tenant}


def tenant_of(register: Register, name: str) -> Tenant:
    """As the hub's NATS server knows it.

    Raises:
        ValueError: it cannot be called so.
    """
    guest = register.tenants[name]
    return Tenant(name, dict(guest.keys), leaves_of(register, name), guest.max_bytes)


def loans_of(register: Register) -> Iterator[Loan]:
    return map(_loan, register.loans)


def lends(register: Register, tenant: str) -> Iterator[str]:
    """What its coordinator is told to lend (``WINDFALL_LENDS``)."""
    return (f"{one.borrower}:{one.fact}" for one in register.loans if one.lender == tenant)


def owners_of(register: Register, tenant: str) -> Mapping[str, str]:
    """Whose a tenant's sites are, of those whose owner was told (``WINDFALL_OWNERS``)."""
    members = sorted(register.members.items())
    return {site: one.owner for site, one in members if one.tenant == tenant and one.owner is not None}


def _loan(lent: Lent) -> Loan:
    return Loan.read(f"{lent.borrower}:{lent.fact}", lent.lender)
