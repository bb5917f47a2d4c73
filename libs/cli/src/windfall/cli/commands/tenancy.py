"""Who else is at a hub, unseen by the others, and what one lends another."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from windfall.cli.commands.identity import HUB_DIR
from windfall.cli.commands.listing import Listing
from windfall.cli.commands.options import in_table, sure, surely, wait_for

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form


@click.group(cls=Listing)
def tenant() -> None:
    """At the hub, say who else has federations and sites there, unseen by the others."""


@tenant.command()
@click.argument("name", metavar="TENANT")
@click.option("--federation", required=True, metavar="NAME", help="What its sites train.")
@click.option("--coordinator", required=True, metavar="HOST:PORT", help="Where its sites find its coordinator.")
@click.option("--gib", type=click.FloatRange(min=0, min_open=True), default=1, show_default=True,
              help="What its streams may store.")  # fmt: skip
@click.option("--key", "keys", multiple=True, metavar="NAME=U…",
              help="Public nkey of federation-coordinator or admin; repeat it.  [default: made here]")  # fmt: skip
@HUB_DIR
def add(name: str, federation: str, coordinator: str, gib: float, keys: tuple[str, ...], folder: Path) -> None:
    """Let TENANT in, or change what it was let in with. Nothing restarts.

    Whose keys are not given are made in the hub's folder, and said.
    """
    from windfall.cli.identity.beginning import address_of
    from windfall.cli.identity.desk import asked
    from windfall.cli.identity.tenant_keys import keys_for

    known, lines = keys_for(folder, name, keys)
    guest = {
        "federation": federation,
        "coordinator": address_of(coordinator),
        "keys": known,
        "max_bytes": int(gib * 1024**3),
    }
    wait_for(asked(folder, "let in", tenant=name, guest=guest))
    for line in lines:
        print(line)
    print(f"{name} is let in; `windfall site token SITE --tenant {name}` lets a site of its join")


@tenant.command("list")
@HUB_DIR
@in_table
def list_tenants(folder: Path, output: "Form") -> None:
    """List the tenants with their sites, and what is lent."""
    from windfall.cli.identity.desk import asked
    from windfall.cli.resources.roster import TENANTS, tenants
    from windfall.cli.resources.showing import shown

    print(shown(TENANTS, tenants(wait_for(asked(folder, "tenants"))), output))


@tenant.command()
@click.argument("name", metavar="TENANT")
@HUB_DIR
@sure
def remove(name: str, folder: Path, yes: bool) -> None:
    """Take TENANT out at once: its connections are cut and its keys do not count. What it stored stays on the disk."""
    from windfall.cli.identity.desk import asked

    surely(f"Take {name} out?", yes)
    wait_for(asked(folder, "let go", tenant=name))
    print(f"{name} is here no longer")


@tenant.command()
@click.argument("fact", metavar="NOUN.VERB.WHOM")
@click.argument("borrower", metavar="TENANT")
@click.option("--from", "lender", default="default", show_default=True, metavar="TENANT", help="Whose fact it is.")
@click.option("--end", "ends", is_flag=True, help="Lend it no longer.")
@HUB_DIR
def lend(fact: str, borrower: str, lender: str, ends: bool, folder: Path) -> None:
    """Let TENANT hear one fact about one site or federation of another's, like window.opened.quebec."""
    from windfall.cli.identity.desk import asked

    wait_for(asked(folder, "lend", lent={"fact": fact, "lender": lender, "borrower": borrower}, ends=ends))
    print(f"{lender} lends {borrower} {fact}{' no longer' if ends else ''}")
    if lender != "default" and not ends:
        print(f"its coordinator must be told: WINDFALL_LENDS={borrower}:{fact}")
