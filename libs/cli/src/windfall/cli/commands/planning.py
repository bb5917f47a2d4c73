"""What a fleet would do."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from windfall.cli.commands.completing import names_of
from windfall.cli.commands.options import in_table, wait_for
from windfall.cli.commands.options import server as on_server

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form


@click.command()
@click.argument("federation", shell_complete=names_of("federations"))
@click.option("--dry-run", is_flag=True, required=True, help="Plan, and say nothing to anybody: the only way there is.")
@click.option(
    "--work-tokens", type=click.IntRange(min=1), required=True, metavar="N", help="In all, from its beginning."
)
@click.option("--objective", type=click.Choice(["carbon", "cost", "budget"]), default="carbon", show_default=True,
              help="What is to be least: CO2, money, or time within a budget of CO2.")  # fmt: skip
@click.option("--deadline", metavar="T", help="ISO 8601; carbon and cost need one.")
@click.option("--budget-kg", type=click.FloatRange(min=0), metavar="KG", help="Of CO2, for the objective budget.")
@click.option(
    "--tokens-per-hour",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="Of a site, until one was measured.",
)
@click.option("--at", metavar="T", help="Plan from this instant on, ISO 8601.  [default: now]")
@on_server
@in_table
def plan(
    federation: str, dry_run: bool, deadline: str | None, at: str | None, server: str, output: "Form", **told: Any
) -> None:
    """Print what would train when for FEDERATION by the forecasts of now, in kWh, gCO2 and money.

    The coordinator's own planner; a stretch is counted at the site's published power while it trains. A coordinator
    that is told WINDFALL_OBJECTIVE plans by itself, again and again.
    """
    from windfall.cli.foreseen import STRETCHES, foreseen
    from windfall.cli.resources.showing import shown
    from windfall.contracts.message import instant
    from windfall.energy.goal import Goal

    try:
        now = instant(at) if at else datetime.now(UTC)
        goal = Goal(federation=federation, deadline=instant(deadline) if deadline else None, **told)
    except ValueError as error:
        raise click.UsageError(str(error), click.get_current_context()) from error
    decision, stretches = wait_for(foreseen(server, goal, now))
    print(shown(STRETCHES, stretches, output))
    if output in ("table", "wide"):
        kwh = sum(one.energy_kwh for one in stretches)
        print(f"\n{decision.made.because}")
        print(f"{kwh:.4g} kWh in all stretches; {decision.made.emissions_kg:.4g} kg of CO2 until the work is done")
