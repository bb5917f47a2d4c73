"""Orders that a person gives: what is stored for whom, and that nobody is asked where nobody is."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.commanded import ran
from windfall.cli import orders
from windfall.cli.server import connection, declared, kept
from windfall.contracts.commands import (
    CordonSite,
    PauseFederation,
    ReadmitSite,
    ReleaseNode,
    ResumeFederation,
    RollBack,
    StopFederation,
    UncordonSite,
)
from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import COMMANDS_STREAM, HUB, ORDERS_STREAM, PREFIX, subject_for
from windfall.servicekit.bus import Hearing
from windfall.servicekit.errors import Mistake
from windfall.servicekit.jetstream import declare_consumer
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port


@pytest.fixture
async def hub(nats_server: NatsServer) -> AsyncIterator[str]:
    """A hub that knows one site."""
    here = replace(nats_server.plan, domain=HUB)
    site = NatsServer(ServerPlan("site-a", free_port(), here.store.parent / "a"), here.store.parent)
    await site.start()
    await declared([here, site.plan])
    yield nats_server.url
    await site.stop()


async def ordered(url: str) -> list[Message]:
    async with connection(url) as client:
        return [unseal(one.letter) async for one in kept(client, ORDERS_STREAM, [f"{PREFIX}.command.>"])]


@pytest.mark.parametrize(
    ("arguments", "kinds"),
    [
        (("drain", "site-a", "--yes", "--reason", "new disks"), [CordonSite, ReleaseNode]),
        (("cordon", "site-a"), [CordonSite]),
        (("uncordon", "site-a"), [UncordonSite]),
    ],
)
async def test_a_site_is_ordered(hub: str, arguments: tuple[str, ...], kinds: list[type[Message]]) -> None:
    code, out, err = await ran(*arguments, url=hub)
    assert (code, err) == (0, "")
    assert out.startswith("site-a ")
    given = await ordered(hub)
    assert [type(order) for order in given] == kinds
    assert {getattr(order, "reason", "") for order in given} == {"new disks" if "--reason" in arguments else "asked"}


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("stop", "demo", "--yes"), StopFederation),
        (("pause", "demo"), PauseFederation),
        (("resume", "demo"), ResumeFederation),
        (("rollback", "demo", "--yes"), RollBack),
        (("readmit", "demo", "site-a"), ReadmitSite),
    ],
)
async def test_a_federation_is_ordered(hub: str, arguments: tuple[str, ...], kind: type[Message]) -> None:
    code, _, err = await ran(*arguments, url=hub)
    assert (code, err) == (0, "")
    async with connection(hub) as client:
        raw = await client.jetstream().get_last_msg(COMMANDS_STREAM, subject_for(kind, "demo"))
    given = unseal(Letter(raw.subject or "", dict(raw.headers or {}), raw.data or b""))
    assert (type(given), given.whom) == (kind, "demo")


async def test_a_federation_that_no_coordinator_here_serves(hub: str) -> None:
    hears = Hearing(COMMANDS_STREAM, (subject_for(StopFederation, "demo"),))
    async with connection(hub) as client:
        await declare_consumer(client.jetstream(), "federation-coordinator", hears, timedelta(seconds=30))
    with pytest.raises(Mistake, match=r"no coordinator here takes orders for 'dmeo'\. Did you mean demo\?"):
        await orders.give(hub, orders.pausing("dmeo", "asked"), federation="dmeo")
    await orders.give(hub, orders.pausing("demo", "asked"), federation="demo")


async def test_nothing_is_done_where_nobody_can_be_asked(hub: str) -> None:
    code, out, err = await ran("drain", "site-a", url=hub)
    assert (code, out) == (2, "")
    assert "Nobody is there to be asked: say --yes" in err
    assert await ordered(hub) == []


async def test_a_site_that_is_nearly_known(hub: str) -> None:
    assert await ran("cordon", "site-aa", url=hub) == (
        2,
        "",
        "windfall: unknown site 'site-aa'. Did you mean site-a?\n",
    )
