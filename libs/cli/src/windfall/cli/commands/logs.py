"""What services write to their logs."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from windfall.cli.commands.options import MACHINES, wait_for
from windfall.cli.commands.options import server as on_server
from windfall.servicekit.errors import Mistake

if TYPE_CHECKING:
    from windfall.cli.logs.showing import Form


def _services(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from windfall.contracts.subjects import HUB_SERVICES, SITE_SERVICES

    return [one for one in (*SITE_SERVICES, *HUB_SERVICES) if one.startswith(incomplete)]


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE[@SITE]]...", shell_complete=_services)
@on_server
@click.option("-f", "--follow", is_flag=True, help="Go on with each new line until it is interrupted.")
@click.option("--since", metavar="WHEN", help="Like 10m or 1h30m, or an instant in ISO 8601.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="The newest of each process.  [default: all]")
@click.option("--trace", metavar="ID", help="Only lines of one trace; an id may be cut.")
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    default="debug",
    show_default=True,
    help="The least that is shown, of what WINDFALL_LOG_LEVEL lets a service write.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a service may be silent.",
)
@click.option(
    "-o", "--output", type=click.Choice(["plain", "json", "jsonl"]), default="plain", show_default=True, help=MACHINES
)
def logs(
    services: tuple[str, ...],
    server: str,
    follow: bool,
    since: str | None,
    tail: int | None,
    trace: str | None,
    level: str,
    timeout: float,
    output: "Form",
) -> None:
    """Print the last lines that services keep of their logs, at their own site's server; they go no further.

    SITE is the federation of a federation-coordinator. Without SERVICE all that answer are meant.
    """
    from windfall.cli.logs import asking
    from windfall.cli.logs.showing import in_order, line, shown
    from windfall.cli.logs.wishing import wish

    if follow and output == "json":
        raise click.UsageError("What is followed has no end: say -o jsonl", click.get_current_context())
    wished, patience = wish(since, level, trace, datetime.now(UTC)), timedelta(seconds=timeout)
    if follow:
        wait_for(
            asking.follow(
                server, services, wished, tail, patience, lambda one: print(line(one, output), flush=True), _complain
            )
        )
        return
    lines, gone, wrong = wait_for(asking.read(server, services, wished, tail, patience))
    if lines or output == "json":
        print(shown(in_order(lines), output))
    for text in gone:
        _complain(text)
    _end(wrong)


def _end(wrong: Sequence[Mistake]) -> None:
    """Each in a line; the last as the command ends."""
    for one in wrong[:-1]:
        _complain(str(one))
    if wrong:
        raise wrong[-1]


def _complain(text: str) -> None:
    print(f"windfall: {' '.join(text.split())}", file=sys.stderr, flush=True)
