"""Orders that a person gives."""

from collections.abc import Callable

import click

from windfall.cli.commands.completing import names_of
from windfall.cli.commands.options import server as on_server
from windfall.cli.commands.options import sure, surely, wait_for


def _order(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        on_server,
        click.option("--reason", default="asked", show_default=True, help="Stands in the log of whoever obeys."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("site", shell_complete=names_of("sites"))
@_order
@sure
@click.option("--wait", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Until its node is gone.")
def drain(site: str, server: str, reason: str, yes: bool, seconds: float | None) -> None:
    """Give the node of SITE back once what it trained is delivered, and give no other until `uncordon`."""
    from windfall.cli import orders
    from windfall.cli.resources.sites import SITES
    from windfall.cli.resources.watching import until

    surely(f"Drain {site}?", yes)
    wait_for(orders.give(server, orders.draining(site, reason), site))
    print(f"{site} drains; `windfall uncordon {site}` takes it back")
    if seconds is not None:
        print(wait_for(until(server, SITES, site, "node=released", seconds)))


@click.command()
@click.argument("site", shell_complete=names_of("sites"))
@_order
def cordon(site: str, server: str, reason: str) -> None:
    """Give no more nodes to SITE; the one that it has is kept."""
    from windfall.cli import orders

    wait_for(orders.give(server, orders.cordoning(site, reason), site))
    print(f"{site} is cordoned; `windfall uncordon {site}` takes it back")


@click.command()
@click.argument("site", shell_complete=names_of("sites"))
@_order
def uncordon(site: str, server: str, reason: str) -> None:
    """Give nodes to SITE again, first for the window that is open."""
    from windfall.cli import orders

    wait_for(orders.give(server, orders.uncordoning(site, reason), site))
    print(f"{site} is uncordoned")


@click.command()
@click.argument("federation", shell_complete=names_of("federations"))
@_order
@sure
def stop(federation: str, server: str, reason: str, yes: bool) -> None:
    """Finish the running round of FEDERATION, write its final model, and begin no more."""
    from windfall.cli import orders

    surely(f"Stop {federation} for good?", yes)
    wait_for(orders.give(server, orders.stopping(federation, reason), federation=federation))
    print(
        f"{federation} stops after its round; `windfall wait federation {federation} --for state=finished` waits for it"
    )


@click.command()
@click.argument("federation", shell_complete=names_of("federations"))
@_order
@click.option("--wait", "seconds", type=click.FloatRange(min=0), metavar="SECONDS", help="Until no round runs.")
def pause(federation: str, server: str, reason: str, seconds: float | None) -> None:
    """Finish the running round of FEDERATION, and begin no other until `resume`; sites stay, and wait."""
    from windfall.cli import orders
    from windfall.cli.resources.federations import FEDERATIONS
    from windfall.cli.resources.watching import until

    wait_for(orders.give(server, orders.pausing(federation, reason), federation=federation))
    print(f"{federation} pauses after its round; `windfall resume {federation}` goes on")
    if seconds is not None:
        print(wait_for(until(server, FEDERATIONS, federation, "state=paused", seconds)))


@click.command()
@click.argument("federation", shell_complete=names_of("federations"))
@_order
def resume(federation: str, server: str, reason: str) -> None:
    """Begin rounds of FEDERATION again, from the model at which it was paused."""
    from windfall.cli import orders

    wait_for(orders.give(server, orders.resuming(federation, reason), federation=federation))
    print(f"{federation} goes on; `windfall watch rounds` shows it")


@click.command()
@click.argument("federation", shell_complete=names_of("federations"))
@_order
@sure
def rollback(federation: str, server: str, reason: str, yes: bool) -> None:
    """Go on from the model of FEDERATION that did best on held-out data; what came after is not kept."""
    from windfall.cli import orders

    surely(f"Forget what {federation} learnt since its best model?", yes)
    wait_for(orders.give(server, orders.rolling_back(federation, reason), federation=federation))
    print(f"{federation} goes back; `windfall watch rounds` shows from where it goes on")


@click.command()
@click.argument("federation", shell_complete=names_of("federations"))
@click.argument("site", shell_complete=names_of("sites"))
@_order
def readmit(federation: str, site: str, server: str, reason: str) -> None:
    """Let SITE join FEDERATION again after its contributions were refused too often."""
    from windfall.cli import orders

    wait_for(orders.give(server, orders.readmitting(federation, site, reason), site, federation))
    print(f"{site} may join {federation} again")
