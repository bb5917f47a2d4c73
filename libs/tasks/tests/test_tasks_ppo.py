import json
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from windfall.tasks.environments import flatten, open_environments, shape_of
from windfall.tasks.ppo import PpoTask, ppo
from windfall.tasks.rollouts import RolloutLoader, advantages
from windfall.tasks.task import Batch, DataError

SMALLEST = {"width": 8, "environments": 4, "rollout_samples": 256, "epochs": 2, "evaluation_episodes": 4}


def _loader(task: PpoTask, folder: Path, seed: int = 1, cursor: int = 0) -> RolloutLoader:
    return task.loader(folder, seed, cursor)


@given(
    ends=st.lists(st.sampled_from(["goes on", "terminated", "cut off"]), min_size=1, max_size=12),
    discount=st.floats(0, 1),
    trace=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_advantages_are_discounted_sums_of_surprises(ends: list[str], discount: float, trace: float, seed: int) -> None:
    rewards, values = torch.randn(2, len(ends) + 1, 1, generator=torch.Generator().manual_seed(seed)).double()
    terminated, ended = ([[end in which] for end in ends] for which in (("terminated",), ("terminated", "cut off")))
    estimated = advantages(
        rewards[:-1], values, torch.tensor(terminated), torch.tensor(ended), discount=discount, trace=trace
    )
    for step in range(len(ends)):
        total, weight = 0.0, 1.0
        for later in range(step, len(ends)):
            after = 0.0 if terminated[later][0] else values[later + 1].item()
            total += weight * (rewards[later].item() + discount * after - values[later].item())
            weight *= discount * trace
            if ended[later][0]:
                break
        assert estimated[step].item() == pytest.approx(total, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("preset", ["cartpole", "acrobot"])
def test_a_rollout_has_as_many_samples_as_it_promises(preset: str, tmp_path: Path) -> None:
    task = ppo({**SMALLEST, "preset": preset, "epochs": 1})
    batch = _loader(task, tmp_path).batch(256, task.model(seed=0))
    assert batch.inputs.shape == (256, task.shape.features) and batch.targets.shape == (256, 4)
    assert batch.tokens == 256
    action, spoken, advantage, _ = batch.targets.unbind(1)
    assert set(action.tolist()) == set(range(task.shape.actions))
    assert (spoken < 0).all() and batch.targets.isfinite().all()
    assert advantage.mean().item() == pytest.approx(0, abs=1e-5)
    assert advantage.std(correction=0).item() == pytest.approx(1, abs=1e-4)


def test_the_step_that_only_brings_a_new_episode_is_no_sample(tmp_path: Path) -> None:
    task = ppo({**SMALLEST, "rollout_samples": 2000, "epochs": 1})
    seen = _loader(task, tmp_path).batch(2000, task.model(seed=0)).inputs
    assert (seen[:, 0].abs() <= 2.4).all() and (seen[:, 2].abs() <= 0.2095).all()
    assert (seen[:, 2].abs() > 0.17).any(), "no episode came near its end"


def test_every_sample_is_handed_out_once_an_epoch(tmp_path: Path) -> None:
    task = ppo(SMALLEST)
    loader, model = _loader(task, tmp_path), task.model(seed=0)
    epochs = [loader.batch(256, model) for _ in range(3)]
    first, second, later = ({tuple(row) for row in epoch.targets.tolist()} for epoch in epochs)
    assert first == second and not torch.equal(epochs[0].targets, epochs[1].targets)
    assert not first & later
    assert loader.cursor == 768


def test_batches_of_any_size_hand_out_the_same_samples(tmp_path: Path) -> None:
    task = ppo(SMALLEST)
    model = task.model(seed=0)
    whole = _loader(task, tmp_path).batch(600, model)
    loader = _loader(task, tmp_path)
    parts = [loader.batch(size, model) for size in (1, 255, 300, 44)]
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)


@pytest.mark.parametrize("cursor", [512, 600, 1024], ids=str)
def test_a_loader_resumes(cursor: int, tmp_path: Path) -> None:
    """Exactly, between rollouts; within one, as far as the model is still the one that lived it."""
    task = ppo(SMALLEST)
    model = task.model(seed=0)
    loader = _loader(task, tmp_path)
    loader.batch(cursor, model)
    again = _loader(task, tmp_path, cursor=cursor)
    assert torch.equal(loader.batch(50, model).targets, again.batch(50, model).targets)


def test_sites_live_through_different_episodes(tmp_path: Path) -> None:
    task = ppo(SMALLEST)
    model = task.model(seed=0)
    one, other = (_loader(task, tmp_path, seed).batch(256, model).inputs for seed in (1, 2))
    assert not {tuple(row) for row in one.tolist()} & {tuple(row) for row in other.tolist()}


def test_a_rollout_is_kept_when_the_model_moves(tmp_path: Path) -> None:
    """Its ratios are then those between the model that is there and the one that acted."""
    task = ppo(SMALLEST)
    model, loader = task.model(seed=0), _loader(task, tmp_path)
    loader.batch(256, model)
    other = task.model(seed=5)
    batch = loader.batch(256, other)
    acted, moved = (_log_probability(each, batch) for each in (model, other))
    torch.testing.assert_close(acted, batch.targets[:, 1], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(moved, batch.targets[:, 1])
    following = loader.batch(256, other)
    torch.testing.assert_close(_log_probability(other, following), following.targets[:, 1], rtol=1e-5, atol=1e-6)


def test_the_model_and_the_global_generator_stay_as_they_were(tmp_path: Path) -> None:
    task = ppo(SMALLEST)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    model = task.model(seed=3)
    was = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _loader(task, tmp_path).batch(8, model)
    task.evaluate(model, tmp_path)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was moved"
    assert model.training and all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(was[name], tensor) for name, tensor in model.state_dict().items())
    again, other = task.model(seed=3).state_dict(), task.model(seed=4).state_dict()
    assert all(torch.equal(was[name], again[name]) for name in was)
    assert not torch.equal(was["actor.0.weight"], other["actor.0.weight"])


@pytest.mark.parametrize(
    ("ratio", "advantage", "paid"),
    [(1.0, 2.0, 2.0), (1.5, 2.0, 2.4), (0.5, 2.0, 1.0), (1.5, -2.0, -3.0), (0.5, -2.0, -1.6)],
    ids=["unmoved", "too far up", "down", "up, and worse", "too far down"],
)
def test_a_ratio_pays_no_further_than_the_clip(ratio: float, advantage: float, paid: float) -> None:
    task = ppo({**SMALLEST, "value_weight": 0.0, "entropy_weight": 0.0})
    model, observations = task.model(seed=0), torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        now = model(observations)[0].log_softmax(-1)[0, 1].item()
    batch = Batch(observations, torch.tensor([[1.0, now - np.log(ratio), advantage, 7.0]]), tokens=1)
    assert task.loss(model, batch).item() == pytest.approx(-paid, rel=1e-5)


def test_critic_and_entropy_have_their_weights() -> None:
    observations = torch.zeros(1, 4)
    target = torch.tensor([[0.0, 0.0, 0.0, 3.0]])
    losses = [
        ppo({**SMALLEST, "value_weight": value, "entropy_weight": entropy})
        for value, entropy in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.1))
    ]
    plain, critic, entropy = (
        task.loss(task.model(seed=0), Batch(observations, target, tokens=1)).item() for task in losses
    )
    # Biases are zero: on a zero observation the value is 0 and both actions are equally likely.
    assert critic - plain == pytest.approx(0.5 * 9)
    assert entropy - plain == pytest.approx(-0.1 * np.log(2))


