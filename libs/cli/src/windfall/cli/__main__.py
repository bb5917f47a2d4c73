"""The ``windfall`` command on one page: what a person can type. Each body loads what it needs when it is called.

How it ends:

====  ==================================================================================
code  meaning
====  ==================================================================================
0     done
1     something broke that is not listed below
2     a wrong argument, setting or input file: a trace row, a site, an event
3     a port in use, a folder missing or not writable, a program not found
4     a server that cannot be reached, refuses us, or is too old
5     the disk is full
6     a dry run found that something would change; ``profile diff``, that something has
130   interrupted; nothing is left running
====  ==================================================================================

Whatever a person can mend is told in one line on standard error, ``windfall: <cause>. <cure>``.
"""

import asyncio
import errno
import os
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from windfall.servicekit.errors import ExitCode, Mistake

if TYPE_CHECKING:
    from windfall.cli.resources.showing import Form

T = TypeVar("T")
EPILOG = """\b
Exit codes: 0 done; 1 failed; 2 wrong argument, setting or input; 3 port in use,
folder or program missing; 4 server unreachable or too old; 5 disk full;
6 a dry run or a diff found differences; 130 interrupted, with nothing left running.
"""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main() -> NoReturn:
    """The console script: run the command, and end with a documented code."""
    # Looking through all that is installed for plugins takes pydantic longer than a command should take to begin.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "true")
    sys.exit(_ended(_command))


_COMPLETE = "_WINDFALL_COMPLETE"
"""Set by a shell that wants to complete what is being typed."""


def _command() -> None:
    if instruction := os.environ.get(_COMPLETE):
        from click.shell_completion import shell_complete

        raise click.exceptions.Exit(shell_complete(windfall, {}, "windfall", _COMPLETE, instruction))
    # Not click's own main: it turns a closed pipe into a failure.
    with windfall.make_context("windfall", sys.argv[1:]) as context:
        windfall.invoke(context)


def _ended(command: Callable[[], None]) -> int:
    try:
        command()
        sys.stdout.flush()
        return ExitCode.OK
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except Mistake as mistake:
        _complain(str(mistake))
        return mistake.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        _complain(_usage(error))
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort, asyncio.CancelledError):
        _complain("interrupted. Nothing is left running")
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our lines has read enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        if error.errno in _FULL:
            _complain(f"the disk is full{where} ({error.strerror}). Free space, or write elsewhere, and start again")
            return ExitCode.DISK_FULL
        _complain(f"the system refuses{where} ({error.strerror}). Check that this user may use it")
        return ExitCode.RESOURCE


def _usage(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message().rstrip('.')}. See `{error.ctx.command_path} --help`"
    return f"{error.format_message().rstrip('.')}. See `windfall --help`"


def _complain(text: str) -> None:
    print(f"windfall: {' '.join(text.split())}", file=sys.stderr)


def _wait(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _resources(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from windfall.cli.resources.registry import ALL

    return [one.name for one in ALL if one.name.startswith(incomplete)]


_server = click.option(
    "--server",
    envvar="WINDFALL_NATS_URL",
    default="nats://127.0.0.1:4222",
    show_default=True,
    metavar="URL",
    help="NATS server of the hub or of a site.  [env: WINDFALL_NATS_URL]",
)


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def windfall() -> None:
    """Train where the power is a windfall."""


@windfall.command()
def version() -> None:
    """Print the versions of what runs here."""
    from windfall.cli.report import versions

    for name, found in versions().items():
        print(f"{name:16} {found}")


@windfall.command()
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
    harvest = run(asked, plain=plain, everything=verbose, commanded_at=commanded_at)
    for line in closing_words(harvest.summary, harvest.folder):
        print(line)


@windfall.command()
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


@windfall.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("places", nargs=-1, required=True, metavar="PLACE=NAME,NAME...")
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="A certificate is good for.")
def keys(folder: Path, places: tuple[str, ...], days: int) -> None:
    """Make keys and certificates for mutual TLS: FOLDER/PLACE/{tls.key,tls.crt,ca.crt} for each place.

    A place is the hub or a site; its names are those by which others reach its servers. What is good for another third
    of its life stays. For a demo or a fleet of your own: sites that trust nobody make their keys themselves and have
    them signed. Keep FOLDER/authority/ca.key to yourself, or delete it.
    """
    from datetime import timedelta

    from windfall.cli.keys import issued, place_of

    for line in issued(folder, [place_of(text) for text in places], timedelta(days=days), datetime.now(UTC)):
        print(line)


@windfall.command("run")
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
) -> None:
    """Run a Flower app on a whole fleet on this machine, then report.

    Its strategy and its ClientApp as they are, on sites whose power comes and goes; no account and no network, and
    nothing is installed. It ends when the app does, or with the trace, of which a day takes three minutes.
    """
    commanded_at = datetime.now(UTC)
    from windfall.cli.demo import run
    from windfall.cli.preparation import Asked
    from windfall.cli.report import closing_words

    chosen = tuple(name.strip() for name in sites.split(",") if name.strip())
    asked = Asked(
        fast=fast, out=out, sites=chosen, trace=trace, port=port, flower_app=flower_app, config=config, data=data
    )
    harvest = run(asked, plain=plain, everything=verbose, commanded_at=commanded_at)
    for line in closing_words(harvest.summary, harvest.folder):
        print(line)


