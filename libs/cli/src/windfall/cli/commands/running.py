"""Whole fleets on this machine, what they replay, and what they left."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from windfall.cli.commands.options import MACHINES
from windfall.servicekit.errors import ExitCode, Mistake


@click.command()
@click.option("--fast", is_flag=True, help="Six hours around noon and a smaller model: half a minute.")
@click.option(
    "--forecast/--no-forecast", default=True, show_default=True, help="Whether sites see the ends of their windows."
)
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/<date>-<time>]")
@click.option("--sites", default="", metavar="A,B", help="Sites, by their columns in the trace.  [default: all]")
@click.option("--trace", type=click.Path(path_type=Path), help="CSV of gCO2/kWh: point_time and a column per site.")
@click.option(
    "--seed", type=click.IntRange(0, 2**31 - 1), default=1, show_default=True, help="Of model and text order."
)
@click.option("--port", type=click.IntRange(1, 65535), help="Of the hub's NATS.  [default: a free one]")
@click.option(
    "--codec", default="topk-ef", show_default=True, metavar="CODEC", help="In which sites send what they learnt."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other of the coordinator's settings, like precision=fp32 or micro_batch=16; repeat it.",
)
@click.option("--plain", is_flag=True, help="Lines, even in a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Every line worth a line, not only the first ones.")
@click.option("--web", is_flag=True, help="Serve the live page, too, for as long as the demo runs.")
def demo(
    fast: bool,
    forecast: bool,
    out: Path | None,
    sites: str,
    trace: Path | None,
    seed: int,
    port: int | None,
    plain: bool,
    codec: str,
    settings: tuple[str, ...],
    verbose: bool,
    web: bool,
) -> None:
    """Run a whole fleet on this machine, then report.

    A hub and sites whose power comes and goes, with real services, real NATS servers and real training; no account and
    no network. A day of the trace takes a minute and a half.
    """
    commanded_at = datetime.now(UTC)
    from windfall.cli.demo import run
    from windfall.cli.preparation import Asked
    from windfall.cli.report import closing_words

    chosen = tuple(name.strip() for name in sites.split(",") if name.strip())
    asked = Asked(
        fast=fast,
        out=out,
        sites=chosen,
        seed=seed,
        trace=trace,
        port=port,
        forecast=forecast,
        codec=codec,
        settings=settings,
    )
    harvest = run(asked, plain=plain, everything=verbose, commanded_at=commanded_at, page=web)
    for line in closing_words(harvest.summary, harvest.folder):
        print(line)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--speed", type=click.FloatRange(1, 10_000), default=120.0, show_default=True, help="Of the replay.")
@click.option("--sites", default="", metavar="A,B", help="Sites, by their columns in the trace.  [default: all]")
@click.option("--trace", type=click.Path(path_type=Path), help="CSV of gCO2/kWh: point_time and a column per site.")
@click.option("--fast", is_flag=True, help="Six hours around noon.")
def stage(folder: Path, speed: float, sites: str, trace: Path | None, fast: bool) -> None:
    """Lay out what services replay a day from: a trace, each site's text, the clock that they share.

    For a demo in containers or on several machines. The day begins now; what lies in FOLDER already stays, so that a
    day goes on after a restart.
    """
    from windfall.cli.preparation import Asked
    from windfall.cli.staging import staged

    chosen = tuple(name.strip() for name in sites.split(",") if name.strip())
    print(staged(folder, Asked(sites=chosen, trace=trace, fast=fast), speed, datetime.now(UTC)))


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("places", nargs=-1, required=True, metavar="PLACE=NAME,NAME...")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="A certificate is good for.")
@click.option("--sites", default="", metavar="A,B", help="Places that are sites: each signs, and speaks for no other.")
def keys(folder: Path, places: tuple[str, ...], days: int, sites: str) -> None:
    """Make keys and certificates for mutual TLS: FOLDER/PLACE/{tls.key,tls.crt,ca.crt} for each place.

    A place is the hub or a site; its names are those by which others reach its servers. What is good for another third
    of its life stays. For a demo or a fleet of your own: sites that trust nobody make their keys themselves and have
    them signed. Keep FOLDER/authority/ca.key to yourself, or delete it.
    """
    from datetime import timedelta

    from windfall.cli.keys import as_sites, issued, place_of

    named = {name.strip() for name in sites.split(",") if name.strip()}
    chosen = as_sites([place_of(text) for text in places], named)
    for line in issued(folder, chosen, timedelta(days=days), datetime.now(UTC)):
        print(line)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def nkeys(folder: Path, names: tuple[str, ...]) -> None:
    """Make keys by which a NATS server knows its users: FOLDER/NAME.nk for each name.

    Prints NAME: KEY for each, the public ones, as nats.users and nats.leaves of the charts take them. What lies there
    stays. The files are secret: make one Secret of a place's, and keep no other copy.
    """
    from windfall.cli.nkeys import made

    for line in made(folder, names):
        print(line)


@click.command("run")
@click.option(
    "--flower-app",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of a Flower app (message API), with its pyproject.toml.",
)
@click.option(
    "-c", "config", multiple=True, metavar="KEY=VALUE", help="Of the app's run config, as in TOML; repeat it."
)
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="The sites' data, DIR/SITE or DIR.")
@click.option("--fast", is_flag=True, help="Six hours around noon.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/<date>-<time>]")
@click.option("--sites", default="", metavar="A,B", help="Sites, by their columns in the trace.  [default: all]")
@click.option("--trace", type=click.Path(path_type=Path), help="CSV of gCO2/kWh: point_time and a column per site.")
@click.option("--port", type=click.IntRange(1, 65535), help="Of the hub's NATS.  [default: a free one]")
@click.option("--plain", is_flag=True, help="Lines, even in a terminal.")
@click.option("-v", "--verbose", is_flag=True, help="Every line worth a line, not only the first ones.")
@click.option(
    "--token", metavar="TOKEN", help="Names this run: the same token again starts nothing, and says what it came to."
)
def run_app(
    flower_app: Path,
    config: tuple[str, ...],
    data: Path | None,
    fast: bool,
    out: Path | None,
    sites: str,
    trace: Path | None,
    port: int | None,
    plain: bool,
    verbose: bool,
    token: str | None,
) -> None:
    """Run a Flower app on a whole fleet on this machine, then report.

    Its strategy and its ClientApp as they are, on sites whose power comes and goes; no account and no network, and
    nothing is installed. It ends when the app does, or with 1 when the trace is over before, of which a day takes
    three minutes.
    """
    commanded_at = datetime.now(UTC)
    from windfall.cli.once import Outcome, once
    from windfall.cli.preparation import Asked, same_run

    chosen = tuple(name.strip() for name in sites.split(",") if name.strip())
    asked = Asked(
        fast=fast, out=out, sites=chosen, trace=trace, port=port, flower_app=flower_app, config=config, data=data
    )

    def work() -> Outcome:
        from windfall.cli.demo import run
        from windfall.cli.report import closing_words

        harvest = run(asked, plain=plain, everything=verbose, commanded_at=commanded_at)
        early = "" if harvest.ended else "the trace is over, and the app has not come to its end"
        return Outcome(lines=tuple(closing_words(harvest.summary, harvest.folder)), failed=early)

    outcome = work() if token is None else once(os.environ, token, same_run(asked), work, _said)
    for line in outcome.lines:
        print(line)
    if outcome.failed:
        raise Mistake(
            outcome.failed, "Leave --fast out, give a longer --trace, or ask less of it with -c", ExitCode.FAILED
        )


def _said(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="The site's public key, as it gave it you."
)
@click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help=MACHINES
)
def report(run: Path, key: Path | None, output: str) -> None:
    """Verify the ledgers of a run, and show what was drawn and emitted.

    RUN is a run folder, or a site's ledger.jsonl. Ends with 1 when a ledger was changed, cut or forged.
    """
    from windfall.cli.ledger import broken, of_run, section, table
    from windfall.cli.resources.versioned import single

    found = section(*of_run(run, key))
    assert found is not None, "a run without a ledger is refused"
    print("\n".join(table(found)) if output == "table" else single("Statement", found, output))
    if wrong := broken(found):
        raise Mistake(wrong, "Ask the site for its own copy, and believe none of these figures", ExitCode.FAILED)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--authority", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The fleet's certificate (PEM)."
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "jsonl"]),
    default="table",
    show_default=True,
    help="jsonl is what was signed, as it is handed on.",
)
def contributions(path: Path, authority: Path, output: str) -> None:
    """Verify who contributed what, by the sites' own signatures.

    PATH is a coordinator's folder (WINDFALL_STATE_DIR), or a file that was made of one with -o jsonl, to be handed to
    whoever shall check it. Ends with 1 when a signature does not hold.
    """
    from dataclasses import asdict

    from windfall.cli.contributions import COLUMNS, checked, lines_of, summary
    from windfall.cli.resources.showing import table
    from windfall.cli.resources.versioned import several
    from windfall.servicekit.signing import authorities

    lines = lines_of(path)
    rows = tuple(checked(lines, authorities(authority)))
    if output == "jsonl":
        print("\n".join(lines))
    elif output != "table":
        items = [{**asdict(row), "checked_at": row.checked_at.isoformat()} for row in rows]
        print(several("Contribution", items, output))
    else:
        print(f"{table(COLUMNS, rows)}\n\n{summary(rows)}")
    if wrong := [row for row in rows if row.holds != "yes"]:
        raise Mistake(
            f"{len(wrong)} of {len(rows)} contributions do not hold, the first of {wrong[0].site} in round"
            f" {wrong[0].round}: {wrong[0].holds}",
            "Ask for the coordinator's own copy, and hold it against the authority's certificate as you know it",
            ExitCode.FAILED,
        )


@click.command()
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE", help="CSV of gCO2/kWh.  [default: shipped]")
@click.option("--site", multiple=True, metavar="NAME=COLUMN", help="Of the trace; repeat it.  [default: all columns]")
@click.option("--start", metavar="T", help="ISO 8601.  [default: where the trace begins]")
@click.option("--end", metavar="T", help="ISO 8601.  [default: where the trace ends]")
@click.option(
    "--objective",
    type=click.Choice(["fast", "carbon", "budget", "cost"]),
    default="fast",
    show_default=True,
    help="What the plan is to make least of: time, CO2, time within a budget of CO2, or money.",
)
@click.option(
    "--policy",
    type=click.Choice(["windfall", "threshold", "always-on", "oracle", "all"]),
    multiple=True,
    default=["windfall"],
    show_default=True,
    help="Who decides; repeat it, or take all, to have them side by side.",
)
@click.option("--deadline-hours", type=float, metavar="H", help="From the start.")
@click.option("--work-site-hours", type=float, metavar="W", help="Of training.  [default: all windows there are]")
@click.option("--budget-kg", type=float, metavar="KG", help="Of CO2, for the objective budget.")
@click.option("--price", multiple=True, metavar="SITE=COLUMN", help="Per MWh, in the same trace.")
@click.option("--speed", multiple=True, metavar="SITE=X", help="In speeds of the reference site.  [default: 1]")
@click.option("--open", type=float, default=100.0, show_default=True, metavar="G", help="Clean below, gCO2/kWh.")
@click.option("--close", type=float, metavar="G", help="Dirty above, gCO2/kWh.  [default: as --open]")
@click.option("--power-idle", type=float, default=0.468, show_default=True, metavar="KW", help="While it waits.")
@click.option("--power-train", type=float, default=2.024, show_default=True, metavar="KW", help="Draining, too.")
@click.option("--power-provision", type=float, metavar="KW", help="While starting.  [default: as --power-idle]")
@click.option("--provision-seconds", type=float, default=240.0, show_default=True, metavar="S", help="A node takes.")
@click.option("--drain-seconds", type=float, default=15.0, show_default=True, metavar="S", help="To deliver.")
@click.option("--forecast", default="noisy:1", show_default=True, metavar="perfect|noisy:SEED", help="72 hours ahead.")
@click.option("--replan-minutes", type=float, default=0.0, metavar="M", help="Between plans.  [default: every reading]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="OUT", help="Every interval and figure.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="OUT.png", help="A picture of it.")
@click.option("-v", "--verbose", is_flag=True, help="Every site by itself, too.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True, help=MACHINES)
def simulate(json_file: Path | None, plot: Path | None, verbose: bool, output: str, **typed: Any) -> None:
    """Run the decisions of this fleet on a trace, in its own time, beside those of others."""
    from windfall.cli.simulate import Asked
    from windfall.cli.simulated import tell

    tell(Asked(**typed), json_file, plot, verbose=verbose, output=output)
