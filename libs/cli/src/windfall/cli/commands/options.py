"""What several commands take, and how they wait."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

T = TypeVar("T")
COMPLETE = "_WINDFALL_COMPLETE"
"""Set by a shell that wants to complete what is being typed."""


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run what a command does to its end."""
    return asyncio.run(work)


server = click.option(
    "--server",
    envvar="WINDFALL_NATS_URL",
    default="nats://127.0.0.1:4222",
    show_default=True,
    metavar="URL",
    help="NATS server of the hub or of a site.  [env: WINDFALL_NATS_URL]",
)
