"""Models as the coordinator keeps them."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from windfall.cli.commands.listing import Listing
from windfall.cli.commands.options import in_context, in_table, wait_for
from windfall.cli.commands.options import server as on_server

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form


def _round_named(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and value not in ("best", "newest") and not value.isdigit():
        raise click.BadParameter(f"{value!r} is no round: write its number, best or newest", ctx, param)
    return value


def _at_coordinator(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--coordinator",
            envvar="WINDFALL_COORDINATOR",
            default="",
            metavar="HOST:PORT",
            help="Its gRPC door.  [env: WINDFALL_COORDINATOR; else as the context says]",
        ),
        click.option(
            "--federation", default="", metavar="NAME", help="Refuse any other.  [default: whichever is there]"
        ),
    ):
        command = option(command)
    return command


_round = click.option(
    "--round",
    "wish",
    callback=_round_named,
    default="newest",
    show_default=True,
    metavar="N|best|newest",
    help="The model that round N left.",
)


@click.group(cls=Listing)
def checkpoint() -> None:
    """See, take home and verify the models that a coordinator keeps: the newest, the one before, and the best."""


@checkpoint.command("list")
@in_context
@_at_coordinator
@in_table
def list_checkpoints(coordinator: str, federation: str, output: "Form") -> None:
    """List the models that are kept, the newest first; ROUND is the one that left it."""
    from windfall.cli.checkpoints.listing import CHECKPOINTS, listed
    from windfall.cli.resources.showing import shown

    print(shown(CHECKPOINTS, wait_for(listed(coordinator, federation)), output))


@checkpoint.command("export")
@in_context
@_at_coordinator
@_round
@click.option(
    "-o", "--output", "file", required=True, type=click.Path(path_type=Path), metavar="FILE", help="To write."
)
@click.option("--force", is_flag=True, help="Write over FILE.")
def export_checkpoint(coordinator: str, federation: str, wish: str, file: Path, force: bool) -> None:
    """Write a model to FILE as safetensors, whole and with the digest that was promised, or not at all.

    Where a connection breaks it goes on from there, also when the command is given again.
    """
    from windfall.cli.checkpoints.exporting import exported

    one = wait_for(exported(coordinator, federation, wish, file, _tell, force=force))
    print(f"{file} holds {one.name}: {one.digest}")


@checkpoint.command("verify")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@on_server
@_at_coordinator
@click.option(
    "--round", "wish", callback=_round_named, metavar="N|best|newest", help="As the coordinator hands it out."
)
def verify_checkpoint(file: Path | None, server: str, coordinator: str, federation: str, wish: str | None) -> None:
    """Compute the digest of FILE, or of a model at the coordinator, anew, and hold it against what the bus says.

    Ends with 6 when they differ, and with 1 when the bus says nothing of that model.
    """
    from windfall.cli.checkpoints.verifying import verified_file, verified_round

    if (file is None) == (wish is None):
        raise click.UsageError("Say FILE or --round, and not both", click.get_current_context())
    if wish is not None:
        print(wait_for(verified_round(server, coordinator, federation, wish, _tell)))
    elif file is not None:
        print(wait_for(verified_file(server, file)))


def _tell(text: str) -> None:
    click.echo(text, err=True, nl=False)
