"""The composition root of federation-coordinator."""

# ruff: noqa: E402
import gc

# Whoever waits for a coordinator that comes back waits for its imports. They make a hundred thousand objects and no
# garbage: to look for some again and again, or once when they are done, is a seventh of the start.
gc.disable()

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Final, NoReturn

from windfall.contracts.subjects import StreamSpec, hub_streams
from windfall.contracts.tenancy import lending_to
from windfall.contracts.v1.checkpoints_pb2_grpc import add_CheckpointsServicer_to_server
from windfall.contracts.v1.link_probe_pb2_grpc import add_LinkProbeServicer_to_server
from windfall.federation_coordinator.allocator import share_one_arena
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.arithmetic import load_torch
from windfall.federation_coordinator.beginning import too_late
from windfall.federation_coordinator.checkpoint_service import CheckpointService
from windfall.federation_coordinator.crashpoints import POINTS
from windfall.federation_coordinator.evaluation import held_out_loss
from windfall.federation_coordinator.federation import Federation
from windfall.federation_coordinator.kept_layout import hold_against, keep_layout, kept_layout
from windfall.federation_coordinator.planning import Planning
from windfall.federation_coordinator.recovery import recover
from windfall.federation_coordinator.row_leases import RowLeases, shared
from windfall.federation_coordinator.settings import CoordinatorSettings
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import flatten, layout_of_model
from windfall.lowcomm.spec import Layout
from windfall.servicekit.errors import Mistake
from windfall.servicekit.lending import lend
from windfall.servicekit.link_probe import LinkProbeServicer
from windfall.servicekit.rpc import serve
from windfall.servicekit.service import Stand, run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from windfall.tasks.task import Task

gc.freeze()
gc.enable()

_ANSWERS_FIRST_S: Final = 1.0


@asynccontextmanager
async def attend(settings: CoordinatorSettings, stand: Stand) -> AsyncIterator[None]:
    task = cache(partial(_task, settings))
    layout, first = kept_layout(stand.journal, settings.task, settings.task_settings), None
    known = layout is not None
    # Beside the event loop, on which a lease is renewed: both may take long with a large model.
    if layout is None:
        first = await asyncio.to_thread(_made, task, settings.seed)
        layout = layout_of_model(first)
    journaled = stand.journal.load("federation", Federation)
    _check_settings(settings, journaled)
    terms = None if journaled is None else journaled.terms
    policy, fragments = settings.policy_of(terms), settings.wanted.fragments
    if fragments is None:
        fragments = 1 if journaled is None else journaled.fragments
    try:
        store = ModelStore(settings.state_dir / "models", layout, settings.rule_of(terms), stand.term, fragments)
    except ValueError as error:
        raise Mistake(f"the model cannot be cut so: {error}", "Set WINDFALL_FRAGMENTS to less") from error
    recovered = await asyncio.to_thread(
        recover,
        store,
        stand.journal,
        partial(_first, task, settings.seed, first, layout),
        stand.clock.now(),
        policy,
    )
    # This frame lives as long as the service, and the model lies on disk.
    del first
    if not known:
        keep_layout(stand.journal, settings.task, settings.task_settings, layout)
    evaluate = None
    if settings.held_out_dir is not None:
        evaluate = held_out_loss(task, layout, store, settings.held_out_dir)
    planning = None
    if settings.goal is not None:
        planning = Planning(stand, settings.goal, settings.sites, settings.replan, asyncio.to_thread)
    leases = RowLeases()
    if settings.corpus == "shared":
        told = settings.corpus_dir, settings.corpus_rows, settings.seed, settings.corpus_block
        leases = await asyncio.to_thread(shared, stand.journal, await asyncio.to_thread(task), *told)
    coordinator = Coordinator(
        stand,
        settings.federation,
        Model(settings.task, settings.task_settings, layout),
        policy,
        store,
        recovered.digest,
        settings.silence,
        asyncio.to_thread,
        evaluate,
        settings.follows_links,
        planning,
        settings.limits,
        leases,
        settings.overlap,
        settings.wanted,
        settings.advice_patience,
        settings.trust,
        recovered.again,
    )
    coordinator.attend()
    try:
        server = await serve(
            settings.listen,
            [
                partial(
                    register, TrainingService(coordinator, settings.sites, law=settings.law, overlap=settings.overlap)
                ),
                partial(add_CheckpointsServicer_to_server, CheckpointService(coordinator, settings.sites)),
                partial(add_LinkProbeServicer_to_server, LinkProbeServicer()),
            ],
            settings.tls,
            insecure=settings.insecure,
        )
        try:
            if known:
                stand.spawn(_compare(task, settings.seed, layout, stand.risen), "layout")
            for borrower in settings.loans:
                stand.spawn(_lend(settings, stand, borrower), lending_to(borrower))
            yield
        finally:
            await server.stop()
    finally:
        coordinator.rest()


