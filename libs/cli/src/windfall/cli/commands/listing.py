"""A group whose help says the first sentence of each command whole, however narrow the terminal is."""

from typing import Final

import click

_SENTENCE: Final = 1000
"""Characters that no first sentence has."""


class Listing(click.Group):
    """See the module."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, one.get_short_help_str(_SENTENCE)) for name, one in found if one is not None and not one.hidden]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)
