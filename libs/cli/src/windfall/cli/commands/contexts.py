"""Which hub a person speaks to, and with which keys."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from windfall.cli.commands import completing
from windfall.cli.commands.listing import Listing
from windfall.cli.commands.options import MACHINES, in_table, sure, surely

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form


@click.group(cls=Listing)
def context() -> None:
    """Say once which hub is meant, and with which keys: see, choose and change contexts.

    They stand in windfall/contexts.toml under $XDG_CONFIG_HOME, or ~/.config. It says where keys lie, and holds none.
    """


@context.command("list")
@in_table
def list_contexts(output: "Form") -> None:
    """List all contexts; the one that counts is marked."""
    from windfall.cli.contexts import place, read
    from windfall.cli.resources.contexts import CONTEXTS, listed
    from windfall.cli.resources.showing import shown

    print(shown(CONTEXTS, listed(read(place(os.environ))), output))


@context.command("show")
@click.argument("name", required=False, shell_complete=completing.contexts)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help=MACHINES
)
def show_context(name: str | None, output: "Form") -> None:
    """Print one context, by default the one that counts."""
    from windfall.cli.contexts import chosen
    from windfall.cli.resources.contexts import CONTEXTS, listed
    from windfall.cli.resources.showing import described, shown

    known, one = chosen(os.environ, name)
    (row,) = [row for row in listed(known) if row.name == one.name]
    print(described(CONTEXTS, row) if output == "table" else shown(CONTEXTS, [row], output, alone=True))


@context.command("use")
@click.argument("name", shell_complete=completing.contexts)
def use_context(name: str) -> None:
    """Let NAME count from now on."""
    from windfall.cli import contexts

    path = contexts.place(os.environ)
    known = contexts.read(path)
    server = known.one(name).server
    contexts.write(path, contexts.Contexts(known.all, name))
    print(f"{name} counts: {server}")


@context.command("set")
@click.argument("name", shell_complete=completing.contexts)
@click.option("--server", metavar="URL", help="NATS server, like tls://hub.example.org:4222.")
@click.option("--authority", metavar="FILE", help="PEM certificate of who signed the server's.")
@click.option("--certificate", metavar="FILE", help="PEM certificate of yours.")
@click.option("--key", metavar="FILE", help="Its private key.")
@click.option("--nkey-file", metavar="FILE", help="File with the seed of your nkey.")
@click.option("--tls-first/--no-tls-first", default=None, help="The server begins with TLS.")
@click.option("--coordinator", metavar="HOST:PORT", help="The coordinator's gRPC door, for `windfall checkpoint`.")
@click.option("--tls-authority", metavar="FILE", help="For it, where these three are others than those above.")
@click.option("--tls-certificate", metavar="FILE", help="PEM certificate of yours.")
@click.option("--tls-key", metavar="FILE", help="Its private key.")
def set_context(name: str, **values: str | bool | None) -> None:
    """Make the context NAME, or change what is named of it; "" takes a value away. The first one counts at once."""
    from windfall.cli import contexts

    path = contexts.place(os.environ)
    told = {key: value for key, value in values.items() if value is not None}
    known = contexts.changed(contexts.read(path), name, told)
    contexts.write(path, known)
    here = "it counts" if known.current == name else f"`windfall context use {name}` lets it count"
    print(f"{name} stands in {_short(path)}; {here}")


@context.command("delete")
@click.argument("name", shell_complete=completing.contexts)
@sure
def delete_context(name: str, yes: bool) -> None:
    """Forget NAME; its keys stay where they are."""
    from windfall.cli import contexts

    path = contexts.place(os.environ)
    known = contexts.without(contexts.read(path), name)
    surely(f"Forget the context {name}?", yes)
    contexts.write(path, known)
    print(f"{name} is forgotten")


def _short(path: Path) -> str:
    home = os.environ.get("HOME", "")
    return str(path).replace(home, "~", 1) if home and str(path).startswith(f"{home}/") else str(path)
