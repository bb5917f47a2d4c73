"""The layout of what is trained, kept, so that a coordinator that comes back answers before it has made a model."""

from typing import Final

from pydantic import BaseModel, ConfigDict

from windfall.lowcomm.spec import Layout
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal

_KEY: Final = "layout"


class KeptLayout(BaseModel):
    """What a task came to when its model was made."""

    model_config = ConfigDict(frozen=True)

    task: str
    task_settings: str
    layout: Layout


def kept_layout(journal: Journal, task: str, task_settings: str) -> Layout | None:
    """What was kept of this task under these settings; none when nothing was."""
    kept = journal.load(_KEY, KeptLayout)
    return None if kept is None or (kept.task, kept.task_settings) != (task, task_settings) else kept.layout


def keep_layout(journal: Journal, task: str, task_settings: str, layout: Layout) -> None:
    """On disk when this returns."""
    journal.commit(state={_KEY: KeptLayout(task=task, task_settings=task_settings, layout=layout)})


def hold_against(kept: Layout, found: Layout, task: str) -> None:
    """Compare what was kept with the layout of a model that was made since.

    Raises:
        Mistake: the code of the task has changed.
    """
    if kept != found:
        raise Mistake(
            f"the task {task!r} makes another model than the one that this federation trains",
            "Install the version of the task with which it began, or begin a new federation",
        )
