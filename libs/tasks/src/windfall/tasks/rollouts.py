"""Rollouts: what a policy lives through, and what generalised advantage estimation makes of it.

A rollout is a pure function of a seed, its number and the model: it begins with new episodes, whose seeds and actions
derive from the two numbers. A state that an episode reaches only after a rollout has ended is therefore never trained
on; let ``samples`` be at least the number of environments times the length of the longest episode.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.vector import VectorEnv
from torch import Tensor, nn

from windfall.tasks.environments import first_action, flatten
from windfall.tasks.order import Order, word
from windfall.tasks.task import Batch

LONGEST_EPISODE: Final = 10_000
"""Steps after which an evaluation ends an episode of an environment that sets no limit itself."""


def advantages(
    rewards: Tensor, values: Tensor, terminated: Tensor, ended: Tensor, discount: float, trace: float
) -> Tensor:
    """Generalised advantage estimation (arXiv 1506.02438, equation 16) over several environments.

    Âₜ = δₜ + γλ·Âₜ₊₁ with δₜ = rₜ + γ·V(sₜ₊₁) − V(sₜ). Nothing follows a state in which an episode terminated; one that
    was cut off is worth what the critic says of its last state.

    Args:
        rewards: fp32 ``[steps, environments]``, like ``terminated`` and ``ended`` (bool: terminated or cut off).
        values: fp32 ``[steps + 1, environments]``; after an end, of the state in which the episode ended.

    Returns:
        fp32 ``[steps, environments]``.
    """
    gained = rewards + discount * values[1:] * ~terminated - values[:-1]
    carried = discount * trace * ~ended
    estimates = torch.empty_like(rewards)
    later = torch.zeros_like(rewards[0])
    for step in range(len(rewards) - 1, -1, -1):
        later = gained[step] + carried[step] * later
        estimates[step] = later
    return estimates


@dataclass(frozen=True, eq=False)
class Rollout:
    """``samples`` steps in the order of time: fp32 ``[samples, features]``, and ``[samples, 4]`` with the columns of
    :class:`RolloutLoader`."""

    observations: Tensor
    targets: Tensor


@dataclass(frozen=True)
class Horizon:
    """How a rollout is lived and estimated."""

    samples: int
    epochs: int
    """How often each sample of a rollout is handed out."""
    discount: float
    trace: float
    """λ of generalised advantage estimation."""


@torch.no_grad()
def collect(environments: VectorEnv[Any, Any, Any], model: nn.Module, horizon: Horizon, seed: int) -> Rollout:
    """Live through new episodes until there are enough samples, acting as the model's policy says.

    Advantages are normalised over the rollout to mean 0 and variance 1, so that a sample does not depend on the batch
    in which it is handed out.
    """
    count, space = environments.num_envs, environments.single_observation_space
    generator = torch.Generator().manual_seed(word(seed, "actions"))
    raw, _ = environments.reset(seed=word(seed, "episodes"))
    seen, acted, spoken, values, rewards, terminations, ends, lived = ([] for _ in range(8))
    over = torch.zeros(count, dtype=torch.bool)
    collected = 0
    while collected < horizon.samples:
        observation = torch.from_numpy(flatten(space, raw, count))
        logits, value = ask(model, observation)
        # Gumbel-max: never raises, so that a model that lost its numbers shows in the loss and not here.
        noise = -(-torch.rand(logits.shape, generator=generator).log()).log()
        action = (logits + noise).argmax(dim=-1)
        raw, reward, terminated, truncated, _ = environments.step(action.numpy() + first_action(environments))
        seen.append(observation)
        acted.append(action)
        spoken.append(logits.log_softmax(dim=-1).gather(1, action[:, None])[:, 0])
        values.append(value)
        rewards.append(torch.from_numpy(np.array(reward, dtype=np.float32)))
        terminations.append(torch.from_numpy(np.array(terminated)))
        # The step after an end only brings the new episode: its action is not taken.
        lived.append(~over)
        over = torch.from_numpy(terminated | truncated)
        ends.append(over)
        collected += int(lived[-1].sum())
    values.append(ask(model, torch.from_numpy(flatten(space, raw, count)))[1])
    estimated = torch.stack(values)
    ahead = advantages(
        torch.stack(rewards), estimated, torch.stack(terminations), torch.stack(ends), horizon.discount, horizon.trace
    )
    kept = torch.stack(lived)
    returns = (ahead + estimated[:-1])[kept][: horizon.samples]
    ahead = ahead[kept][: horizon.samples]
    ahead = (ahead - ahead.mean()) / (ahead.std(correction=0) + 1e-8)
    columns = [torch.stack(each)[kept][: horizon.samples].float() for each in (acted, spoken)]
    return Rollout(
        observations=torch.stack(seen)[kept][: horizon.samples],
        targets=torch.stack([*columns, ahead, returns], dim=1),
    )


def ask(model: nn.Module, observations: Tensor) -> tuple[Tensor, Tensor]:
    """The model's logits ``[n, actions]`` and values ``[n]`` for fp32 ``[n, features]``, as fp32 on the CPU."""
    logits, values = model(observations.to(next(model.parameters()).device))
    return logits.float().cpu(), values.float().cpu()


