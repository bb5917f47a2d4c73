"""What the site's trainer is told to train, and the node that trains it: whose steps are worth measuring. Pure."""

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import NodeReady, TaskLearnt
from windfall.profiler.profile import Workload


class Learnt(BaseModel):
    """What is remembered from window to window."""

    model_config = ConfigDict(frozen=True)

    workload: Workload | None = None
    """None while no trainer of this site was ever told."""
    profiled: NodeReady | None = None
    """The node that was profiled last, while its window is open."""


def learnt(before: Learnt, event: TaskLearnt) -> Learnt:
    """A trainer says what it trains."""
    return before.model_copy(update={"workload": Workload(task=event.task, settings=event.task_settings)})


def profiled(before: Learnt, ready: NodeReady) -> Learnt:
    """A node is profiled."""
    return before.model_copy(update={"profiled": ready})


def closed(before: Learnt, window_id: object) -> Learnt:
    """A window is over."""
    known = before.profiled
    return before.model_copy(update={"profiled": None}) if known and known.window_id == window_id else before


def again(known: Learnt, event: TaskLearnt) -> NodeReady | None:
    """The node that was profiled before it was known what it trains; none where there is none."""
    ready = known.profiled
    return ready if ready is not None and ready.lease_token == event.lease_token else None