@windfall.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="The site's public key, as it gave it you."
)
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def report(run: Path, key: Path | None, output: str) -> None:
    """Verify the ledgers of a run, and show what was drawn and emitted.

    RUN is a run folder, or a site's ledger.jsonl. Ends with 1 when a ledger was changed, cut or forged.
    """
    import json

    from windfall.cli.ledger import broken, of_run, section, table

    found = section(*of_run(run, key))
    assert found is not None, "a run without a ledger is refused"
    print(json.dumps(found, indent=2) if output == "json" else "\n".join(table(found)))
    if wrong := broken(found):
        raise Mistake(wrong, "Ask the site for its own copy, and believe none of these figures", ExitCode.FAILED)


@windfall.command()
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE", help="CSV of gCO2/kWh.  [default: shipped]")
@click.option("--site", multiple=True, metavar="NAME=COLUMN", help="Of the trace; repeat it.  [default: all columns]")
@click.option("--start", metavar="T", help="ISO 8601.  [default: where the trace begins]")
@click.option("--end", metavar="T", help="ISO 8601.  [default: where the trace ends]")
@click.option("--objective", type=click.Choice(["fast", "carbon", "budget", "cost"]), default="fast", show_default=True)
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
@click.option("--power-idle", type=float, default=0.468, show_default=True, metavar="KW")
@click.option("--power-train", type=float, default=2.024, show_default=True, metavar="KW", help="Draining, too.")
@click.option("--power-provision", type=float, metavar="KW", help="While starting.  [default: as --power-idle]")
@click.option("--provision-seconds", type=float, default=240.0, show_default=True, metavar="S")
@click.option("--drain-seconds", type=float, default=15.0, show_default=True, metavar="S")
@click.option("--forecast", default="noisy:1", show_default=True, metavar="perfect|noisy:SEED", help="72 hours ahead.")
@click.option("--replan-minutes", type=float, default=0.0, metavar="M", help="Between plans.  [default: every reading]")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="OUT", help="Every interval and figure.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="OUT.png", help="A picture of it.")
@click.option("-v", "--verbose", is_flag=True, help="Every site by itself, too.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def simulate(json_file: Path | None, plot: Path | None, verbose: bool, output: str, **typed: Any) -> None:
    """Run the decisions of this fleet on a trace, in its own time, beside those of others."""
    from windfall.cli.simulate import Asked
    from windfall.cli.simulated import tell

    tell(Asked(**typed), json_file, plot, verbose=verbose, output=output)


@windfall.command()
@click.argument("site")
@_server
@click.option("-o", "--output", type=click.Choice(["line", "json"]), default="line", show_default=True)
def explain(site: str, server: str, output: str) -> None:
    """Say why a site is on or off, and what would change it."""
    from windfall.cli.explain import explain as asked
    from windfall.cli.explain import in_json, in_words

    told = _wait(asked(server, site))
    print(in_json(told) if output == "json" else in_words(told))


@windfall.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete this command: eval "$(windfall completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    print(found(windfall, {}, "windfall", _COMPLETE).source())


_what = click.argument("what", metavar="WHAT", shell_complete=_resources)
_as = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "wide", "json", "yaml", "jsonl"]),
    default="table",
    show_default=True,
    help="json, yaml and jsonl are for machines and say their version.",
)


@windfall.command()
@_what
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_server
@_as
def get(what: str, names: tuple[str, ...], server: str, output: "Form") -> None:
    """List sites, windows, leases, profiles, federations or rounds.

    An id may be cut as long as one alone begins so.
    """
    from windfall.cli.resources.reading import rows
    from windfall.cli.resources.registry import chosen, resource
    from windfall.cli.resources.showing import shown

    of = resource(what)
    print(shown(of, chosen(of, _wait(rows(server, of)), names), output, alone=len(names) == 1))


