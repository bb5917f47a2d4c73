"""Which processes a hub and a site are made of. Pure: nothing here starts, listens or writes."""

import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from windfall.cli.fleet import LOOPBACK, Program
from windfall.cli.identity.folders import COORDINATOR, ENROLMENT, NATS, Folder, HubFile, HubFolder, SiteFile, SiteFolder
from windfall.contracts.subjects import SITE_SERVICES
from windfall.servicekit.errors import Mistake
from windfall.servicekit.keyed_server import KeyedServer
from windfall.servicekit.nats_rules import ADMIN
from windfall.servicekit.tls import Tls

KEEPER: Final = "keeper"
"""Renews a site's certificates."""
STARTED: Final = tuple(service for service in SITE_SERVICES if service != "site-trainer")
"""The services of a site that are started with it; trainers are the provisioner's to start."""
Told = Mapping[str, Mapping[str, str]]
"""What the person sets beyond what a service needs to find the others: by service and name."""


def told(texts: Sequence[str], services: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read ``SERVICE.NAME=VALUE``.

    Raises:
        Mistake: one is not like that.
    """
    found: dict[str, dict[str, str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        service, dot, variable = name.strip().partition(".")
        if not (equals and dot and variable) or service not in services:
            raise Mistake(
                f"{text!r} is no setting of a service here",
                f"Say SERVICE.NAME=VALUE; there are {', '.join(services)}",
            )
        found.setdefault(service, {})[variable.strip().upper().removeprefix("WINDFALL_")] = value.strip()
    return found


def server_program(server: KeyedServer, binary: Path, folder: Folder) -> Program:
    """The NATS server of the place."""
    return Program(
        name=NATS,
        argv=(str(binary), "-c", str(server.config)),
        environ={},
        folder=folder.nats,
        log=folder.logs / f"{NATS}.log",
        port=server.port,
    )


def enrolment(folder: HubFolder, approve: bool, lasts: timedelta) -> Program:
    """Where sites and people ask the register."""
    settings = {
        "HUB_DIR": str(folder.path),
        "APPROVE": str(approve).lower(),
        "CERTIFICATE_LASTS": f"PT{lasts.total_seconds():.3f}S",
    }
    return _program(folder, ENROLMENT, settings, "cli.identity.serving")


def coordinator(
    folder: HubFolder,
    hub: HubFile,
    sites: Sequence[str],
    lends: Sequence[str],
    owners: str,
    settings: Mapping[str, str],
) -> Program:
    """The coordinator of the hub's federation, for the sites that are enrolled.

    Args:
        lends: what it lends other tenants.
        owners: whose sites are, as JSON.
    """
    return _service(
        folder,
        COORDINATOR,
        hub.nats_port,
        {
            "SITES": ",".join(sites),
            **({"LENDS": ",".join(lends)} if lends else {}),
            **({"OWNERS": owners} if owners != "{}" else {}),
            "FEDERATION": hub.federation,
            "LISTEN": f"{hub.listen}:{hub.coordinator_port}",
            **_tls(folder.tls(COORDINATOR)),
            "TLS_REVOKED": str(folder.revoked),
            # Enrolment gave every site a key whose certificate names it.
            "SIGNATURES": "required",
            **settings,
        },
    )


def page(folder: HubFolder, hub: HubFile, port: int) -> Program:
    """The live page, on loopback."""
    name = "page"
    return Program(
        name=name,
        argv=(
            *(sys.executable, "-m", "windfall.cli", "web"),
            *("--server", f"nats://{LOOPBACK}:{hub.nats_port}", "--listen", f"{LOOPBACK}:{port}"),
        ),
        environ={
            "WINDFALL_NATS_NKEY_FILE": str(folder.nkeys / f"{ADMIN}.nk"),
            # Whichever hub a person's contexts mean, the page is this one's.
            "XDG_CONFIG_HOME": str(folder.state(name)),
        },
        folder=folder.state(name),
        log=folder.logs / f"{name}.log",
        port=port,
    )


def keeper(folder: SiteFolder) -> Program:
    """Renews the site's certificates before they end."""
    return _program(folder, KEEPER, {"SITE_DIR": str(folder.path)}, "cli.identity.keeping")


def site_services(folder: SiteFolder, site: SiteFile, settings: Told) -> tuple[Program, ...]:
    """Watcher, provisioner and profiler of a site."""
    trainer = {
        "COORDINATOR": site.coordinator,
        "FEDERATION": site.federation,
        "DATA_DIR": str(folder.data),
        "NATS_NKEY_FILE": str(folder.nkeys / "site-trainer.nk"),
        **_tls(folder.tls("site-trainer")),
        **settings.get("site-trainer", {}),
    }
    own: dict[str, dict[str, str]] = {
        "energy-watcher": {"LEDGER_FEDERATION": site.federation},
        "provisioner": {
            "BACKEND": "process",
            "ON_STOP": "release",
            **{f"TRAINER_{name}": value for name, value in trainer.items()},
        },
        "profiler": {"COORDINATOR": site.coordinator, **_tls(folder.tls("profiler"))},
    }
    return tuple(
        _service(folder, service, site.nats_port, {"SITE": site.site, **own[service], **settings.get(service, {})})
        for service in STARTED
    )


def _service(folder: Folder, service: str, nats_port: int, settings: Mapping[str, str]) -> Program:
    found = {
        "NATS_URL": f"nats://127.0.0.1:{nats_port}",
        "NATS_NKEY_FILE": str(folder.nkeys / f"{service}.nk"),
        "STATE_DIR": str(folder.state(service)),
    }
    return _program(folder, service, {**found, **settings}, service.replace("-", "_"))


def _program(folder: Folder, name: str, settings: Mapping[str, str], module: str) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, "-m", f"windfall.{module}"),
        environ={f"WINDFALL_{key}": value for key, value in settings.items()},
        folder=folder.state(name),
        log=folder.logs / f"{name}.log",
    )


def _tls(files: Tls) -> dict[str, str]:
    return {
        "TLS_CERTIFICATE": str(files.certificate),
        "TLS_KEY": str(files.key),
        "TLS_AUTHORITY": str(files.authority),
    }
