"""A hub and sites on machines of their own, and who belongs to the fleet."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from windfall.cli.commands.listing import Listing
from windfall.cli.commands.options import in_table, sure, surely, wait_for

if TYPE_CHECKING:
    from windfall.cli.resources.resource import Resource
    from windfall.cli.resources.showing import Form

HUB_DIR = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    envvar="WINDFALL_HUB_DIR",
    default=Path("hub"),
    show_default=True,
    help="Folder of the hub.  [env: WINDFALL_HUB_DIR]",
)


@click.group(cls=Listing)
def hub() -> None:
    """Run the hub of a fleet on this machine."""


@hub.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("hub"),
    show_default=True,
    help="Its folder: keys, certificates, state.",
)
@click.option("--federation", default="demo", show_default=True, metavar="NAME", help="What it trains.")
@click.option("--listen", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where its doors are.")
@click.option("--host", metavar="NAME", help="By which sites reach it.  [default: what it listens at]")
@click.option("--port", type=click.IntRange(1, 65535), default=9443, show_default=True, help="Of enrolment.")
@click.option("--leaf-port", type=click.IntRange(1, 65535), default=7422, show_default=True, help="Of sites' NATS.")
@click.option("--coordinator-port", type=click.IntRange(1, 65535), default=9500, show_default=True, help="Of gRPC.")
@click.option("--nats-port", type=click.IntRange(1, 65535), default=4222, show_default=True, help="On loopback.")
@click.option("--web", is_flag=True, help="Serve the live page, too, on loopback, once a site is enrolled.")
@click.option("--web-port", type=click.IntRange(1, 65535), default=8400, show_default=True, help="Of the live page.")
@click.option("--approve", is_flag=True, help="A token is enough: nobody need approve.")
@click.option("--days", type=click.FloatRange(min=0, min_open=True), default=90, show_default=True,
              help="A certificate is good for; it is renewed by itself.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="SERVICE.NAME=VALUE",
              help="Of federation-coordinator, like federation-coordinator.round_length=PT5M; repeat it.")  # fmt: skip
def up(
    folder: Path,
    federation: str,
    listen: str,
    host: str | None,
    port: int,
    leaf_port: int,
    coordinator_port: int,
    nats_port: int,
    web: bool,
    web_port: int,
    approve: bool,
    days: float,
    settings: tuple[str, ...],
) -> None:
    """Run a hub: NATS, enrolment, and a coordinator once a site is enrolled. Ends in order with Ctrl-C or SIGTERM.

    Keys, certificates and state stay in the folder, and the next `up` goes on from there. Whatever comes from other
    machines comes over mutual TLS.
    """
    from pydantic import ValidationError

    from windfall.cli.identity.beginning import HubWish, hub_up
    from windfall.cli.identity.folders import HubFile
    from windfall.servicekit.errors import Mistake

    if listen == "0.0.0.0" and host is None:  # noqa: S104 - asked for, and not bound here
        raise Mistake("everybody may knock, and sites need a name to come to", "Say --host NAME, too")
    try:
        wanted = HubFile(
            federation=federation,
            host=host or listen,
            listen=listen,
            enrolment_port=port,
            leaf_port=leaf_port,
            coordinator_port=coordinator_port,
            nats_port=nats_port,
        )
    except ValidationError as error:
        raise Mistake(
            f"{federation!r} names no federation", "Use lower-case letters, digits and dashes within"
        ) from error
    wish = HubWish(folder, wanted, approve, timedelta(days=days), settings, web_port if web else None)
    hub_up(wish, datetime.now(UTC))


@click.group(cls=Listing)
def site() -> None:
    """Run a site on this machine; at the hub, say which sites belong to the fleet."""


@site.command()
@click.argument("hub_url", metavar="HUB-URL")
@click.option("--token", envvar="WINDFALL_TOKEN", metavar="TOKEN", help="One-time.  [env: WINDFALL_TOKEN]")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("site"),
    show_default=True,
    help="Its folder: keys, certificates, state.",
)
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="The site's own data.")
@click.option("--set", "settings", multiple=True, metavar="SERVICE.NAME=VALUE",
              help="Of a service here, like energy-watcher.signal=static; repeat it.")  # fmt: skip
def join(hub_url: str, token: str | None, folder: Path, data: Path | None, settings: tuple[str, ...]) -> None:
    """Join the fleet of the hub at HUB-URL (HOST:PORT), and run this site until Ctrl-C or SIGTERM.

    Its keys are made here and never leave. Once it is enrolled it needs no token any more.
    """
    from windfall.cli.identity.beginning import site_join

    site_join(folder, hub_url, token, settings, data)


@site.command()
@click.argument("name", metavar="SITE")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), default=24, show_default=True, help="It holds.")
@click.option("--tenant", default="default", show_default=True, metavar="NAME", help="Whom of this hub it joins.")
@click.option("--owner", metavar="NAME", help="Whose it is: all of an owner's share one cap.  [default: its own]")
@HUB_DIR
def token(name: str, hours: float, tenant: str, owner: str | None, folder: Path) -> None:
    """Print a one-time token for SITE. Whoever has it can join as SITE: pass it on as a secret."""
    from windfall.cli.identity.desk import asked
    from windfall.cli.identity.token import owner_named, site_named

    whose = {"tenant": tenant, "owner": None if owner is None else owner_named(owner)}
    print(wait_for(asked(folder, "token", site=site_named(name), lasts_s=hours * 3600, **whose)))


@site.command()
@HUB_DIR
@in_table
def requests(folder: Path, output: "Form") -> None:
    """List the sites that wait to be approved."""
    from windfall.cli.resources.roster import WAITING, waiting

    _list(folder, WAITING, waiting, output)


@site.command("list")
@HUB_DIR
@in_table
def list_sites(folder: Path, output: "Form") -> None:
    """List the sites that are enrolled."""
    from windfall.cli.resources.roster import ENROLLED, enrolled

    _list(folder, ENROLLED, enrolled, output)


@site.command()
@HUB_DIR
@in_table
def history(folder: Path, output: "Form") -> None:
    """List what was asked, approved, renewed and revoked, oldest first."""
    from windfall.cli.resources.roster import HISTORY
    from windfall.cli.resources.roster import history as deeds

    _list(folder, HISTORY, deeds, output)


def _list(folder: Path, of: "Resource", rows: Callable[[Mapping[str, Any]], Sequence[object]], output: "Form") -> None:
    from windfall.cli.identity.desk import asked
    from windfall.cli.resources.showing import shown

    print(shown(of, rows(wait_for(asked(folder, "roster"))), output))


@site.command()
@click.argument("name", metavar="SITE")
@HUB_DIR
def approve(name: str, folder: Path) -> None:
    """Let SITE in, which waits."""
    from windfall.cli.identity.desk import asked

    wait_for(asked(folder, "approve", site=name))
    print(f"{name} is approved")


@site.command()
@click.argument("name", metavar="SITE")
@click.option("--reason", default="asked", show_default=True, help="Stands in the history.")
@HUB_DIR
@sure
def revoke(name: str, reason: str, folder: Path, yes: bool) -> None:
    """Shut SITE out at once: its connection is cut, and neither its keys nor its certificates count any longer."""
    from windfall.cli.identity.desk import asked

    surely(f"Shut {name} out?", yes)
    wait_for(asked(folder, "revoke", site=name, reason=reason))
    print(f"{name} is revoked; another token lets it join anew")
