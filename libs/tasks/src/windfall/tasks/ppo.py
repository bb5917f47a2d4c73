"""PPO with a clipped surrogate objective (arXiv 1707.06347) and generalised advantage estimation (arXiv 1506.02438).

Actor and critic are two multilayer perceptrons that share nothing, tanh in between, orthogonally initialised.

Nothing is read from a site's folder but an optional ``environment.json``, a JSON object with keyword arguments for that
site's environments. What differs from site to site otherwise is the seed of its loader. Samples are steps of an
environment, and so are tokens; a step is handed out ``epochs`` times and counts each time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from typing import Any, Final, Self

import torch
from gymnasium.vector import VectorEnv
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from windfall.tasks.environments import Shape, find_spec, open_environments, read_arguments, shape_of
from windfall.tasks.order import word
from windfall.tasks.presets import from_preset
from windfall.tasks.rates import RateLine, parse_rate
from windfall.tasks.rollouts import Horizon, RolloutLoader, greedy_returns
from windfall.tasks.task import Batch, DataError, Evaluation

NAME: Final = "ppo"

PRESETS: Final[dict[str, dict[str, object]]] = {
    "cartpole": {
        "environment": "CartPole-v1",
        "rollout_samples": 4096,
        "epochs": 10,
        "learning_rate": 1e-3,
    },
    "acrobot": {
        "environment": "Acrobot-v1",
        "rollout_samples": 4096,
        "epochs": 10,
        "learning_rate": 1e-3,
    },
    "large": {
        "environment": "Acrobot-v1",
        "width": 256,
        "layers": 3,
        "environments": 16,
        "rollout_samples": 8192,
        "epochs": 10,
        "learning_rate": 3e-4,
    },
}
"""``cartpole`` and ``acrobot`` have the networks of the paper's continuous control (two layers of 64), ``large`` has
three of 256."""


class PpoSettings(BaseModel):
    """Everything that decides the environment, the model, its training and its evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    environment: str = Field(pattern=r"^[\w./-]+$")
    """Gymnasium's id of an environment with discrete actions. No ``module:id``: a setting does not import code. An
    environment of another package comes with a task of one's own, which registers it and then calls ``ppo``."""
    environments: int = Field(default=8, ge=1, le=4096)
    """How many run side by side at a site."""
    rollout_samples: int = Field(ge=2, le=1 << 24)
    """Steps of one rollout, over all environments."""
    epochs: int = Field(default=10, ge=1, le=1000)
    """How often a rollout is trained on."""
    width: int = Field(default=64, ge=1, le=8192)
    """Units of a hidden layer."""
    layers: int = Field(default=2, ge=1, le=64)
    """Hidden layers of the actor, and of the critic."""
    discount: float = Field(default=0.99, ge=0, le=1)
    """γ."""
    trace: float = Field(default=0.95, ge=0, le=1)
    """λ of generalised advantage estimation."""
    clip: float = Field(default=0.2, gt=0, le=1)
    """ε: how far a probability ratio may leave 1 and still pay."""
    value_weight: float = Field(default=0.5, ge=0)
    """Of the critic's squared error in the loss."""
    entropy_weight: float = Field(default=0.0, ge=0)
    """Of the policy's entropy, which the loss rewards."""
    learning_rate: float = Field(gt=0, le=1)
    """At the highest point of the schedule."""
    rate: RateLine = "constant"
    """The learning-rate schedule, over the federation's samples."""
    gradient_norm: float = Field(default=0.5, gt=0)
    """A step's gradient is scaled down to this norm when it is longer."""
    evaluation_episodes: int = Field(default=100, ge=1, le=10_000)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.rollout_samples < self.environments:
            raise ValueError(
                f"rollout_samples {self.rollout_samples} is less than a step of {self.environments} environments"
            )
        find_spec(self.environment)
        return self


