"""What a site hands in before anybody knows it, and what it keeps afterwards."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fuzz.target import Place, Target, text
from windfall.cli.identity import token
from windfall.cli.identity.authority import Signed, authority_in
from windfall.cli.identity.folders import HubFile, HubFolder, SiteFile, SiteFolder
from windfall.cli.identity.register import Refusal
from windfall.cli.identity.signing import certified, requested
from windfall.servicekit.errors import Mistake

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_hub, _site = Place(), Place()


@cache
def _authority() -> Signed:
    return authority_in(_hub.holding(b"").parent / "authority", _NOW)


def _tokens() -> Sequence[bytes]:
    return [token.OneTime("site-a", bytes(range(16)), bytes(range(32))).written().encode()]


@cache
def _requests() -> Sequence[bytes]:
    key = ec.derive_private_key(7, ec.SECP256R1())
    return [requested("site-a", "leaf", key)]


def _certified(data: bytes) -> x509.Certificate:
    return certified(data, "site-a", "leaf", _authority(), _NOW, timedelta(days=1))


def _hubs() -> Sequence[bytes]:
    one = HubFile(
        federation="demo",
        host="hub",
        listen="0.0.0.0",
        enrolment_port=1,
        leaf_port=2,
        coordinator_port=3,
        nats_port=4,
    )
    return [one.model_dump_json().encode()]


def _sites() -> Sequence[bytes]:
    one = SiteFile(site="a", hub="h:1", federation="demo", coordinator="h:2", leaf="tls://h:3", nats_port=4)
    return [one.model_dump_json().encode()]


def _in(place: Place, name: str, data: bytes) -> Path:
    folder = place.holding(data).parent
    (folder / name).write_bytes(data)
    return folder


TARGETS: Final = (
    Target("enrolment token", _tokens, lambda data: token.read(text(data)), (Mistake,)),
    Target("signing request", _requests, _certified, (Refusal,)),
    Target("hub file", _hubs, lambda data: HubFolder(_in(_hub, "hub.json", data)).read(), (Mistake,)),
    Target("site file", _sites, lambda data: SiteFolder(_in(_site, "site.json", data)).read(), (Mistake,)),
)
