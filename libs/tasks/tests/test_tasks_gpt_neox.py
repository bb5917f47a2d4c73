import json
import subprocess
import sys
from math import log, sqrt
from pathlib import Path

import pytest
import torch

from windfall.tasks.gpt_neox import PRESETS, GptNeox, GptNeoxTask, Rotary, gpt_neox
from windfall.tasks.task import Batch, DataError

SMALLEST = {"width": 16, "layers": 2, "heads": 2, "context": 8, "rotary_pct": 0.5}


@pytest.fixture
def verse(tmp_path: Path) -> Path:
    (tmp_path / "verse.txt").write_text("the wind blows where it will; " * 40)
    return tmp_path


@pytest.mark.parametrize("rotary_width", [2, 4, 16], ids=str)
def test_rotary_is_a_turn_in_the_complex_plane(rotary_width: int) -> None:
    x = torch.randn(3, 2, 10, 16, generator=torch.Generator().manual_seed(1))
    turned = Rotary(rotary_width, context=12)(x)

    half = rotary_width // 2
    plane = torch.complex(x[..., :half].double(), x[..., half:rotary_width].double())
    for position in range(10):
        for pair in range(half):
            angle = position * 10_000 ** (-2 * pair / rotary_width)
            plane[:, :, position, pair] *= complex(torch.tensor(angle).cos(), torch.tensor(angle).sin())
    expected = torch.cat((plane.real.float(), plane.imag.float(), x[..., rotary_width:]), dim=-1)
    torch.testing.assert_close(turned, expected, rtol=1e-5, atol=1e-5)


def test_rotary_makes_attention_see_distances_only() -> None:
    rotary = Rotary(4, context=64)
    query, key = torch.randn(2, 4, generator=torch.Generator().manual_seed(1)).expand(64, 2, 4).unbind(1)
    scores = rotary(query) @ rotary(key).T
    torch.testing.assert_close(scores[5, 2], scores[60, 57])


def test_a_future_byte_changes_no_past_logit() -> None:
    model = gpt_neox(SMALLEST).model(seed=0)
    text = torch.randint(256, (1, 8), generator=torch.Generator().manual_seed(1))
    other = text.clone()
    other[0, 5] = (other[0, 5] + 1) % 256
    was, now = model(text), model(other)
    torch.testing.assert_close(was[:, :5], now[:, :5], rtol=0, atol=0)
    assert (was[:, 5:] != now[:, 5:]).any(dim=-1).all()


def test_attention_and_mlp_stand_side_by_side() -> None:
    """Silencing one branch leaves the other's contribution as it was, which a sequential block would not."""
    layer = gpt_neox(SMALLEST).model(seed=0).get_submodule("layers.0")
    x = torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(1))
    attended = layer.get_submodule("attention")(layer.get_submodule("attention_norm")(x))
    whole = layer(x)
    torch.nn.init.zeros_(layer.get_parameter("attention.dense.weight"))
    torch.testing.assert_close(layer(x) + attended, whole)


@pytest.mark.parametrize(
    ("preset", "parameters"), [("tiny", 132_864), ("small", 462_336), ("10m", 10_028_160)], ids=lambda value: str(value)
)
def test_presets_have_the_size_they_promise(preset: str, parameters: int) -> None:
    model = gpt_neox({"preset": preset}).model(seed=0)
    width, layers = (PRESETS[preset][key] for key in ("width", "layers"))
    assert isinstance(width, int) and isinstance(layers, int)
    # Per layer: QKV, dense, up and down with biases (12 w² + 9 w), two LayerNorms (4 w); then embedding, head, norm.
    assert layers * (12 * width**2 + 13 * width) + 2 * 256 * width + 2 * width == parameters
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == parameters


