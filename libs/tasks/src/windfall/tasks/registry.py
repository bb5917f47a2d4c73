"""Opens the door by name: the tasks that ship, and those of other installed packages.

A package brings a task of its own through an entry point in the group ``windfall.tasks``, whose object takes the
settings as a mapping and returns a :class:`windfall.tasks.task.Task`::

    [project.entry-points."windfall.tasks"]
    my-task = "my_package.task:my_task"
"""

import json
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from windfall.tasks.task import Task

Factory = Callable[[Mapping[str, object]], Task]

GROUP: Final = "windfall.tasks"
TASKS: Final[Mapping[str, str]] = {
    "gcn": "windfall.tasks.gcn:gcn",
    "gpt-neox": "windfall.tasks.gpt_neox:gpt_neox",
    "ppo": "windfall.tasks.ppo:ppo",
    "resnet": "windfall.tasks.resnet:resnet",
    "wav2vec2": "windfall.tasks.wav2vec2:wav2vec2",
}
"""The tasks that ship, imported when they are asked for: who trains on text needs no environments. A factory raises
``ValueError`` for unknown or invalid settings."""


def load_task(name: str, settings_json: str = "{}") -> Task:
    """Build a task from its name and its settings, a JSON object.

    Raises:
        ValueError: one line, for a name that is not known, a task that cannot be imported, or settings that are not a
            JSON object or that the task refuses.
    """
    factory = _factory(name)
    try:
        settings = json.loads(settings_json)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"task {name!r}: settings are not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"task {name!r}: settings are a JSON object, not {settings_json!r}")
    try:
        return factory(settings)
    except ValueError as error:
        raise ValueError(f"task {name!r}: {' '.join(str(error).split())}") from error


def _factory(name: str) -> Factory:
    own = {task: EntryPoint(task, where, GROUP) for task, where in TASKS.items()}
    installed = {point.name: point for point in entry_points(group=GROUP)} | own
    if name not in installed:
        raise ValueError(f"unknown task {name!r}; known are {', '.join(sorted(installed))}")
    try:
        factory: Factory = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"task {name!r} cannot be imported from {installed[name].value!r}: {error}") from error
    return factory
