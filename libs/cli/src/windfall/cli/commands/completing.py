"""What a shell offers while a name is typed: those that the server knows which would be asked."""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from windfall.cli.resources.resource import Resource

Completed = Callable[[click.Context, click.Parameter, str], list[str]]
_PATIENCE_S: Final = 2.0
"""Whoever types waits no longer."""


def names_of(*what: str) -> Completed:
    """Completes names of resources: of these, or of the one that was typed before them.

    Where the server does not answer there is nothing to offer, and no place to say why.
    """

    def completed(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        from windfall.cli.resources.registry import resource
        from windfall.cli.server import DEFAULT_URL
        from windfall.servicekit.errors import Mistake

        url = ctx.params.get("server") or os.environ.get("WINDFALL_NATS_URL") or DEFAULT_URL
        try:
            of = [resource(each) for each in what or (str(ctx.params.get("what")),)]
            found = asyncio.run(asyncio.wait_for(_all(url, of), _PATIENCE_S))
        except (Mistake, TimeoutError):
            return []
        return [name for name in found if name.startswith(incomplete)]

    return completed


async def _all(url: str, of: "Sequence[Resource]") -> list[str]:
    from windfall.cli.resources.reading import rows

    return [name for each in of for name in await rows(url, each)]


def topics(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Completes what may be said."""
    from windfall.contracts.subjects import KINDS

    return [name for name in sorted(KINDS) if name.startswith(incomplete)]


def contexts(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Completes names of contexts."""
    from windfall.cli.contexts import place, read
    from windfall.servicekit.errors import Mistake

    try:
        known = read(place(os.environ)).all
    except Mistake:
        return []
    return [name for name in known if name.startswith(incomplete)]
