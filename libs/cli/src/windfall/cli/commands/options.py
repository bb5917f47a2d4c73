"""What several commands take, and how they wait and ask."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import click

from windfall.cli.commands.completing import contexts

T = TypeVar("T")
COMPLETE = "_WINDFALL_COMPLETE"
"""Set by a shell that wants to complete what is being typed."""

_URL: Final = "WINDFALL_NATS_URL"
_AGAIN_S: Final = 0.5


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run what a command does to its end."""
    return asyncio.run(interruptible(work))


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Cancels as often as it takes: until Python 3.12 ``asyncio.wait_for``, in which the bus's client waits, answers a
    cancellation with what arrived in the same moment, and forgets it (CPython's issue 86296)."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_AGAIN_S)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error from None
        raise


def _in_context(_: click.Context, __: click.Parameter, name: str | None) -> None:
    """What the context says stands in this process's environment from here on, where that did not say it already: it is
    read where every service reads its settings."""
    from windfall.cli.contexts import place, read, variables

    known = read(place(os.environ))
    if named := name or known.current:
        os.environ.update(variables(known.one(named), os.environ))


in_context = click.option(
    "--context",
    envvar="WINDFALL_CONTEXT",
    metavar="NAME",
    shell_complete=contexts,
    # Before any other option looks at the environment.
    is_eager=True,
    expose_value=False,
    callback=_in_context,
    help="One of `windfall context list`.  [env: WINDFALL_CONTEXT]",
)


def server(command: Callable[..., None]) -> Callable[..., None]:
    """Which server is spoken to, and with which keys."""
    option = click.option(
        "--server",
        envvar=_URL,
        default="nats://127.0.0.1:4222",
        show_default=True,
        metavar="URL",
        help=f"NATS server of the hub or of a site.  [env: {_URL}; else as the context says]",
    )
    return option(in_context(command))


MACHINES: Final = "All but the first are for machines, and say their version."

in_table = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "jsonl"]),
    default="table",
    show_default=True,
    help="json, yaml and jsonl are for machines, and say their version.",
)
"""How rows are shown."""

in_lines = click.option(
    "-o",
    "--output",
    type=click.Choice(["line", "json", "yaml", "jsonl"]),
    default="line",
    show_default=True,
    help=MACHINES,
)
"""How what is told in sentences is shown."""

sure = click.option("--yes", is_flag=True, help="Do not ask.")


def surely(question: str, yes: bool) -> None:
    """Ask before what cannot be taken back.

    Raises:
        UsageError: nobody is there to be asked, and ``--yes`` was not said.
        Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("Nobody is there to be asked: say --yes", click.get_current_context())
    click.confirm(question, abort=True, err=True)
