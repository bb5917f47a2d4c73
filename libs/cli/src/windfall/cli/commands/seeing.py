"""What there is, what becomes of it, and what is wrong."""

from typing import TYPE_CHECKING

import click

from windfall.cli.commands.completing import names_of
from windfall.cli.commands.options import COMPLETE, in_lines, in_table, wait_for
from windfall.cli.commands.options import server as on_server
from windfall.servicekit.errors import ExitCode

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form


@click.command()
@click.argument("name", metavar="SITE|FEDERATION", shell_complete=names_of("sites", "federations"))
@on_server
@in_lines
def explain(name: str, server: str, output: str) -> None:
    """Say why a site is on or off, or a federation trains or waits, and what would change it."""
    from windfall.cli.explain_federation import explain_any, for_machines, in_words

    told = wait_for(explain_any(server, name))
    print(in_words(told) if output == "line" else for_machines(told, output))


def _resources(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from windfall.cli.resources.registry import ALL

    return [one.name for one in ALL if one.name.startswith(incomplete)]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete this command: eval "$(windfall completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    print(found(click.get_current_context().find_root().command, {}, "windfall", COMPLETE).source())


_what = click.argument("what", metavar="WHAT", shell_complete=_resources)


@click.command()
@_what
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=names_of())
@on_server
@in_table
def get(what: str, names: tuple[str, ...], server: str, output: "Form") -> None:
    """List sites, windows, leases, profiles, federations, runs, rounds, events or dead-letters.

    An id may be cut as long as one alone begins so.
    """
    from windfall.cli.resources.reading import rows
    from windfall.cli.resources.registry import chosen, resource
    from windfall.cli.resources.showing import shown

    of = resource(what)
    print(shown(of, chosen(of, wait_for(rows(server, of, names)), names), output, alone=len(names) == 1))


@click.command()
@_what
@click.argument("name", shell_complete=names_of())
@on_server
@click.option(
    "--events",
    "count",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Of the last ones.",
)
@in_lines
def describe(what: str, name: str, server: str, count: int, output: str) -> None:
    """Print everything that is known of one, and the last events about it."""
    from windfall.cli.resources.describing import described, for_machines, in_words

    told = wait_for(described(server, what, name, count))
    print(in_words(told) if output == "line" else for_machines(told, output))


@click.command()
@_what
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=names_of())
@on_server
@click.option(
    "-o",
    "--output",
    type=click.Choice(["line", "jsonl"]),
    default="line",
    show_default=True,
    help="jsonl: as in `get`.",
)
def watch(what: str, names: tuple[str, ...], server: str, output: str) -> None:
    """Print each one as it stands, and again whenever it changes, until it is interrupted."""
    from windfall.cli.resources.registry import resource
    from windfall.cli.resources.watching import follow

    wait_for(follow(server, resource(what), names, output == "jsonl", lambda text: print(text, flush=True)))


@click.command()
@_what
@click.argument("name", shell_complete=names_of())
@click.option("--for", "wish", required=True, metavar="FIELD=VALUE", help="Like window=on or state=completed.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="When to give up.",
)
@on_server
def wait(what: str, name: str, wish: str, timeout: float, server: str) -> None:
    """Return when a field of one has a value; end with 1 when it has not by then."""
    from windfall.cli.resources.registry import resource
    from windfall.cli.resources.watching import until

    print(wait_for(until(server, resource(what), name, wish, timeout)))


@click.command()
@on_server
@in_lines
def doctor(server: str, output: str) -> None:
    """Look for what is wrong with a fleet, and say what to do about it; end with 1 when something has failed."""
    from windfall.cli.doctor.examining import examined
    from windfall.cli.doctor.finding import Level, for_machines, in_words, worst

    found = wait_for(examined(server))
    print(in_words(found) if output == "line" else for_machines(found, output))
    if worst(found) is Level.FAILURE:
        raise click.exceptions.Exit(ExitCode.FAILED)