def test_evaluation_is_measured_against_the_threshold(tmp_path: Path) -> None:
    cartpole, acrobot = ppo(SMALLEST), ppo({**SMALLEST, "preset": "acrobot"})
    one, other = (task.evaluate(task.model(seed=0), tmp_path) for task in (cartpole, acrobot))
    assert (one.metric, one.samples) == ("mean return", 4)
    assert 8 <= one.value <= 500 and one.loss == pytest.approx(1 - one.value / 475)
    assert -500 <= other.value <= -60 and other.loss == pytest.approx((-100 - other.value) / 100)
    assert cartpole.evaluate(cartpole.model(seed=0), tmp_path) == one


def test_a_few_rollouts_teach_balance(tmp_path: Path) -> None:
    task = ppo({"rollout_samples": 2048, "evaluation_episodes": 20})
    model = task.model(seed=0)
    before = task.evaluate(model, tmp_path)
    _train(task, model, tmp_path, samples=2 * 2048 * 10, size=256)
    assert task.evaluate(model, tmp_path).value > 3 * before.value


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [0, 1], ids=str)
def test_cartpole_is_solved_with_the_preset(seed: int, tmp_path: Path) -> None:
    task = ppo({"preset": "cartpole"})
    model = task.model(seed)
    _train(task, model, tmp_path, samples=12 * 40_960, size=256, seed=seed)
    evaluation = task.evaluate(model, tmp_path)
    assert evaluation.samples == 100 and evaluation.value >= 475


