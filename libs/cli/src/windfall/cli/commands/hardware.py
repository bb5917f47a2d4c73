"""Nodes and links."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from windfall.cli.commands.completing import names_of
from windfall.cli.commands.listing import Listing
from windfall.cli.commands.options import MACHINES, in_table, wait_for
from windfall.cli.commands.options import server as on_server

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form


@click.group(cls=Listing)
def profile() -> None:
    """Show what nodes are made of and can do, and what became of it."""


_form = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help=MACHINES
)


@profile.command("get")
@click.argument("site", required=False, shell_complete=names_of("profiles"))
@on_server
@_form
def profile_get(site: str | None, server: str, output: str) -> None:
    """Print the newest profile of SITE, or of every site.

    SITE may also be a file, or a folder of files, that `export` or a profiler wrote.
    """
    from windfall.cli import profile as profiles

    found = wait_for(profiles.of(site, server) if site else profiles.profiles(server))
    if output == "table":
        profiles.printed(profiles.table(found))
    else:
        print(profiles.shown(found, output, alone=site is not None and len(found) == 1))


@profile.command("diff")
@click.argument("before")
@click.argument("after", required=False)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 100),
    default=20.0,
    show_default=True,
    metavar="%",
    help="By how much what is measured may be worse.",
)
@on_server
@_form
def profile_diff(before: str, after: str | None, tolerance: float, server: str, output: str) -> None:
    """Say what is not as it was; ends with 6 when something is not.

    BEFORE and AFTER are sites, files or folders of files; without AFTER it is what the server knows now.
    """
    from windfall.cli import profile as profiles

    found = wait_for(profiles.compared(server, before, after, tolerance / 100))
    if output != "table":
        print(profiles.shown_drift(found, output))
    elif found:
        profiles.printed(profiles.drift_table(found))
    profiles.raise_for(found)


@profile.command("export")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@on_server
def profile_export(folder: Path, server: str) -> None:
    """Write the newest profile of every site as DIR/SITE.json, for Git.

    Which devices they are (UUID, address) stays at the site and is not in it.
    """
    from windfall.cli import profile as profiles

    for path, new in profiles.export(wait_for(profiles.profiles(server)), folder):
        print(f"{path} {'written' if new else 'is as it was'}")


@profile.command("advice")
@click.argument("federation", required=False, shell_complete=names_of("federations"))
@on_server
@_form
def profile_advice(federation: str | None, server: str, output: str) -> None:
    """Print what FEDERATION is advised to train with, what of it is used, who chose that, and why.

    Without FEDERATION it is whichever was advised last.
    """
    from windfall.cli import advice
    from windfall.cli import profile as profiles
    from windfall.cli.resources.versioned import single

    found = wait_for(advice.given(server, federation))
    if output == "table":
        profiles.printed(advice.table(found))
        print(*advice.reasons(found), sep="\n")
    else:
        print(single("Advice", found.model_dump(mode="json"), output))


@click.command()
@on_server
@in_table
def links(server: str, output: "Form") -> None:
    """Show every link of the fleet as it was measured last: from whom, to whom, how far and how wide."""
    from windfall.cli.links import read
    from windfall.cli.resources.links import LINKS
    from windfall.cli.resources.showing import shown

    print(shown(LINKS, [one for _, one in sorted(wait_for(read(server)).items())], output))
