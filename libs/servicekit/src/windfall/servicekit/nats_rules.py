"""The permissions of the contracts as a NATS server's configuration takes them, as the charts do, and as a table for
people.

``python -m windfall.servicekit.nats_rules chart`` writes the charts' template, ``… matrix`` the page of who says and
hears what (docs/permissions.md).
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Final

from windfall.contracts.commands import COMMANDS
from windfall.contracts.events import EVENTS
from windfall.contracts.permissions import (
    Permissions,
    everybody,
    heard,
    of_leaf,
    of_service,
    said,
)
from windfall.contracts.speaking import OPERATOR, PERSON, says
from windfall.contracts.subjects import HUB, HUB_SERVICES, SITE_SERVICES

ADMIN: Final = "admin"
"""Who may do everything within a domain: a person with the command."""
ACCOUNT: Final = "WINDFALL"
WARDEN_INBOX: Final = "_INBOX.warden"
_SITE: Final = "<site>"
"""Stands for the site's name in the charts' template."""


def accounts(
    domain: str, users: Mapping[str, str], leaves: Mapping[str, str] | None = None, warden: str | None = None
) -> str:
    """The part of a server's configuration that says who may do what.

    Args:
        domain: the hub, or a site.
        users: public nkeys of services, and of ``admin``.
        leaves: public nkeys by which the servers of sites join, by site.
        warden: public nkey of whoever has the server read its configuration again, and leaves hung up on.

    Raises:
        ValueError: a user is no service of the domain.
    """
    lines = [f"# {name}\n      {_user(name, key, domain)}" for name, key in users.items()]
    for site, key in (leaves or {}).items():
        rights = {"nkey": key, "allowed_connection_types": ["LEAFNODE"], "permissions": _written(of_leaf(site))}
        lines.append(f"# the server of {site}\n      {json.dumps(rights)}")
    body = "\n      ".join(lines)
    return f"""accounts {{
  {ACCOUNT} {{
    jetstream: enabled
    users: [
      {body}
    ]
  }}
  SYS {{
    users: [ {_warden(warden)} ]
  }}
}}
system_account: SYS
"""


def _warden(key: str | None) -> str:
    if key is None:
        return ""
    publish = ["$SYS.REQ.SERVER.PING.LEAFZ", "$SYS.REQ.SERVER.*.RELOAD", "$SYS.REQ.SERVER.*.KICK"]
    rights = {"publish": {"allow": publish}, "subscribe": {"allow": [f"{WARDEN_INBOX}.>"]}}
    return json.dumps({"nkey": key, "permissions": rights})


def _user(name: str, key: str, domain: str) -> str:
    if name == ADMIN:
        return json.dumps({"nkey": key})
    return json.dumps({"nkey": key, "permissions": _written(of_service(name, domain))})


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
    }
    head = "{{/* Generated from the contracts: python -m windfall.servicekit.nats_rules chart */}}\n"
    return f'{head}{{{{- define "windfall.nats-permissions" -}}}}\n{json.dumps(rules, indent=1)}\n{{{{- end }}}}\n'


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