def _task(settings: CoordinatorSettings) -> "Task":
    """What is trained. It comes with torch, so in a thread and not before it is needed."""
    load_torch()
    from windfall.tasks.registry import load_task

    try:
        return load_task(settings.task, settings.task_settings)
    except ValueError as error:
        raise Mistake(f"the task is wrong: {error}", "Mend WINDFALL_TASK or WINDFALL_TASK_SETTINGS") from error


def _made(task: "Callable[[], Task]", seed: int) -> "nn.Module":
    return task().model(seed)


def _first(task: "Callable[[], Task]", seed: int, made: "nn.Module | None", layout: Layout) -> "Tensor":
    """The model of round 0, flat."""
    return flatten((_made(task, seed) if made is None else made).state_dict(), layout)


async def _lend(settings: CoordinatorSettings, stand: Stand, borrower: str) -> None:
    """Once the stream is there that it is taken from."""
    await stand.risen.wait()
    access = settings.nats_access.of(stand.service)
    await lend(settings.nats_url, access, borrower, settings.loans[borrower], stand.clock)


async def _compare(task: "Callable[[], Task]", seed: int, layout: Layout, standing: asyncio.Event) -> None:
    """Whether the task still makes what is trained, once this coordinator stands. With the task comes torch, for the
    first contribution that arrives."""

    def compare() -> None:
        hold_against(layout, layout_of_model(_made(task, seed)), task().name)

    await standing.wait()
    # Whoever waits for an answer gets it first; a contribution that arrives within this moment loads torch itself.
    await asyncio.sleep(_ANSWERS_FIRST_S)
    await asyncio.to_thread(compare)


def _check_settings(settings: CoordinatorSettings, journaled: Federation | None) -> None:
    if journaled is not None and journaled.name != settings.federation:
        raise Mistake(
            f"{settings.state_dir} holds the federation {journaled.name!r}, not {settings.federation!r}",
            "Set WINDFALL_FEDERATION to what it was, or WINDFALL_STATE_DIR to another folder",
        )
    if journaled is not None and settings.fragments != "auto" and journaled.fragments != settings.fragments:
        raise Mistake(
            f"the federation {journaled.name!r} synchronises {journaled.fragments} fragments in turn, not"
            f" {settings.fragments}: that is set once",
            f"Set WINDFALL_FRAGMENTS={journaled.fragments}",
        )

    if journaled is not None and (codec := too_late(journaled, settings.wanted)):
        raise Mistake(
            f"the federation {journaled.name!r} has trained with the codec {codec}: one is chosen before the first"
            " round or not at all",
            f"Set WINDFALL_CODEC={codec}",
        )


def streams(settings: CoordinatorSettings) -> Sequence[StreamSpec]:
    return hub_streams(settings.sites)


def main() -> NoReturn:
    share_one_arena()
    name = "federation-coordinator"
    run(name, CoordinatorSettings, lambda settings: settings.federation, streams, attend, POINTS, load_torch)


if __name__ == "__main__":
    main()
