"""Everything at once, from where a person stands."""

import os
from datetime import UTC, datetime

from windfall.cli.counting import counted
from windfall.cli.doctor import bus, fleet, machine
from windfall.cli.doctor.finding import Finding, failure, good
from windfall.cli.links import read
from windfall.cli.resources.reading import rows
from windfall.cli.resources.registry import resource
from windfall.cli.server import connection
from windfall.contracts.hardware import Hardware
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import NatsSettings, TlsSettings, load


async def examined(url: str) -> list[Finding]:
    """What this machine and that server say. A server that is away is a finding like any other."""
    nats, grpc = load(NatsSettings, os.environ), load(TlsSettings, os.environ)
    certificates = {
        "our certificate": nats.nats_certificate,
        "the authority": nats.nats_authority,
        "our certificate for gRPC": grpc.tls_certificate,
        "the authority for gRPC": grpc.tls_authority,
    }
    secrets = {"our key": nats.nats_key, "our nkey": nats.nats_nkey_file, "our key for gRPC": grpc.tls_key}
    found = list(machine.look(certificates, secrets, datetime.now(UTC)))
    try:
        async with connection(url) as client:
            found += await bus.look(client, datetime.now(UTC))
        for site in (await rows(url, resource("sites"))).values():
            found += fleet.of_site(site)
        found += fleet.of_links(await read(url))
        found += fleet.of_hardware(await _hardware(url))
    except Mistake as mistake:
        found.append(failure("server", mistake.cause, mistake.cure))
    if target := os.environ.get("WINDFALL_COORDINATOR"):
        found.append(await _coordinator(target))
    return found


async def _coordinator(target: str) -> Finding:
    """Whether it answers, and believes us."""
    # Imported here: gRPC takes a while to load, and not everybody names a coordinator.
    from windfall.cli.checkpoints.door import HandsOutNone
    from windfall.cli.checkpoints.listing import listed

    try:
        return good("coordinator", f"{counted(len(await listed(target, '')), 'models')} kept at {target}")
    except HandsOutNone:
        return good("coordinator", f"{target} answers")
    except Mistake as mistake:
        return failure("coordinator", mistake.cause, mistake.cure)


async def _hardware(url: str) -> dict[str, Hardware]:
    from windfall.cli.profile import profiles

    return {site: one.hardware for site, one in (await profiles(url)).items()}
