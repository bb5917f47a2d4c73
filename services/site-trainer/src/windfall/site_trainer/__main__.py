"""The composition root of site-trainer."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

from windfall.contracts.envelope import TRACEPARENT
from windfall.contracts.subjects import StreamSpec, site_streams
from windfall.servicekit.errors import Mistake
from windfall.servicekit.rpc import connect
from windfall.servicekit.service import Stand, run
from windfall.servicekit.telemetry import span
from windfall.site_trainer.app import Trainer
from windfall.site_trainer.crashpoints import POINTS
from windfall.site_trainer.engines import Engines
from windfall.site_trainer.guarded import GuardedLink
from windfall.site_trainer.policy_file import offer_of, read_policy
from windfall.site_trainer.settings import TrainerSettings
from windfall.site_trainer.terms import Terms
from windfall.site_trainer.tuning import Owner

if TYPE_CHECKING:
    from windfall.servicekit.signing import Signer


@asynccontextmanager
async def attend(settings: TrainerSettings, stand: Stand) -> AsyncIterator[None]:
    if not settings.data_dir.is_dir():
        raise Mistake(f"there is no data folder {settings.data_dir}", "Set WINDFALL_DATA_DIR to the site's data")

    engines = Engines(settings)
    policy = read_policy(settings.site_policy)
    terms = Terms(
        settings.site,
        settings.federation,
        settings.window_id,
        settings.lease_token,
        settings.micro_batch,
        settings.drain_time,
        settings.checkpoint_every,
        settings.state_dir / "checkpoint.safetensors",
        settings.window_opens_at,
        Owner(settings.accumulation, settings.precision),
    )
    link = GuardedLink(
        connect(settings.coordinator, settings.tls),
        offer_of(settings),
        settings.site,
        stand,
        policy,
        terms.drain_time,
        _signer(settings),
    )
    trainer = Trainer(stand, terms, link, engines.make, asyncio.to_thread, engines.warm)
    link.drain = trainer.stop
    # The window's trace goes on here: the provisioner hands it over in the environment, as one process to another.
    with span(
        "train", parent={TRACEPARENT: os.environ.get("TRACEPARENT", "")}, attributes={"windfall.site": terms.site}
    ):
        trainer.attend()
        stand.spawn(_say_ready(settings, trainer.loaded), "readiness")
        try:
            yield
        finally:
            trainer.stop("asked to end")
            if stand.mistake is None:
                await trainer.finished.wait()
            await link.close()
            await asyncio.to_thread(engines.close)


def _signer(settings: TrainerSettings) -> "Signer | None":
    if settings.tls is None:
        return None
    # Only now: without TLS nobody waits for it.
    from windfall.servicekit.signing import signer_of

    return signer_of(settings.tls, settings.site)


async def _say_ready(settings: TrainerSettings, loaded: asyncio.Event) -> None:
    await loaded.wait()
    if settings.ready_file is not None:
        settings.ready_file.touch()
    if settings.ready_fd is not None:
        os.close(settings.ready_fd)


def streams(settings: TrainerSettings) -> Sequence[StreamSpec]:
    return site_streams(settings.site)


def main() -> NoReturn:
    run("site-trainer", TrainerSettings, lambda settings: settings.site, streams, attend, POINTS)


if __name__ == "__main__":
    main()