@pytest.mark.parametrize(
    ("preset", "parameters", "edges"),
    [
        ("160m", 162_322_944, 77_266_944),
        ("410m", 405_334_016, 103_022_592),
        ("1.4b", 1_414_647_808, 206_045_184),
        ("20b", 20_554_567_680, 619_708_416),
    ],
)
def test_large_presets_are_the_published_models(preset: str, parameters: int, edges: int) -> None:
    """Counted as the papers count: all, and embedding and head. On the device ``meta`` a pass has shapes only."""
    task = gpt_neox({"preset": preset})
    model = GptNeox(task.settings, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.embedding.weight.numel() + model.head.weight.numel() == edges
    tokens = torch.zeros(1, task.settings.context, dtype=torch.int64, device="meta")
    task.loss(model, Batch(tokens, tokens, tokens.numel())).backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
def test_the_160m_preset_takes_a_step() -> None:
    task = gpt_neox({"preset": "160m"})
    model = task.model(seed=0)
    optimizer = task.optimizer(model)
    tokens = torch.randint(50304, (1, 9), generator=torch.Generator().manual_seed(1))
    batch = Batch(tokens[:, :-1], tokens[:, 1:], tokens=8)
    losses = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = task.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(log(50304), abs=1)
    assert losses[1] < losses[0]


def test_tied_weights_are_one_parameter(verse: Path) -> None:
    task = gpt_neox({**SMALLEST, "tied": True})
    model = task.model(seed=0)
    untied = gpt_neox(SMALLEST).model(seed=0)
    assert isinstance(model, GptNeox) and model.head.weight is model.embedding.weight
    assert _count(untied) - _count(model) == 256 * 16
    assert model.embedding.weight.std().item() == pytest.approx(sqrt(2 / (5 * 16)), rel=0.05)
    before = task.evaluate(model, verse).value
    _train(task, model, verse, steps=20)
    assert task.evaluate(model, verse).value < before
    assert model.head.weight is model.embedding.weight


def test_more_tokens_than_bytes_leave_the_metric_as_it_was(verse: Path) -> None:
    task = gpt_neox({**SMALLEST, "vocabulary": 300})
    evaluation = task.evaluate(task.model(seed=0), verse)
    assert (evaluation.metric, evaluation.value) == ("nats per byte", evaluation.loss)


def test_the_rate_is_the_settings(verse: Path) -> None:
    task = gpt_neox({**SMALLEST, "rate": "cosine:total=100"})
    assert [task.rate(tokens) for tokens in (0, 50, 100, 200)] == pytest.approx([1, 0.5, 0, 0])


def test_the_seed_alone_decides_the_model() -> None:
    task = gpt_neox(SMALLEST)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = task.model(seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "the global generator was moved"
    torch.manual_seed(2)
    second, other = task.model(seed=7).state_dict(), task.model(seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other["embedding.weight"])


def test_initialisation_is_small_and_wang() -> None:
    state = gpt_neox({"preset": "small"}).model(seed=0).state_dict()
    for name in ("embedding.weight", "layers.1.attention.query_key_value.weight", "layers.1.up.weight", "head.weight"):
        assert state[name].std().item() == pytest.approx(sqrt(2 / (5 * 128)), rel=0.03)
    for name in ("layers.1.attention.dense.weight", "layers.1.down.weight"):
        assert state[name].std().item() == pytest.approx(2 / (2 * sqrt(128)), rel=0.03)
    assert not state["layers.1.up.bias"].any()
    assert (state["layers.1.mlp_norm.weight"] == 1).all()


def test_an_untrained_model_knows_nothing(verse: Path) -> None:
    task = gpt_neox(SMALLEST)
    evaluation = task.evaluate(task.model(seed=0), verse)
    assert evaluation.loss == evaluation.value == pytest.approx(log(256), abs=0.3)
    assert (evaluation.metric, evaluation.samples) == ("nats per byte", 128)


def test_training_lowers_the_loss(verse: Path) -> None:
    task = gpt_neox({"preset": "tiny"})
    model = task.model(seed=0)
    untrained = task.evaluate(model, verse).value
    _train(task, model, verse, steps=60)
    assert task.evaluate(model, verse).value < untrained / 4


def test_evaluation_is_bounded_deterministic_and_leaves_the_model_alone(verse: Path) -> None:
    task = gpt_neox({**SMALLEST, "evaluation_windows": 50})
    model = task.model(seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert task.evaluate(model, verse) == task.evaluate(model, verse)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_evaluation_weighs_every_window_the_same(verse: Path) -> None:
    task = gpt_neox({**SMALLEST, "evaluation_windows": 33})
    text = torch.tensor(list((verse / "verse.txt").read_bytes()))
    begins = [index * (len(text) - 8) // 33 for index in range(33)]
    cut = torch.stack([text[at : at + 9] for at in begins])
    model = task.model(seed=0)
    expected = task.loss(model, Batch(cut[:, :-1], cut[:, 1:], tokens=33 * 8)).item()
    assert task.evaluate(model, verse).loss == pytest.approx(expected, rel=1e-5)


def test_evaluation_needs_text(tmp_path: Path) -> None:
    task = gpt_neox(SMALLEST)
    with pytest.raises(DataError):
        task.evaluate(task.model(seed=0), tmp_path)


def test_only_matrices_decay() -> None:
    task = gpt_neox(SMALLEST)
    model = task.model(seed=0)
    decay, none = task.optimizer(model).param_groups
    assert decay["weight_decay"] == 0.1 and none["weight_decay"] == 0
    assert {parameter.ndim for parameter in decay["params"]} == {2}
    assert len(decay["params"]) + len(none["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"preset": "huge"}, "unknown preset 'huge'; known are tiny, small, 10m, 160m"),
        ({"depth": 3}, "depth: unknown setting; known are preset, width, layers"),
        ({"layers": 0}, "layers: Input should be greater than or equal to 1"),
        ({"layers": "2"}, "layers: Input should be a valid integer"),
        ({"heads": 5}, "width 64 is no multiple of 5 heads"),
        ({"heads": 16}, "rotary_pct 0.25 rotates 1 dimensions; an even number is due"),
        ({"learning_rate": float("nan")}, "learning_rate: Input should be"),
        ({"layers": 0, "width": 1}, "width: .*; layers: "),
        ({"rate": "linear"}, "rate: unknown rate 'linear'; known are constant, cosine, wsd"),
        ({"optimizer": "sgd"}, "optimizer: Input should be 'adamw' or 'muon'"),
        ({"tokenizer": "tokenizer.json"}, "tokenizer and tokenizer_sha256 come together"),
        ({"tokenizer_sha256": "12"}, "tokenizer_sha256: String should match pattern"),
        ({"vocabulary": 255}, "vocabulary: Input should be greater than or equal to 256"),
    ],
    ids=json.dumps,
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        gpt_neox(settings)
    assert "\n" not in str(caught.value)


def test_settings_differ_from_a_preset_one_by_one() -> None:
    settings = gpt_neox({"preset": "small", "context": 128}).settings
    assert (settings.width, settings.context) == (128, 128)


def _count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _train(task: GptNeoxTask, model: torch.nn.Module, folder: Path, steps: int) -> None:
    optimizer, loader = task.optimizer(model), task.loader(folder, seed=1)
    for _ in range(steps):
        optimizer.zero_grad()
        task.loss(model, loader.batch(8, model)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_making_the_model_does_not_load_torchs_compiler() -> None:
    # It is a second of every start and 100 MB of every coordinator, for nothing.
    made = "import sys; from windfall.tasks.registry import load_task; load_task('gpt-neox', '{}').model(0)"
    subprocess.run([sys.executable, "-c", f"{made}; sys.exit('torch._dynamo' in sys.modules)"], check=True)
