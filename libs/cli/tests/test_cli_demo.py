"""The demo's story ends whatever runs beside it, also what overhears that it is to end."""

import asyncio
from contextlib import suppress

from windfall.cli.demo import _guarded


async def test_a_companion_that_loses_a_cancellation_is_asked_again() -> None:
    asked = 0

    async def deaf_at_first() -> None:
        nonlocal asked
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            asked += 1

    async def story() -> None:
        await asyncio.sleep(0)

    companion = asyncio.ensure_future(deaf_at_first())
    await _guarded(story(), companion)
    assert companion.done()
    assert asked == 2
