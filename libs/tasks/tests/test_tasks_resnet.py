import json
import os
from math import log
from pathlib import Path

import pytest
import torch
from torch import nn

from windfall.tasks.registry import load_task
from windfall.tasks.resnet import Block, ResNetTask, resnet
from windfall.tasks.shipped import shipped
from windfall.tasks.task import Batch, DataError

SPRITE = shipped("fashion-mnist-sprite")
SMALLEST = {"width": 4, "blocks": [1, 1], "group_width": 4}
DATA = Path(os.environ.get("WINDFALL_DATA", Path(__file__).parents[4] / "shared" / "data"))
MNIST = DATA / "images" / "mnist-t10k"


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Noisy 8×8 pictures of a bar that lies (0), a bar that stands (1), or a square (2): 300 of them."""
    noise = torch.randint(60, (300, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    for index, picture in enumerate(noise):
        at = 1 + index // 3 % 4
        rows, columns = (
            (slice(at, at + 2), slice(1, 7)),
            (slice(1, 7), slice(at, at + 2)),
            (slice(2, 6), slice(2, 6)),
        )[index % 3]
        picture[rows, columns] += 180
    header = b"".join(number.to_bytes(4, "big") for number in (0x803, 300, 8, 8))
    (tmp_path / "images-idx3-ubyte").write_bytes(header + bytes(noise.flatten().tolist()))
    header = b"".join(number.to_bytes(4, "big") for number in (0x801, 300))
    (tmp_path / "labels-idx1-ubyte").write_bytes(header + bytes(index % 3 for index in range(300)))
    return tmp_path


def on_shapes(**settings: object) -> ResNetTask:
    return resnet({**SMALLEST, "size": 8, "margin": 1, "classes": 3, "learning_rate": 0.02, **settings})


@pytest.mark.parametrize(("preset", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_large_presets_have_the_published_size_and_step(preset: str, parameters: int) -> None:
    """The counts that torchvision publishes for its weights."""
    task = resnet({"preset": preset, "norm": "batch", "size": 64})
    model = task.model(seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    before = model.get_parameter("head.weight").detach().clone()
    loss = _step(task, model, Batch(pixels, torch.tensor([3, 999]), tokens=2))
    assert loss == pytest.approx(log(1000), rel=0.1)
    assert not torch.equal(model.get_parameter("head.weight"), before)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_the_small_preset_is_small() -> None:
    model = load_task("resnet").model(seed=0)
    assert sum(parameter.numel() for parameter in model.parameters()) == 77_754
    assert all(tensor.dtype == torch.float32 for tensor in model.state_dict().values())


def test_a_new_model_is_shallow() -> None:
    """Where its shortcut is the identity a new block changes nothing that relu leaves."""
    model = resnet({**SMALLEST, "blocks": [2, 2], "bottleneck": True}).model(seed=0)
    blocks = [block for block in model.get_submodule("blocks").children() if isinstance(block, Block)]
    plain = [block for block in blocks if isinstance(block.shortcut, nn.Identity)]
    assert len(blocks) == 4 and len(plain) == 2
    x = torch.rand(2, 16, 5, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(plain[0](x), x, rtol=0, atol=0)


def test_a_bottleneck_strides_in_its_middle() -> None:
    model = resnet({**SMALLEST, "bottleneck": True}).model(seed=0)
    strides = [model.get_submodule(f"blocks.1.convolutions.{at}").stride for at in range(3)]
    assert strides == [(1, 1), (2, 2), (1, 1)]


def test_group_norm_looks_at_one_image_alone() -> None:
    model = resnet(SMALLEST).model(seed=0)
    pixels = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model(pixels)[:1], model(pixels[:1]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_the_seed_alone_decides_the_model(norm: str) -> None:
    task = resnet({**SMALLEST, "norm": norm})
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = task.model(seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before), "the global generator was moved"
    torch.manual_seed(2)
    second, other = task.model(seed=7).state_dict(), task.model(seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["stem.weight"], other["stem.weight"])


def test_smoothing_is_of_the_training_loss_alone(shapes: Path) -> None:
    plain, smooth = on_shapes(), on_shapes(label_smoothing=0.3)
    model = plain.model(seed=0)
    batch = plain.loader(shapes, seed=0).batch(8, model)
    log_p = model(batch.inputs).log_softmax(dim=1)
    expected = 0.7 * plain.loss(model, batch) - 0.3 * log_p.mean()
    torch.testing.assert_close(smooth.loss(model, batch), expected)
    assert smooth.evaluate(model, shapes) == plain.evaluate(model, shapes)


def test_training_learns_shapes(shapes: Path) -> None:
    task = on_shapes(holdout="4/5")
    model = task.model(seed=0)
    untrained = task.evaluate(model, shapes)
    assert untrained.loss == pytest.approx(log(3), abs=0.1)
    assert (untrained.metric, untrained.samples) == ("accuracy", 60)
    loader = task.loader(shapes, seed=1)
    optimizer = task.optimizer(model)
    for _ in range(50):
        _step(task, model, loader.batch(16, model), optimizer)
    trained = task.evaluate(model, shapes)
    assert trained.value > 0.95 and trained.loss < untrained.loss / 2


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_evaluation_is_deterministic_and_leaves_the_model_alone(shapes: Path, norm: str) -> None:
    task = on_shapes(norm=norm)
    model = task.model(seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert task.evaluate(model, shapes) == task.evaluate(model, shapes)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_evaluation_is_bounded(shapes: Path) -> None:
    task = on_shapes(evaluation_images=7)
    assert task.evaluate(task.model(seed=0), shapes).samples == 7


def test_what_is_held_out_is_never_trained_on(shapes: Path) -> None:
    everything = _seen(on_shapes(), shapes)
    trained = _seen(on_shapes(holdout="4/5"), shapes)
    assert len(everything) == 300 and len(trained) == 240 and trained < everything
    sites = [_seen(on_shapes(holdout="4/5", part=f"{site}/3"), shapes) for site in range(3)]
    assert set.union(*sites) == trained and sum(len(site) for site in sites) == 240


def test_sites_with_labels_of_their_own(shapes: Path, tmp_path: Path) -> None:
    model = nn.Identity()
    assert set(on_shapes(labels=[0, 2]).loader(shapes, seed=0).batch(60, model).targets.tolist()) == {0, 2}
    site = tmp_path / "site"
    site.mkdir()
    (site / "share.json").write_text(json.dumps({"of": "..", "labels": [1]}))
    task = on_shapes(labels=[0, 2], holdout="4/5")
    assert set(task.loader(site, seed=0).batch(60, model).targets.tolist()) == {1}
    assert task.evaluate(task.model(seed=0), site).samples == 60, "all labels are evaluated"


@pytest.mark.parametrize(
    "setting", [{"part": "400-500"}, {"labels": [2], "part": "0/3"}, {"holdout": "0-299"}], ids=str
)
def test_a_site_without_images_is_told(shapes: Path, setting: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"no image in .* is left to train on. Check 'part', 'labels' and 'holdout'"):
        on_shapes(**setting).loader(shapes, seed=0)


def test_evaluation_needs_images(shapes: Path) -> None:
    task = on_shapes(holdout="400-500")
    with pytest.raises(DataError, match=r"is left to evaluate on"):
        task.evaluate(task.model(seed=0), shapes)


def test_the_rate_follows_its_line() -> None:
    task = resnet({"rate": "cosine:total=100"})
    assert [task.rate(tokens) for tokens in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert resnet({}).rate(10**9) == 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"preset": "huge"}, "unknown preset 'huge'; known are small, resnet18, resnet50"),
        ({"depth": 3}, "depth: unknown setting; known are preset, width, blocks"),
        ({"width": 24}, "width 24 is no multiple of group_width 16"),
        ({"blocks": [2, 0]}, "every stage has 1 to 1000 blocks"),
        ({"channels": 2}, "channels: Input should be 1 or 3"),
        ({"holdout": "3"}, "holdout: a share is written like"),
        ({"rate": "linear"}, "rate: unknown rate 'linear'"),
    ],
    ids=json.dumps,
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        resnet(settings)
    assert "\n" not in str(caught.value)


def test_it_trains_on_the_images_that_ship() -> None:
    task = resnet({"holdout": "75-89/90"})
    model = task.model(seed=0)
    assert _step(task, model, task.loader(SPRITE, seed=0).batch(16, model)) == pytest.approx(log(10), abs=0.1)
    assert task.evaluate(model, SPRITE).samples == 150


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not there; name the folder with the data in WINDFALL_DATA")
def test_the_small_preset_reaches_97_percent_on_mnist() -> None:
    task = resnet({"holdout": "8000-9999", "rate": "cosine:warmup=1000,total=48000"})
    model = task.model(seed=0)
    optimizer, loader = task.optimizer(model), task.loader(MNIST, seed=0)
    while loader.cursor < 48_000:
        for group in optimizer.param_groups:
            group["lr"] = task.settings.learning_rate * task.rate(loader.cursor)
        _step(task, model, loader.batch(32, model), optimizer)
    assert task.evaluate(model, MNIST).value > 0.97


def _step(task: ResNetTask, model: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer | None = None) -> float:
    optimizer = optimizer or task.optimizer(model)
    optimizer.zero_grad()
    loss = task.loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), task.gradient_norm)
    optimizer.step()
    return loss.item()


def _seen(task: ResNetTask, folder: Path) -> set[bytes]:
    """Every picture that training sees in two epochs, without moves."""
    plain = ResNetTask(task.settings.model_copy(update={"margin": 0}))
    inputs = plain.loader(folder, seed=0).batch(600, nn.Identity()).inputs
    return {picture.numpy().tobytes() for picture in inputs}
