"""What is advised, used and overridden, from a real server."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from rich.console import Console

from windfall.cli import advice
from windfall.cli.events import publish
from windfall.cli.explain import explained, in_words
from windfall.cli.resources.versioned import single
from windfall.cli.server import declared
from windfall.contracts.events import AdviceGiven, Chosen, SiteAdvice, WindowJudged
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import Mistake
from windfall.servicekit.natsserver import NatsServer

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
GIVEN = AdviceGiven(
    id=uuid4(),
    at=NOON,
    federation="demo",
    round=7,
    codec=Chosen(advised="q2-ef", used="topk-ef", by="default"),
    fragments=Chosen(advised="1", used="1", by="default"),
    average_steps=Chosen(advised="50", used="30", by="operator"),
    sites=(
        SiteAdvice(
            site="site-a",
            takes_part=True,
            gain=0.9,
            values={
                "micro_batch": Chosen(advised="16", used="16", by="advice"),
                "precision": Chosen(advised="bf16", used="fp32", by="owner"),
            },
            because="micro-batch 16 gives 300 samples/s",
        ),
        SiteAdvice(site="site-b", takes_part=False, gain=-0.3, because="with site-b it trains 30.0% less"),
    ),
    because="site-b: q2-ef every 30 steps",
)


@pytest.fixture
async def url(nats_server: NatsServer) -> AsyncIterator[str]:
    await declared([replace(nats_server.plan, domain=HUB)])
    yield nats_server.url


async def test_the_newest_advice_is_shown_with_whose_word_each_value_is() -> None:
    console = Console(width=200, record=True, highlight=False)
    console.print(advice.table(GIVEN))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["all", "sites", "codec", "q2-ef", "topk-ef", "default"] in lines
    assert ["all", "sites", "local", "steps,", "average", "50", "30", "operator"] in lines
    assert ["site-a", "precision", "bf16", "fp32", "owner"] in lines
    assert ["site-b", "takes", "part", "–", "no", "advice"] in lines
    assert advice.reasons(GIVEN)[0] == "demo from round 7 on. site-b: q2-ef every 30 steps"
    assert json.loads(single("Advice", GIVEN.model_dump(mode="json"), "json"))["sites"][1]["takes_part"] is False


async def test_it_is_had_from_a_server(url: str) -> None:
    for federation in (None, "demo"):
        with pytest.raises(Mistake, match="nothing was advised yet"):
            await advice.given(url, federation)
    await publish(url, GIVEN)
    assert await advice.given(url) == await advice.given(url, "demo") == GIVEN


def test_a_site_is_explained_with_what_it_trains_with_or_why_it_is_left_out() -> None:
    def words(site: str) -> str:
        judged = WindowJudged(
            id=uuid4(), at=NOON, site=site, state="on", because="it is clean", would_change="off when it is not"
        )
        told = explained(site, [judged, GIVEN])
        assert told is not None
        return in_words(told)

    assert words("site-a").splitlines()[-1] == (
        "demo has it train with micro batch 16 (as advised), precision fp32 (by owner)."
    )
    assert words("site-b").splitlines()[-1] == ("demo leaves it out since round 7: with site-b it trains 30.0% less.")
    assert "demo" not in words("site-c")