@torch.inference_mode()
def greedy_returns(environments: VectorEnv[Any, Any, Any], model: nn.Module, seed: int) -> npt.NDArray[np.float64]:
    """The undiscounted return of the first episode of each environment, always taking the likeliest action."""
    count, space = environments.num_envs, environments.single_observation_space
    raw, _ = environments.reset(seed=seed)
    returns, running = np.zeros(count), np.ones(count, dtype=bool)
    for _ in range(LONGEST_EPISODE):
        logits, _ = ask(model, torch.from_numpy(flatten(space, raw, count)))
        raw, reward, terminated, truncated, _ = environments.step(
            logits.argmax(dim=-1).numpy() + first_action(environments)
        )
        returns[running] += reward[running]
        running &= ~(terminated | truncated)
        if not running.any():
            break
    return returns


class RolloutLoader:
    """Minibatches from one rollout after the other.

    A batch's inputs are observations, fp32 ``[size, features]``; its targets are fp32 ``[size, 4]``: the action (from
    0), its log-probability when it was taken, its normalised advantage, and the return that the critic should foresee.

    Every rollout is handed out ``epochs`` times, in a new order each time; the next one is collected, with the model as
    it is then, when the first sample of it is due. So a loader that is opened between two rollouts goes on exactly as
    one that stood there, and one that is opened within a rollout lives through that rollout again with the model it is
    given.

    When a synchronisation moves the model within a rollout, the rest of that rollout is still handed out: its
    log-probabilities are those of the policy that acted, so the importance ratios are right, and the clip bounds what a
    stale sample can do. A federation does best when the steps between two synchronisations are those of whole rollouts.
    """

    def __init__(self, environments: VectorEnv[Any, Any, Any], horizon: Horizon, seed: int, cursor: int = 0) -> None:
        self.cursor = cursor
        self._environments = environments
        self._horizon = horizon
        self._seed = seed
        self._order = Order(seed, horizon.samples)
        self._number = -1
        self._rollout: Rollout | None = None

    def skip(self, size: int) -> None:
        self.cursor += size

    def batch(self, size: int, model: nn.Module) -> Batch:
        observations, targets, missing = [], [], size
        while missing:
            number, position = divmod(self.cursor, self._horizon.samples * self._horizon.epochs)
            rollout = self._collected(number, model)
            due = min(missing, self._horizon.samples * self._horizon.epochs - position)
            picked = self._order.draw(self.cursor, due)
            observations.append(rollout.observations[picked])
            targets.append(rollout.targets[picked])
            missing -= len(picked)
            self.cursor += len(picked)
        return Batch(torch.cat(observations), torch.cat(targets), tokens=size)

    def _collected(self, number: int, model: nn.Module) -> Rollout:
        if self._rollout is None or number != self._number:
            was_training = model.training
            model.eval()
            self._rollout = collect(self._environments, model, self._horizon, word(self._seed, "rollout", number))
            model.train(was_training)
            self._number = number
        return self._rollout