def test_the_large_preset_takes_a_step(tmp_path: Path) -> None:
    task = ppo({"preset": "large", "rollout_samples": 64, "evaluation_episodes": 1})
    model = task.model(seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 267_780
    _train(task, model, tmp_path, samples=64, size=64)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize(("environment", "features", "actions"), [("FrozenLake-v1", 16, 4), ("Blackjack-v1", 45, 2)])
def test_discrete_observations_are_one_hot(environment: str, features: int, actions: int, tmp_path: Path) -> None:
    task = ppo({**SMALLEST, "environment": environment})
    assert (task.shape.features, task.shape.actions) == (features, actions)
    inputs = _loader(task, tmp_path).batch(64, task.model(seed=0)).inputs
    assert set(inputs.flatten().tolist()) == {0.0, 1.0}
    assert len(set(inputs.sum(dim=1).tolist())) == 1


def test_a_dictionary_of_observations_lies_end_to_end() -> None:
    space = gymnasium.spaces.Dict(a=gymnasium.spaces.Box(0, 1, (1, 2)), b=gymnasium.spaces.Discrete(3, start=5))
    flat = flatten(space, {"a": np.array([[[0.25, 0.5]]]), "b": np.array([6])}, count=1)
    assert flat.tolist() == [[0.25, 0.5, 0, 1, 0]]


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"preset": "pong"}, "unknown preset 'pong'; known are cartpole, acrobot, large"),
        ({"depth": 3}, "depth: unknown setting; known are preset, environment, environments"),
        ({"clip": 0.0}, "clip: Input should be greater than 0"),
        ({"environment": "CartPole-v9"}, "unknown environment 'CartPole-v9': "),
        ({"environment": "os:CartPole-v1"}, "environment: String should match pattern"),
        ({"environment": "Pendulum-v1"}, "actions are Box.*; only discrete ones are trained"),
        ({"rollout_samples": 4}, "rollout_samples 4 is less than a step of 8 environments"),
        ({"rate": "linear"}, "rate: unknown rate 'linear'"),
    ],
    ids=json.dumps,
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        ppo(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot read '.*environment.json': .*Write a JSON object"),
        ("[1]", "is no JSON object"),
        ('{"gravity": 3}', "CartPole-v1 cannot be made: .*gravity.*Correct environment.json"),
        ('{"num_envs": 3}', "argument 'num_envs' is set by the task"),
    ],
    ids=["json", "list", "argument", "reserved"],
)
def test_a_mistake_in_a_sites_environment_is_one_line(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text(text)
    with pytest.raises(DataError, match=complaint) as caught:
        ppo(SMALLEST).loader(tmp_path, seed=0)
    assert "\n" not in str(caught.value)


def test_a_site_may_have_an_environment_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"max_episode_steps": 5}')
    assert ppo(SMALLEST).evaluate(ppo(SMALLEST).model(seed=0), tmp_path).value == 5
    (tmp_path / "environment.json").write_text('{"map_name": "8x8"}')
    with pytest.raises(DataError, match=r"makes Shape\(features=64, actions=4\) of what is Shape\(features=16"):
        ppo({**SMALLEST, "environment": "FrozenLake-v1"}).loader(tmp_path, seed=0)


def test_shapes_are_read_from_spaces() -> None:
    opened = open_environments("MountainCar-v0", 2, {})
    assert (shape_of(opened).features, shape_of(opened).actions) == (2, 3)
    opened.close()


def _log_probability(model: nn.Module, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        spoken: torch.Tensor = model(batch.inputs)[0].log_softmax(-1)
    return spoken.gather(1, batch.targets[:, :1].long())[:, 0]


def _train(task: PpoTask, model: nn.Module, folder: Path, samples: int, size: int, seed: int = 1) -> None:
    optimizer, loader = task.optimizer(model), task.loader(folder, seed)
    while loader.cursor < samples:
        optimizer.zero_grad()
        task.loss(model, loader.batch(size, model)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), task.gradient_norm)
        optimizer.step()
