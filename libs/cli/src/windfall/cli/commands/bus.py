"""Events and dead letters."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from windfall.cli.commands.completing import names_of, topics
from windfall.cli.commands.listing import Listing
from windfall.cli.commands.options import in_lines, in_table, sure, surely, wait_for
from windfall.cli.commands.options import server as on_server

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form


@click.group(cls=Listing)
def events() -> None:
    """Read what a fleet says, and say it something."""


@events.command()
@click.option(
    "-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True, help="Of the document."
)
def schema(output: str) -> None:
    """Print every event and command as an AsyncAPI 3.0 document."""
    from importlib.metadata import version as installed

    from windfall.cli.events import schema as text

    print(text(installed("windfall-contracts"), output))


@events.command()
@on_server
@click.option("--topic", metavar="TOPIC", shell_complete=topics, help="Only these, like window.opened or window.*")
@click.option("--site", metavar="SITE", shell_complete=names_of("sites"), help="Only those about one site.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["line", "json", "jsonl"]),
    default="line",
    show_default=True,
    help="json and jsonl are the same: an event a line, as CloudEvents have it.",
)
@click.option("--from-start", is_flag=True, help="From the oldest that the server keeps.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
def tail(server: str, topic: str | None, site: str | None, output: str, from_start: bool, count: int | None) -> None:
    """Print events as they are said; -o jsonl (or json) prints a recording that `replay` reads."""
    from windfall.cli.events import in_json, in_words
    from windfall.cli.events import tail as follow

    form = in_words if output == "line" else in_json
    wait_for(follow(server, topic, site, from_start, count, lambda said: print(form(said), flush=True)))


@events.command()
@click.argument("topic", shell_complete=topics)
@click.option("--file", default="-", show_default=True, metavar="FILE", help="JSON body; - is standard input.")
@on_server
def publish(topic: str, file: str, server: str) -> None:
    """Say one event or command; a bad one is refused with the reason. id and at are filled in when absent."""
    from windfall.cli.events import body_of, sentence
    from windfall.cli.events import publish as say

    message = sentence(topic, body_of(file))
    new = wait_for(say(server, message))
    print(f"{message.id} {'stored' if new else 'was stored before'}")


@events.command()
@click.option("--from-file", required=True, type=click.Path(path_type=Path), metavar="FILE", help="A recording.")
@on_server
def replay(from_file: Path, server: str) -> None:
    """Say a recording again under the same ids, so that a stream keeps one of each."""
    from windfall.cli.events import replay as say_again

    new, known = wait_for(say_again(server, from_file))
    print(f"{new} stored, {known} were stored before")


@click.group(cls=Listing)
def dlq() -> None:
    """Read, replay or drop what a service could not handle."""


@dlq.command("list")
@on_server
@in_table
def dlq_list(server: str, output: "Form") -> None:
    """List the dead letters of a server's domain, oldest first; the same as `get dead-letters`."""
    from windfall.cli.resources.dead_letters import DEAD_LETTERS
    from windfall.cli.resources.reading import rows
    from windfall.cli.resources.showing import shown

    print(shown(DEAD_LETTERS, list(wait_for(rows(server, DEAD_LETTERS)).values()), output))


@dlq.command("show")
@click.argument("number", type=int, shell_complete=names_of("dead-letters"))
@on_server
@in_lines
def dlq_show(number: int, server: str, output: str) -> None:
    """Print one dead letter: its headers and its body."""
    from windfall.cli.dead_letters import for_machines, in_words, one

    dead = wait_for(one(server, number))
    print(in_words(dead) if output == "line" else for_machines(dead, output))


def _which(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.argument("number", type=int, required=False, shell_complete=names_of("dead-letters")),
        click.option("--all", "everything", is_flag=True, help="All of them."),
        on_server,
    ):
        command = option(command)
    return command


def _number(number: int | None, everything: bool) -> int | None:
    if (number is None) != everything:
        raise click.UsageError("Give the number of one dead letter, or --all", click.get_current_context())
    return number


@dlq.command("replay")
@_which
def dlq_replay(number: int | None, everything: bool, server: str) -> None:
    """Say a dead letter again, and take it off the list."""
    from windfall.cli.dead_letters import replay as say_again

    print(f"{wait_for(say_again(server, _number(number, everything)))} replayed")


@dlq.command("drop")
@_which
@sure
def dlq_drop(number: int | None, everything: bool, server: str, yes: bool) -> None:
    """Forget a dead letter."""
    from windfall.cli.dead_letters import drop

    which = _number(number, everything)
    surely("Forget all dead letters?" if which is None else f"Forget the dead letter {which}?", yes)
    print(f"{wait_for(drop(server, which))} dropped")
