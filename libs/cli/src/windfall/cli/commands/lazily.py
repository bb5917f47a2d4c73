"""A group whose commands are loaded when they are typed: nobody waits for what another command needs."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.exceptions import NoSuchCommand

from windfall.cli.commands.listing import Listing


class Commands(Listing):
    """See the module.

    Args:
        where: of each command that is not added by hand, the module of this package that holds it.
    """

    def __init__(self, *arguments: Any, where: Mapping[str, str], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._where = where

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._where})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self._where and cmd_name not in self.commands:
            self._load(self._where[cmd_name])
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except NoSuchCommand as error:
            raise NoSuchCommand(error.command_name, possibilities=self.list_commands(ctx), ctx=ctx) from None

    def _load(self, module: str) -> None:
        loaded = import_module(f"{__package__}.{module}")
        for one in vars(loaded).values():
            if isinstance(one, click.Command) and self._where.get(one.name or "") == module:
                self.add_command(one)
