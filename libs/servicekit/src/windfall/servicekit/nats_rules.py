"""The permissions of the contracts as a NATS server's configuration takes them, as the charts do, and as a table for
people.

``python -m windfall.servicekit.nats_rules chart`` writes the charts' template, ``… matrix`` the page of who says and
hears what (docs/permissions.md).
"""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from windfall.contracts.commands import COMMANDS
from windfall.contracts.events import EVENTS
from windfall.contracts.permissions import (
    Permissions,
    everybody,
    heard,
    of_leaf,
    of_lender,
    of_service,
    said,
)
from windfall.contracts.speaking import OPERATOR, PERSON, says
from windfall.contracts.subjects import HUB, HUB_SERVICES, SITE_SERVICES
from windfall.contracts.tenancy import DEFAULT, Loan, Tenant

ADMIN: Final = "admin"
"""Who may do everything within a domain: a person with the command."""
ACCOUNT: Final = "WINDFALL"
WARDEN_INBOX: Final = "_INBOX.warden"
_MOST_STREAMS: Final = 16
_MOST_CONSUMERS: Final = 1024
_SITE: Final = "<site>"
"""Stands for the site's name in the charts' template."""


def accounts(
    domain: str,
    users: Mapping[str, str],
    leaves: Mapping[str, str] | None = None,
    warden: str | None = None,
    tenants: Sequence[Tenant] = (),
    loans: Sequence[Loan] = (),
) -> str:
    """The part of a server's configuration that says who may do what.

    Args:
        domain: the hub, or a site.
        users: public nkeys of services, and of ``admin``.
        leaves: public nkeys by which the servers of sites join, by site.
        warden: public nkey of whoever has the server read its configuration again, and leaves hung up on.
        tenants: who else is at this hub, each in an account of its own.
        loans: what tenants let each other hear.

    Raises:
        ValueError: a user is no service of the domain, two have one key or name, or a loan is of or for nobody.
    """
    _apart(users, leaves or {}, tenants, loans)
    parts = [_account(ACCOUNT, DEFAULT, domain, users, leaves or {}, "enabled", loans)]
    parts += [
        _account(one.name, one.name, domain, one.users, one.leaves, _bounded(one.max_bytes), loans) for one in tenants
    ]
    return f"""accounts {{
{"".join(parts)}  SYS {{
    users: [ {_warden(warden)} ]
  }}
}}
system_account: SYS
"""


def account_of(tenant: str) -> str:
    """The NATS account in which a tenant speaks."""
    return ACCOUNT if tenant == DEFAULT else tenant


def _apart(
    users: Mapping[str, str], leaves: Mapping[str, str], tenants: Sequence[Tenant], loans: Sequence[Loan]
) -> None:
    names = [DEFAULT, *(one.name for one in tenants)]
    keys = [*users.values(), *leaves.values()]
    keys += [key for one in tenants for key in (*one.users.values(), *one.leaves.values())]
    if len(names) != len(set(names)):
        raise ValueError("two tenants have one name")
    if len(keys) != len(set(keys)):
        raise ValueError("two have one key, and one would be taken for the other")
    for loan in loans:
        for name in (loan.lender, loan.borrower):
            if name not in names:
                raise ValueError(f"{loan.kind.topic}.{loan.whom} is lent, and there is no tenant {name!r}")


def _account(
    account: str,
    tenant: str,
    domain: str,
    users: Mapping[str, str],
    leaves: Mapping[str, str],
    jetstream: str,
    loans: Sequence[Loan],
) -> str:
    lent = [loan for loan in loans if loan.lender == tenant]
    lines = [f"# {name}\n      {_user(name, key, domain, lent)}" for name, key in users.items()]
    for site, key in leaves.items():
        rights = {"nkey": key, "allowed_connection_types": ["LEAFNODE"], "permissions": _written(of_leaf(site))}
        lines.append(f"# the server of {site}\n      {json.dumps(rights)}")
    body = "\n      ".join(lines)
    doors = "".join(f"    {line}\n" for line in _doors(tenant, loans))
    return f"""  {account} {{
    jetstream: {jetstream}
    users: [
      {body}
    ]
{doors}  }}
"""


def _bounded(max_bytes: int) -> str:
    """A tenant has its own room, however full another's is, and nothing of it in memory."""
    limits = {
        "max_memory": 0,
        "max_file": max_bytes,
        "max_streams": _MOST_STREAMS,
        "max_consumers": _MOST_CONSUMERS,
        "max_bytes_required": True,
    }
    return json.dumps(limits)