@windfall.command()
@_what
@click.argument("name")
@_server
@click.option("--events", "count", type=click.IntRange(min=0), default=10, show_default=True, metavar="N")
def describe(what: str, name: str, server: str, count: int) -> None:
    """Print everything that is known of one, and the last events about it."""
    from windfall.cli.resources.describing import described

    print(_wait(described(server, what, name, count)))


@windfall.command()
@_what
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_server
@click.option("-o", "--output", type=click.Choice(["line", "jsonl"]), default="line", show_default=True)
def watch(what: str, names: tuple[str, ...], server: str, output: str) -> None:
    """Print each one as it stands, and again whenever it changes, until it is interrupted."""
    from windfall.cli.resources.registry import resource
    from windfall.cli.resources.watching import follow

    _wait(follow(server, resource(what), names, output == "jsonl", lambda text: print(text, flush=True)))


@windfall.command()
@_what
@click.argument("name")
@click.option("--for", "wish", required=True, metavar="FIELD=VALUE", help="Like window=on or state=completed.")
@click.option("--timeout", type=click.FloatRange(min=0), default=300.0, show_default=True, metavar="SECONDS")
@_server
def wait(what: str, name: str, wish: str, timeout: float, server: str) -> None:
    """Return when a field of one has a value; end with 1 when it has not by then."""
    from windfall.cli.resources.registry import resource
    from windfall.cli.resources.watching import until

    print(_wait(until(server, resource(what), name, wish, timeout)))


@windfall.group("fleet")
def fleet_commands() -> None:
    """A fleet of clusters as manifests, from one values file."""


@fleet_commands.command("render")
@click.option(
    "-f", "--file", "values_file", required=True, type=click.Path(path_type=Path), help="The fleet's values file."
)
@click.option(
    "-o", "--output", default="yaml", show_default=True, metavar="yaml|json|DIR", help="To print, or a folder to fill."
)
@click.option(
    "--dry-run", is_flag=True, help="Print what applying would change on a live API server, and write nothing."
)
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Of that server.  [default: as kubectl finds it]")
@click.option("--context", metavar="NAME", help="Of the kubeconfig.  [default: its current one]")
@click.option("--deploy", type=click.Path(path_type=Path), help="Folder of the charts.  [default: this checkout's]")
def render_fleet(
    values_file: Path, output: str, dry_run: bool, kubeconfig: Path | None, context: str | None, deploy: Path | None
) -> None:
    """Render a whole fleet: clusters, what they may be made of, and what runs on them.

    \b
    windfall fleet render -f fleet.yaml | kubectl apply --server-side --field-manager=windfall-fleet -f -

    With --dry-run it ends with 0 when nothing would change and with 6 when something would.
    """
    from windfall.cli.gitops import render

    if not dry_run:
        render.show(values_file, output, deploy, print)
    elif code := render.preview(values_file, output, deploy, kubeconfig, context, print):
        raise click.exceptions.Exit(code)


@windfall.group()
def profile() -> None:
    """Show what nodes are made of and can do, and what became of it."""


_form = click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)


@profile.command("get")
@click.argument("site", required=False)
@_server
@_form
def profile_get(site: str | None, server: str, output: str) -> None:
    """Print the newest profile of SITE, or of every site.

    SITE may also be a file, or a folder of files, that `export` or a profiler wrote.
    """
    from windfall.cli import profile as profiles

    found = _wait(profiles.of(site, server) if site else profiles.profiles(server))
    if output == "table":
        profiles.printed(profiles.table(found))
    else:
        print(profiles.shown(found, output, alone=site is not None and len(found) == 1))


@profile.command("diff")
@click.argument("before")
@click.argument("after", required=False)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 100),
    default=20.0,
    show_default=True,
    metavar="%",
    help="By how much what is measured may be worse.",
)
@_server
@_form
def profile_diff(before: str, after: str | None, tolerance: float, server: str, output: str) -> None:
    """Say what is not as it was; ends with 6 when something is not.

    BEFORE and AFTER are sites, files or folders of files; without AFTER it is what the server knows now.
    """
    from windfall.cli import profile as profiles

    found = _wait(profiles.compared(server, before, after, tolerance / 100))
    if output != "table":
        print(profiles.shown_drift(found, output))
    elif found:
        profiles.printed(profiles.drift_table(found))
    profiles.raise_for(found)


@profile.command("export")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR")
@_server
def profile_export(folder: Path, server: str) -> None:
    """Write the newest profile of every site as DIR/SITE.json, for Git.

    Which devices they are (UUID, address) stays at the site and is not in it.
    """
    from windfall.cli import profile as profiles

    for path, new in profiles.export(_wait(profiles.profiles(server)), folder):
        print(f"{path} {'written' if new else 'is as it was'}")