class ActorCritic(nn.Module):
    """Observations ``[batch, features]`` to the logits of actions ``[batch, actions]`` and values ``[batch]``."""

    def __init__(self, shape: Shape, width: int, layers: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        # A policy that prefers nothing at first, by a small last layer.
        self.actor = _perceptron(shape.features, shape.actions, width, layers, 0.01, generator)
        self.critic = _perceptron(shape.features, 1, width, layers, 1.0, generator)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        return self.actor(observations), self.critic(observations)[:, 0]


def _perceptron(
    inputs: int, outputs: int, width: int, layers: int, last_gain: float, generator: torch.Generator
) -> nn.Sequential:
    widths = [inputs, *[width] * layers, outputs]
    stack: list[nn.Module] = []
    for depth, (before, after) in enumerate(pairwise(widths)):
        # Empty: torch's own initialisation would move the global generator.
        linear = nn.Linear(before, after, device="meta").to_empty(device="cpu")
        nn.init.orthogonal_(linear.weight, last_gain if depth == layers else sqrt(2), generator)
        nn.init.zeros_(linear.bias)
        stack += [linear] if depth == layers else [linear, nn.Tanh()]
    return nn.Sequential(*stack)


@dataclass(frozen=True)
class PpoTask:
    """An actor and a critic that learn from their own rollouts."""

    settings: PpoSettings
    shape: Shape
    name: str = NAME

    @property
    def gradient_norm(self) -> float:
        return self.settings.gradient_norm

    def model(self, seed: int) -> nn.Module:
        return ActorCritic(self.shape, self.settings.width, self.settings.layers, seed)

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> RolloutLoader:
        settings = self.settings
        horizon = Horizon(
            samples=settings.rollout_samples,
            epochs=settings.epochs,
            discount=settings.discount,
            trace=settings.trace,
        )
        return RolloutLoader(self._open(folder, settings.environments), horizon, seed, cursor)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Equation 9 of the paper with its sign turned: −L^CLIP + c₁·(V − R)² − c₂·H."""
        action, spoken, advantage, foreseen = batch.targets.unbind(dim=1)
        logits, value = model(batch.inputs)
        log_probabilities = logits.float().log_softmax(dim=-1)
        ratio = (log_probabilities.gather(1, action.long()[:, None])[:, 0] - spoken).exp()
        clipped = ratio.clamp(1 - self.settings.clip, 1 + self.settings.clip)
        surrogate = torch.minimum(ratio * advantage, clipped * advantage)
        entropy = -(log_probabilities.exp() * log_probabilities).sum(dim=-1)
        squared = (value.float() - foreseen).square()
        weighed = self.settings.value_weight * squared - self.settings.entropy_weight * entropy
        loss: Tensor = (weighed - surrogate).mean()
        return loss

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """Adam, as in the paper; ε = 1e-5, as in its reference implementation."""
        return torch.optim.Adam(model.parameters(), lr=self.settings.learning_rate, eps=1e-5, fused=True)

    def rate(self, tokens: int) -> float:
        return parse_rate(self.settings.rate)(tokens)

    def evaluate(self, model: nn.Module, folder: Path) -> Evaluation:
        """Mean return over greedy episodes, always the same ones.

        The loss is how far the mean return stays below the environment's reward threshold, as a share of it: 0 is
        solved. For CartPole-v1 that is 1 − mean return / 475. Without a threshold it is the mean return, negated.
        """
        episodes = self.settings.evaluation_episodes
        environments = self._open(folder, episodes)
        was_training = model.training
        model.eval()
        mean = float(greedy_returns(environments, model, seed=word(0, "evaluation")).mean())
        model.train(was_training)
        environments.close()
        threshold = find_spec(self.settings.environment).reward_threshold
        loss = (threshold - mean) / abs(threshold) if threshold else -mean
        return Evaluation(loss=loss, metric="mean return", value=mean, samples=episodes)

    def _open(self, folder: Path, count: int) -> VectorEnv[Any, Any, Any]:
        arguments = read_arguments(folder)
        try:
            opened = open_environments(self.settings.environment, count, arguments)
            shape = shape_of(opened)
        except ValueError as error:
            raise DataError(f"{error}. Correct environment.json in {str(folder)!r}") from error
        if shape != self.shape:
            raise DataError(f"environment.json in {str(folder)!r} makes {shape} of what is {self.shape} elsewhere")
        return opened


def ppo(settings: Mapping[str, object]) -> PpoTask:
    """The task from its settings: a ``preset`` (``cartpole`` when none is named), and whatever differs from it.

    Raises:
        ValueError: unknown preset, setting or environment, a value out of range, or an environment that cannot be made
            or whose actions are not discrete.
    """
    checked = from_preset(PpoSettings, PRESETS, "cartpole", settings)
    one = open_environments(checked.environment, 1, {})
    shape = shape_of(one)
    one.close()
    return PpoTask(checked, shape)
