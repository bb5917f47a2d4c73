"""Keeps the flow between domains awake.

After a server or a link was away, nats-server asks a stream's source again only after a growing pause: 19 to 39 s on
2.15.1. Taking the source out of the stream and putting it back makes it ask at once (0.2 s after a hub's restart, 4 s
after a site lost its store), and repeats nothing: where to go on is read from what the stream already holds. Asking
again too soon cuts off the attempt that is under way, hence the pauses here.
"""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext

from windfall.contracts.subjects import StreamSpec
from windfall.servicekit.jetstream import api_of, renew_sources

log = logging.getLogger(__name__)

QUIET: Final = timedelta(seconds=3)
"""A living source is heard from at least every second."""
PATIENCE: Final = timedelta(seconds=5)
"""How long an attempt may take before the next."""
_PATIENCE_AT_MOST: Final = timedelta(minutes=1)
_ASK_S: Final = 0.5


class Sourcing:
    """Watches the sourced streams of one domain.

    Args:
        specs: the streams of the domain.
        replicas: servers that keep a copy of each.
    """

    def __init__(self, specs: Sequence[StreamSpec], replicas: int = 1) -> None:
        self._replicas = replicas
        self._specs = [spec for spec in specs if spec.sources]
        self._patience: dict[str, timedelta] = {}
        self._next_at: dict[str, float] = {}

    def began(self) -> None:
        """The server asks by itself now: leave it the first attempt."""
        now = asyncio.get_running_loop().time()
        for spec in self._specs:
            self._patience[spec.name] = PATIENCE
            self._next_at[spec.name] = now + PATIENCE.total_seconds()

    def reconnected(self) -> None:
        """Our server may be a new process, whose first attempt was lost on a leaf that was not there yet."""
        self._next_at.clear()
        self._patience.clear()

    async def look(self, client: Client, jetstream: JetStreamContext) -> None:
        """Wake the streams whose source is silent although its domain answers.

        Raises:
            nats.errors.Error: our own server does not answer.
        """
        now = asyncio.get_running_loop().time()
        for spec in self._specs:
            # Asked without nats-py's classes: they drop which domain a source's state is of.
            reply = await client.request(f"$JS.API.STREAM.INFO.{spec.name}", b"", timeout=2)
            silent = silent_domains(spec, json.loads(reply.data))
            if not silent:
                self._patience.pop(spec.name, None)
                continue
            if now < self._next_at.get(spec.name, 0.0):
                continue
            answering = [domain for domain in silent if await _answers(client, domain)]
            if not answering:
                continue
            log.warning("%s hears nothing from %s: asking again", spec.name, ", ".join(answering))
            await renew_sources(jetstream, spec, self._replicas)
            patience = self._patience.get(spec.name, PATIENCE)
            self._next_at[spec.name] = now + patience.total_seconds()
            self._patience[spec.name] = min(patience * 2, _PATIENCE_AT_MOST)


def silent_domains(spec: StreamSpec, info: Mapping[str, Any]) -> list[str]:
    """The domains from which a stream should hear and does not, from JetStream's own description of the stream."""
    heard = {
        source.get("external", {}).get("api")
        for source in info.get("sources") or ()
        if 0 <= source.get("active", -1) < QUIET.total_seconds() * 1e9
    }
    return [source.domain for source in spec.sources if api_of(source.domain) not in heard]


async def _answers(client: Client, domain: str) -> bool:
    try:
        await client.request(f"{api_of(domain)}.INFO", b"", timeout=_ASK_S)
    except (TimeoutError, nats.errors.Error):
        return False
    return True