def _doors(tenant: str, loans: Sequence[Loan]) -> Iterator[str]:
    """What the account lets in, from whom by name, and what it reaches in others.

    As a service, though it is a fact: so the stream that keeps it acknowledges it to who lent it, and nothing of
    JetStream's API is the lender's or the borrower's in the other's account.
    """
    lenders: dict[str, list[str]] = {}
    for loan in loans:
        if loan.borrower == tenant:
            lenders.setdefault(loan.subject, []).append(account_of(loan.lender))
    exports = [{"service": subject, "accounts": sorted(set(names))} for subject, names in lenders.items()]
    imports = [
        {"service": {"account": account_of(loan.borrower), "subject": loan.subject}, "to": loan.lent_as}
        for loan in dict.fromkeys(loans)
        if loan.lender == tenant
    ]
    if exports:
        yield f"exports: {json.dumps(exports)}"
    if imports:
        yield f"imports: {json.dumps(imports)}"


def _warden(key: str | None) -> str:
    if key is None:
        return ""
    publish = ["$SYS.REQ.SERVER.PING.LEAFZ", "$SYS.REQ.SERVER.*.RELOAD", "$SYS.REQ.SERVER.*.KICK"]
    rights = {"publish": {"allow": publish}, "subscribe": {"allow": [f"{WARDEN_INBOX}.>"]}}
    return json.dumps({"nkey": key, "permissions": rights})


def _user(name: str, key: str, domain: str, lent: Iterable[Loan]) -> str:
    if name == ADMIN:
        return json.dumps({"nkey": key})
    rights = of_service(name, domain)
    if name in HUB_SERVICES:
        rights = replace(rights, publish=(*rights.publish, *of_lender(lent)))
    return json.dumps({"nkey": key, "permissions": _written(rights)})


def _written(rights: Permissions) -> dict[str, dict[str, Sequence[str]]]:
    publish: dict[str, Sequence[str]] = {"allow": rights.publish}
    if rights.withheld:
        publish["deny"] = rights.withheld
    return {"publish": publish, "subscribe": {"allow": rights.subscribe}}


def chart() -> str:
    """The template from which the charts take every user's permissions, as JSON by name; ``<site>`` is the site's."""
    rules = {
        "hub": {name: _written(rights) for name, rights in everybody(HUB).items()},
        "site": {name: _written(rights) for name, rights in everybody(_SITE).items()},
        "leaf": _written(of_leaf(_SITE)),
        "loan": _loan(),
    }
    head = "{{/* Generated from the contracts: python -m windfall.servicekit.nats_rules chart */}}\n"
    return f'{head}{{{{- define "windfall.nats-permissions" -}}}}\n{json.dumps(rules, indent=1)}\n{{{{- end }}}}\n'


def _loan() -> dict[str, Sequence[str] | str]:
    """What a loan opens, with words to be replaced for borrower, fact and whom."""
    example = Loan(EVENTS[0], "whom", DEFAULT, "borrower")

    def worded(subject: str) -> str:
        for word in (example.kind.topic, "whom", "borrower"):
            subject = subject.replace(word, "<fact>" if "." in word else f"<{word}>")
        return subject

    return {
        "subject": worded(example.subject),
        "lent": worded(example.lent_as),
        "publish": [worded(subject) for subject in of_lender([example])],
        "facts": [kind.topic for kind in EVENTS],
    }


def matrix() -> str:
    """Who says and who hears each sentence, as a Markdown table."""
    services = (*SITE_SERVICES, *HUB_SERVICES, OPERATOR)
    lines = [
        f"| sentence | {' | '.join(services)} | people |",
        f"| --- |{' :-: |' * (len(services) + 1)}",
    ]
    for kind in (*EVENTS, *COMMANDS):
        cells = [
            " ".join(["says"] * (kind in said(service)) + ["hears"] * (kind in heard(service))) for service in services
        ]
        person = "says" if PERSON in says(kind) else ""
        lines.append(f"| `{kind.topic}` | {' | '.join(cells)} | {person} |")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str]) -> int:
    """Print what is asked for."""
    made = {"chart": chart, "matrix": matrix}.get(" ".join(words))
    if made is None:
        sys.stderr.write("windfall nats_rules: say chart or matrix\n")
        return 2
    sys.stdout.write(made())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
