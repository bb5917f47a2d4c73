"""Gymnasium's environments side by side, as numbers that a policy can read.

They run in this process: a vectorised implementation where the environment has one, else one after another
(``SyncVectorEnv``). Worker processes would be spoken to with pickles.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict, Discrete, Space, Tuple
from gymnasium.vector import AutoresetMode, VectorEnv

from windfall.tasks.task import DataError

ARGUMENTS_FILE: Final = "environment.json"

_RESERVED: Final = frozenset({"id", "num_envs", "vectorization_mode", "vector_kwargs", "wrappers"})
_REFUSALS: Final = (gymnasium.error.Error, ImportError, TypeError, ValueError, AssertionError)

Arguments = Mapping[str, Any]
"""Keyword arguments of an environment's constructor."""


@dataclass(frozen=True)
class Shape:
    """What a policy sees and may do: numbers per observation, and actions to choose from."""

    features: int
    actions: int


def find_spec(environment: str) -> EnvSpec:
    """The registered environment of this id.

    Raises:
        ValueError: there is none.
    """
    try:
        return gymnasium.spec(environment)
    except gymnasium.error.Error as error:
        raise ValueError(f"unknown environment {environment!r}: {' '.join(str(error).split())}") from error


def open_environments(environment: str, count: int, arguments: Arguments) -> VectorEnv[Any, Any, Any]:
    """So many of them side by side, each beginning a new episode on the step after its last one ended.

    Raises:
        ValueError: they cannot be made, or a rollout cannot use them.
    """
    if strange := sorted(_RESERVED & set(arguments)):
        raise ValueError(f"{environment}: argument {strange[0]!r} is set by the task")
    spec = find_spec(environment)
    try:
        opened = gymnasium.make_vec(
            environment,
            num_envs=count,
            vectorization_mode="vector_entry_point" if spec.vector_entry_point else "sync",
            **arguments,
        )
    except _REFUSALS as error:
        raise ValueError(f"{environment} cannot be made: {' '.join(str(error).split())}") from error
    if opened.metadata.get("autoreset_mode") is not AutoresetMode.NEXT_STEP:
        raise ValueError(f"{environment} does not begin a new episode on the step after the last one ended")
    return opened


def shape_of(environments: VectorEnv[Any, Any, Any]) -> Shape:
    """
    Raises:
        ValueError: the actions are not discrete, or observations are not made of boxes and discrete values.
    """
    actions = environments.single_action_space
    if not isinstance(actions, Discrete):
        raise ValueError(f"actions are {actions}; only discrete ones are trained")
    return Shape(_features(environments.single_observation_space), int(actions.n))


def _features(space: Space[Any]) -> int:
    match space:
        case Box():
            return int(np.prod(space.shape))
        case Discrete():
            return int(space.n)
        case Tuple():
            return sum(map(_features, space.spaces))
        case Dict():
            return sum(map(_features, space.spaces.values()))
        case _:
            raise ValueError(f"observations have a part {space}; only Box and Discrete, in Tuple and Dict, are known")


def flatten(space: Space[Any], observations: Any, count: int) -> npt.NDArray[np.float32]:
    """Batched observations of one space, end to end, a discrete one as one-hot: fp32 ``[count, features]``."""
    match space:
        case Discrete():
            one_hot: npt.NDArray[np.float32] = np.eye(int(space.n), dtype=np.float32)[observations - space.start]
            return one_hot
        case Tuple():
            parts = [flatten(part, seen, count) for part, seen in zip(space.spaces, observations, strict=True)]
            return np.concatenate(parts, axis=1)
        case Dict():
            parts = [flatten(part, observations[name], count) for name, part in space.spaces.items()]
            return np.concatenate(parts, axis=1)
        case _:
            # A copy: environments may write their next observation into the same memory.
            return np.array(observations, dtype=np.float32).reshape(count, -1)


def read_arguments(folder: Path) -> dict[str, Any]:
    """Keyword arguments for a site's environments from ``environment.json``, a JSON object; none without that file.

    Raises:
        DataError: the file cannot be read or holds something else.
    """
    path = folder / ARGUMENTS_FILE
    if not path.exists():
        return {}
    try:
        arguments = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}. Write a JSON object or remove it") from error
    if not isinstance(arguments, dict):
        raise DataError(f"{str(path)!r} is no JSON object. Write keyword arguments of the environment")
    return arguments


def first_action(environments: VectorEnv[Any, Any, Any]) -> int:
    """The number that the environment gives to action 0 of a policy."""
    actions = environments.single_action_space
    assert isinstance(actions, Discrete)
    return int(actions.start)
