"""Answers of every provider of a signal, as they come by HTTP."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from random import Random
from typing import Any, Final

import httpx

from tests.fuzz.target import Target, text
from windfall.energy.quotes import Unbelievable
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.section import Means
from windfall.energy_watcher.sources import provider_of, signals_of
from windfall.energy_watcher.testing.fake_providers import PASSWORD, TOKEN, USERNAME, curve
from windfall.energy_watcher.testing.recorded_shapes import Asked, answer_of
from windfall.servicekit.errors import Mistake, Transient

_NOON: Final = datetime(2026, 3, 29, 12, 2, 30, tzinfo=UTC)
_HOURS: Final = timedelta(hours=3)
_ENVIRON: Final = {
    "WINDFALL_WATTTIME_USERNAME": USERNAME,
    "WINDFALL_WATTTIME_PASSWORD": PASSWORD,
    "WINDFALL_ELECTRICITYMAPS_TOKEN": TOKEN,
    "WINDFALL_PROMETHEUS_TOKEN": TOKEN,
}
_TOLD: Final[dict[str, dict[str, Any]]] = {
    "watttime": {"provider": "watttime", "region": "CAISO_NORTH"},
    "watttime percentile": {"provider": "watttime", "region": "CAISO_NORTH", "kind": "percentile"},
    "electricitymaps v3": {"provider": "electricitymaps", "zone": "DE", "version": "v3"},
    "electricitymaps": {"provider": "electricitymaps", "zone": "DE"},
    "electricitymaps price": {"provider": "electricitymaps", "zone": "DE", "kind": "price"},
    "uk carbon intensity": {"provider": "uk_carbon_intensity"},
    "uk carbon intensity region": {"provider": "uk_carbon_intensity", "region_id": 1},
    "vessim": {"provider": "vessim"},
    "vessim surplus": {"provider": "vessim", "kind": "surplus", "training_actors": ["gpu"]},
    "prometheus": {"provider": "prometheus", "query": "sum(site_export_watts)", "kind": "surplus"},
}


async def _at_once(seconds: float) -> None:
    """No wall time passes between tries."""


class _Wire(httpx.AsyncBaseTransport):
    """Answers everything with what it was given; without that, as the provider does, and remembers it."""

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.said: list[bytes] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.answer is not None and (request.url.path != "/login" or b'"token"' in self.answer):
            status, _, body = self.answer.partition(b"\n")
            return httpx.Response(int(status) if status in _STATUSES else 200, stream=httpx.ByteStream(body))
        if request.url.path == "/login":
            status_code, said = 200, {"token": TOKEN}
        else:
            asked = Asked(request.url.path, dict(request.url.params), dict(request.headers))
            status_code, said = answer_of(asked, _NOON, curve)
        body = json.dumps(said).encode()
        self.said.append(f"{status_code}\n".encode() + body)
        return httpx.Response(status_code, stream=httpx.ByteStream(body))


_STATUSES: Final = (b"200", b"204", b"304", b"401", b"403", b"404", b"429", b"500", b"503")


def _provider(name: str, wire: _Wire) -> Provider:
    told = {"url": "https://localhost", "retries": 0, **_TOLD[name]}
    provider = provider_of(
        signals_of({"signal": told})["signal"], Means("site-a", "signal", _ENVIRON, _at_once, Random(1))
    )
    http: Any = getattr(provider, "_client")  # noqa: B009
    http._client = httpx.AsyncClient(transport=wire)
    return provider


async def _asked(provider: Provider) -> object:
    """All that a watcher asks; one answer is not each question's, so that it need fit no more than one."""
    found: list[object] = []
    refused: Exception | None = None
    for ask in (
        lambda: provider.history(_NOON - _HOURS, _NOON),
        lambda: provider.forecast(_NOON, _HOURS),
        lambda: provider.current(_NOON),
    ):
        try:
            if answer := await ask():
                found.append(answer)
        except (Transient, Mistake, Unbelievable) as error:
            refused = error
    if refused is not None and not found:
        raise refused
    return found


@cache
def _seeds(name: str) -> Sequence[bytes]:
    wire = _Wire()

    async def listened() -> None:
        await _asked(_provider(name, wire))

    asyncio.run(listened())
    # A day of values is no better an example than an hour.
    short = [said for said in wire.said if len(said) < 6000] or [said[:6000] for said in wire.said]
    return [*short, b"200\n", b"429\nslow down", b'403\n{"error": "no"}', b"304\n"]


def _answered(name: str, data: bytes) -> object:
    wire = _Wire()
    wire.answer = data

    async def ask() -> object:
        provider = _provider(name, wire)
        try:
            return await _asked(provider)
        finally:
            await provider.close()

    return asyncio.run(ask())


def _section(data: bytes) -> object:
    return signals_of(text(data))


TARGETS: Final = (
    *(
        Target(name, partial(_seeds, name), partial(_answered, name), (Transient, Mistake, Unbelievable))
        for name in _TOLD
    ),
    Target(
        "WINDFALL_SIGNALS",
        lambda: [json.dumps({"a": told}).encode() for told in _TOLD.values()],
        _section,
        (ValueError,),
    ),
)
