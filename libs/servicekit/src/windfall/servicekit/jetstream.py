"""Streams and consumers on a server, brought in line with what the contracts say."""

from contextlib import suppress
from datetime import timedelta
from typing import Final

import nats.js.errors
from nats.js import JetStreamContext, api

from windfall.contracts.subjects import Retention, Source, StreamSpec
from windfall.servicekit.bus import DELIVERIES, Hearing

_NAME_TAKEN = 10058
"""JetStream's error code for a stream that exists with another configuration."""
_FORGOTTEN_AFTER: Final = timedelta(minutes=1)
"""A process that has asked for nothing for so long is gone: the server drops the consumer that was its alone."""


async def declare_stream(jetstream: JetStreamContext, spec: StreamSpec, replicas: int = 1) -> bool:
    """Make a stream as its specification says, or bring an existing one in line; true when it was missing.

    Args:
        replicas: servers of the domain that keep a copy.
    """
    try:
        info = await jetstream.stream_info(spec.name)
    except nats.js.errors.NotFoundError:
        try:
            await jetstream.add_stream(configuration(spec, replicas))
        except nats.js.errors.BadRequestError as error:
            if error.err_code != _NAME_TAKEN:
                raise
            # Another service of the domain was faster with the same declaration.
        return True
    known = {_way(source) for source in info.config.sources or []}
    wanted = {_way(_source(source)) for source in spec.sources}
    same = set(info.config.subjects or []) == set(spec.subjects) and known == wanted
    if not same or not info.config.allow_atomic or (info.config.num_replicas or 1) != replicas:
        await jetstream.update_stream(configuration(spec, replicas))
    return False


async def declare_consumer(jetstream: JetStreamContext, name: str, hearing: Hearing, ack_wait: timedelta) -> None:
    """Make or update a consumer of one stream: a service's durable one, or a process's own."""
    config = api.ConsumerConfig(
        name=name if hearing.newest else None,
        durable_name=None if hearing.newest else name,
        deliver_policy=api.DeliverPolicy.LAST_PER_SUBJECT if hearing.newest else api.DeliverPolicy.ALL,
        inactive_threshold=_FORGOTTEN_AFTER.total_seconds() if hearing.newest else None,
        filter_subjects=list(hearing.subjects),
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ack_wait.total_seconds(),
        max_ack_pending=1,
        # We count and bury ourselves, so that nothing is dropped in silence; the server's bound is a last resort.
        max_deliver=DELIVERIES * 4,
    )
    await jetstream.add_consumer(hearing.stream, config)


async def renew_sources(jetstream: JetStreamContext, spec: StreamSpec, replicas: int = 1) -> None:
    """Take a stream's sources out and put them back, so that the server asks them at once."""
    bare = configuration(spec, replicas)
    bare.sources = None
    try:
        await jetstream.update_stream(bare)
    finally:
        with suppress(nats.js.errors.NotFoundError):
            await jetstream.update_stream(configuration(spec, replicas))


def configuration(spec: StreamSpec, replicas: int = 1) -> api.StreamConfig:
    """A specification in JetStream's words."""
    return api.StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=api.RetentionPolicy.WORK_QUEUE if spec.retention is Retention.WORK_QUEUE else None,
        max_bytes=spec.max_bytes,
        max_age=spec.max_age.total_seconds(),
        duplicate_window=spec.duplicate_window.total_seconds(),
        discard=api.DiscardPolicy.NEW if spec.discard_new else api.DiscardPolicy.OLD,
        storage=api.StorageType.FILE,
        num_replicas=replicas,
        # Servers before 2.12 know nothing of it, and say so by leaving it out.
        allow_atomic=True,
        sources=[_source(source) for source in spec.sources] or None,
    )


def api_of(domain: str) -> str:
    """Subject prefix of a domain's JetStream API."""
    return f"$JS.{domain}.API"


def _way(source: api.StreamSource) -> tuple[str, str, str]:
    """Which stream of which domain, and how it comes."""
    external = source.external or api.ExternalStream(api="")
    return source.name, external.api, external.deliver or ""


def _source(source: Source) -> api.StreamSource:
    return api.StreamSource(
        name=source.stream,
        filter_subject=source.filter_subject,
        external=api.ExternalStream(api=api_of(source.domain), deliver=source.deliver),
    )
