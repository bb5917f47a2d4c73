"""What a hub or a site needs on disk before its first process starts, and the processes that it then is."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from windfall.cli import nkeys
from windfall.cli.fleet import LOOPBACK
from windfall.cli.identity import plans, token
from windfall.cli.identity.authority import put
from windfall.cli.identity.doors import nats_server
from windfall.cli.identity.folders import COORDINATOR, ENROLMENT, HubFile, HubFolder, SiteFolder
from windfall.cli.identity.hub_keeping import places
from windfall.cli.identity.keeping import mend
from windfall.cli.identity.register import Register
from windfall.cli.identity.running import run_hub, run_site
from windfall.cli.identity.signing import LEAF
from windfall.cli.keys import issued
from windfall.contracts.subjects import SITE_SERVICES
from windfall.servicekit import nkey
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.keyed_server import Hub, KeyedServer, configuration
from windfall.servicekit.nats_rules import ADMIN
from windfall.servicekit.natsserver import find_binary


@dataclass(frozen=True)
class HubWish:
    """What the person asked for."""

    folder: Path
    hub: HubFile
    approve: bool
    certificates_last: timedelta
    settings: tuple[str, ...]
    web_port: int | None = None
    """Of the live page, where one is served."""


def hub_up(wish: HubWish, now: datetime) -> None:
    """Run a hub until it is told to stop.

    Raises:
        Mistake: it cannot be had; one line says why.
    """
    folder = HubFolder(wish.folder.resolve())
    settings = plans.told(wish.settings, (COORDINATOR,)).get(COORDINATOR, {})
    if wish.web_port is not None:
        _free(wish.web_port)
    _private(folder.path)
    hub = _begun(folder, wish.hub)
    for _ in issued(folder.keys, places(hub), wish.certificates_last, now):
        pass
    for _ in nkeys.made(folder.nkeys, (COORDINATOR, ADMIN, ENROLMENT)):
        pass
    keys = {name: nkey.read(folder.nkeys / f"{name}.nk").public for name in (COORDINATOR, ADMIN, ENROLMENT)}
    server = nats_server(folder, hub, keys, Register())
    asyncio.run(
        run_hub(
            folder,
            hub,
            plans.server_program(server, find_binary(), folder),
            plans.enrolment(folder, wish.approve, wish.certificates_last),
            plans.page(folder, hub, wish.web_port) if wish.web_port is not None else None,
            settings,
        )
    )


def site_join(folder: Path, hub: str, given: str | None, settings: Sequence[str], data: Path | None) -> None:
    """Enrol a site if it is not, and run it until it is told to stop.

    Raises:
        Mistake: it cannot be had; one line says why.
    """
    own = plans.told(settings, SITE_SERVICES)
    place = SiteFolder(folder.resolve())
    _private(place.path)
    address = address_of(hub)
    if given is not None:
        _enrol(place, address, given)
    site = place.read()
    mend(place)
    if address != site.hub:
        raise Mistake(
            f"{folder} is enrolled at {site.hub}, not at {address}", "Name that hub, or another folder with --dir"
        )
    if data is not None:
        own.setdefault("site-trainer", {}).setdefault("DATA_DIR", str(data.resolve()))
    place.data.mkdir(exist_ok=True)
    users = {name: nkey.read(place.nkeys / f"{name}.nk").public for name in (*SITE_SERVICES, ADMIN)}
    seed = (place.nkeys / f"{LEAF}.nk").read_text(encoding="ascii").strip()
    server = KeyedServer(site.site, site.nats_port, place.nats, users, place.tls(LEAF), Hub(site.leaf, seed))
    put(server.config, configuration(server).encode(), 0o600)
    asyncio.run(
        run_site(
            plans.server_program(server, find_binary(), place),
            (plans.keeper(place),),
            plans.site_services(place, site, own),
        )
    )


def address_of(hub: str) -> str:
    """``host:port`` of what a person calls the hub.

    Raises:
        Mistake: that is no address.
    """
    text = hub.removeprefix("https://").rstrip("/")
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise Mistake(f"{hub!r} is no hub's address", "Write HOST:PORT, as `windfall hub up` says it at its start")
    return text


def _enrol(place: SiteFolder, hub: str, given: str) -> None:
    """In a process of its own: what starts the site's processes has one thread alone."""
    shown = token.read(given)
    if place.enrolled and place.read().site != shown.site:
        raise Mistake(
            f"{place.path} is {place.read().site}'s, and the token is for {shown.site}",
            "Name another folder with --dir",
        )
    told = {"WINDFALL_SITE_DIR": str(place.path), "WINDFALL_HUB": hub, "WINDFALL_TOKEN": given}
    ended = subprocess.run(
        [sys.executable, "-m", "windfall.cli.identity.joining"], env={**os.environ, **told}, check=False
    )
    if ended.returncode:
        # It has said why.
        raise SystemExit(ended.returncode)


def _begun(folder: HubFolder, wanted: HubFile) -> HubFile:
    if not (folder.path / "hub.json").exists():
        folder.write(wanted)
        return wanted
    found = folder.read()
    if found.federation != wanted.federation:
        raise Mistake(
            f"{folder.path} is the hub of {found.federation}, not of {wanted.federation}",
            "Name that federation, or another folder with --dir",
        )
    folder.write(wanted)
    return wanted


def _free(port: int) -> None:
    """It is served only when a site is enrolled, and said now."""
    with socket.socket() as probe:
        # As a server asks for it: what was closed a moment ago is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise Mistake(
                f"port {port} of the live page cannot be used ({error.strerror})",
                "Choose another with --web-port",
                ExitCode.RESOURCE,
            ) from error


def _private(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise Mistake(
            f"cannot write the folder {path} ({error.strerror})",
            "Name one that this user may write with --dir",
            ExitCode.RESOURCE,
        ) from error