@profile.command("advice")
@click.argument("federation", required=False)
@_server
@_form
def profile_advice(federation: str | None, server: str, output: str) -> None:
    """Print what FEDERATION is advised to train with, what of it is used, who chose that, and why.

    Without FEDERATION it is whichever was advised last.
    """
    from windfall.cli import advice
    from windfall.cli import profile as profiles

    found = _wait(advice.given(server, federation))
    if output == "table":
        profiles.printed(advice.table(found))
        print(*advice.reasons(found), sep="\n")
    else:
        print(profiles.structured(found.model_dump(mode="json"), output))


@windfall.command()
@_server
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def links(server: str, output: str) -> None:
    """Show every link of the fleet as it was measured last: from whom, to whom, how far and how wide."""
    from rich.console import Console

    from windfall.cli.links import in_json, read, show

    matrix = _wait(read(server))
    if output == "json":
        print(in_json(matrix))
    else:
        show(matrix, Console())


@windfall.group()
def events() -> None:
    """Read what a fleet says, and say it something."""


@events.command()
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), default="json", show_default=True)
def schema(output: str) -> None:
    """Print every event and command as an AsyncAPI 3.0 document."""
    from importlib.metadata import version as installed

    from windfall.cli.events import schema as text

    print(text(installed("windfall-contracts"), output))


@events.command()
@_server
@click.option("--topic", metavar="TOPIC", help="Only these, like window.opened or window.*")
@click.option("--site", metavar="SITE", help="Only those about one site.")
@click.option("-o", "--output", type=click.Choice(["line", "json"]), default="line", show_default=True)
@click.option("--from-start", is_flag=True, help="From the oldest that the server keeps.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="End after N events.")
def tail(server: str, topic: str | None, site: str | None, output: str, from_start: bool, count: int | None) -> None:
    """Print events as they are said; -o json prints a recording that `replay` reads."""
    from windfall.cli.events import in_json, in_words
    from windfall.cli.events import tail as follow

    form = in_json if output == "json" else in_words
    _wait(follow(server, topic, site, from_start, count, lambda said: print(form(said), flush=True)))


@events.command()
@click.argument("topic")
@click.option("--file", default="-", show_default=True, metavar="FILE", help="JSON body; - is standard input.")
@_server
def publish(topic: str, file: str, server: str) -> None:
    """Say one event or command; a bad one is refused with the reason. id and at are filled in when absent."""
    from windfall.cli.events import body_of, sentence
    from windfall.cli.events import publish as say

    message = sentence(topic, body_of(file))
    new = _wait(say(server, message))
    print(f"{message.id} {'stored' if new else 'was stored before'}")


@events.command()
@click.option("--from-file", required=True, type=click.Path(path_type=Path), metavar="FILE", help="A recording.")
@_server
def replay(from_file: Path, server: str) -> None:
    """Say a recording again under the same ids, so that a stream keeps one of each."""
    from windfall.cli.events import replay as say_again

    new, known = _wait(say_again(server, from_file))
    print(f"{new} stored, {known} were stored before")


@windfall.group()
def dlq() -> None:
    """Read, replay or drop what a service could not handle."""


@dlq.command("list")
@_server
def dlq_list(server: str) -> None:
    """List the dead letters of a server's domain, oldest first."""
    from windfall.cli.dead_letters import listed

    for dead in _wait(listed(server)):
        print(f"{dead.sequence:>6}  {dead.consumer:24} {dead.letter.subject:44} {dead.reason}")


@dlq.command("show")
@click.argument("number", type=int)
@_server
def dlq_show(number: int, server: str) -> None:
    """Print one dead letter: its headers and its body."""
    from windfall.cli.dead_letters import one

    dead = _wait(one(server, number))
    print(f"{dead.letter.subject}\nnot handled by {dead.consumer}: {dead.reason}\n")
    for name, value in dead.letter.headers.items():
        print(f"{name}: {value}")
    print(f"\n{dead.letter.body.decode(errors='backslashreplace')}")


def _which(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.argument("number", type=int, required=False),
        click.option("--all", "everything", is_flag=True, help="All of them."),
        _server,
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

    print(f"{_wait(say_again(server, _number(number, everything)))} replayed")


@dlq.command("drop")
@_which
def dlq_drop(number: int | None, everything: bool, server: str) -> None:
    """Forget a dead letter."""
    from windfall.cli.dead_letters import drop

    print(f"{_wait(drop(server, _number(number, everything)))} dropped")


if __name__ == "__main__":
    main()
