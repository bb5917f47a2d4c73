import json
import os
import wave
from itertools import pairwise
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F  # noqa: N812

from windfall.tasks.contrastive import Quantiser, distractors, diversity_loss, similarities, span_mask
from windfall.tasks.speech import LENGTH
from windfall.tasks.task import Batch, DataError, Evaluation
from windfall.tasks.wav2vec2 import Wav2vec2Task, collapse, edits, wav2vec2
from windfall.tasks.wav2vec2_network import NormOverTime, PositionEmbedding, Wav2vec2

TINY = {
    "channels": 8,
    "width": 16,
    "feed_forward": 16,
    "layers": 1,
    "heads": 2,
    "position_groups": 2,
    "rate": "constant",
}


@pytest.fixture
def tones(tmp_path: Path) -> Path:
    """Ten digits as ten tones, two speakers, two held-out takes and two to train on."""
    for digit in range(10):
        for place, speaker in enumerate(("ada", "bo")):
            for take in (0, 1, 5, 6):
                samples = 2400 + 160 * take
                sound = np.sin(2 * np.pi * (150 + 120 * digit + 10 * place) * np.arange(samples) / 8000) * 9000
                with wave.open(str(tmp_path / f"{digit}_{speaker}_{take}.wav"), "wb") as file:
                    file.setparams((1, 2, 8000, samples, "NONE", ""))
                    file.writeframes(sound.astype("<i2").tobytes())
    return tmp_path


@pytest.mark.parametrize(("preset", "published"), [("base", 95e6), ("large", 317e6)])
def test_large_presets_have_the_published_size(preset: str, published: float) -> None:
    model = Wav2vec2(wav2vec2({"preset": preset}).settings, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(published, rel=0.01)


def test_published_features_last_20_ms_and_see_25_ms() -> None:
    task = wav2vec2({"preset": "base"})
    assert task.settings.receptive_field == 400
    model = Wav2vec2(task.settings, device="meta")
    assert model.steps(torch.tensor([[400], [719], [720], [16_000]])).tolist() == [1, 1, 2, 49]


@pytest.mark.parametrize("objective", ["contrastive", "ctc", "digits"])
def test_every_objective_trains_on_the_same_folder(objective: str, tones: Path) -> None:
    task = wav2vec2({**TINY, "objective": objective})
    model = task.model(seed=0)
    before, after = task.evaluate(model, tones), _train(task, model, tones, steps=6, size=4)
    assert before.samples == 40 and after.loss < before.loss
    metric = {"contrastive": "contrastive accuracy", "ctc": "letter error rate", "digits": "accuracy"}[objective]
    assert before.metric == metric and before.value >= 0
    assert task.evaluate(model, tones) == after, "evaluation hears the same every time"
    assert model.training


@pytest.mark.parametrize("objective", ["contrastive", "ctc", "digits"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_no_parameter_lies_idle(objective: str, norm: str, tones: Path) -> None:
    task = wav2vec2({**TINY, "objective": objective, "norm": norm, "mask_probability": 0.5})
    model = task.model(seed=0)
    task.loss(model, task.loader(tones, seed=1).batch(4, model)).backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32 and parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize("objective", ["contrastive", "ctc", "digits"])
@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_changes_nothing(objective: str, norm: str, tones: Path) -> None:
    """In a batch with longer clips a clip says what it says alone, with masks and noise as they are in training."""
    task = wav2vec2({**TINY, "objective": objective, "norm": norm})
    model = task.model(seed=0)
    batch = task.loader(tones, seed=1).batch(6, model)
    together, _ = model(batch.inputs, batch.targets)
    rows = 0
    for row in range(6):
        length = int(batch.targets[row, LENGTH])
        alone, _ = model(batch.inputs[row : row + 1, :length], batch.targets[row : row + 1])
        if objective == "contrastive":
            own, rows = together[rows : rows + len(alone)], rows + len(alone)
        else:
            own = together[row : row + 1, : alone.shape[1]]
        torch.testing.assert_close(own, alone, rtol=1e-3, atol=1e-4)


def test_norm_over_time_is_a_group_norm_of_single_channels() -> None:
    x = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(0))
    norm = NormOverTime(5, "cpu")
    torch.testing.assert_close(norm(x, torch.tensor([40, 40])), F.group_norm(x, 5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm(x, torch.tensor([9, 40]))[:1, :, :9], F.group_norm(x[:1, :, :9], 5))


@pytest.mark.parametrize("kernel", [1, 4, 5])
def test_position_embedding_keeps_the_number_of_steps(kernel: int) -> None:
    embedding = PositionEmbedding(8, kernel, 2, "cpu")
    nn.init.normal_(embedding.direction, generator=torch.Generator().manual_seed(0))
    nn.init.ones_(embedding.length)
    x = torch.zeros(1, 20, 8)
    x[0, 10] = 1
    steps = embedding(x)[0].abs().sum(dim=-1).nonzero()[:, 0].tolist()
    assert steps == list(range(10 - (kernel - 1 - kernel // 2), 10 + kernel // 2 + 1))


def test_the_seed_alone_decides_model_and_training(tones: Path) -> None:
    task = wav2vec2({**TINY, "objective": "contrastive"})
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = task.model(seed=7)
    _train(task, one, tones, steps=2, size=4)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was moved"
    torch.manual_seed(2)
    again, other = task.model(seed=7), task.model(seed=8)
    _train(task, again, tones, steps=2, size=4)
    first, second = one.state_dict(), again.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding.weight"], other.state_dict()["embedding.weight"])


@given(steps=st.integers(2, 300), share=st.floats(0, 1), length=st.integers(1, 50), seed=st.integers(0, 99))
def test_a_mask_covers_something_and_leaves_something(steps: int, share: float, length: int, seed: int) -> None:
    mask = span_mask(steps, share, length, seed)
    assert mask.shape == (steps,) and mask.any()
    assert torch.equal(mask, span_mask(steps, share, length, seed))
    edges = [0, *mask.int().tolist(), 0]
    begins = [at for at, (left, right) in enumerate(pairwise(edges)) if (left, right) == (0, 1)]
    ends = [at for at, (left, right) in enumerate(pairwise(edges)) if (left, right) == (1, 0)]
    assert min(end - begin for begin, end in zip(begins, ends, strict=True)) >= max(1, min(length, steps // 2))


def test_about_half_of_a_long_clip_is_masked_as_published() -> None:
    shares = [span_mask(750, 0.065, 10, seed).float().mean().item() for seed in range(50)]
    assert sum(shares) / 50 == pytest.approx(0.49, abs=0.02)


@given(masked=st.lists(st.integers(1, 20), min_size=1, max_size=4), count=st.integers(1, 30))
def test_distractors_are_other_steps_of_the_same_clip(masked: list[int], count: int) -> None:
    places = distractors(masked, count, seeds=list(range(len(masked))))
    begin = 0
    for steps in masked:
        own = places[begin : begin + steps]
        assert own.shape == (steps, count) and own.min() >= begin and own.max() < begin + steps
        assert steps == 1 or (own != torch.arange(begin, begin + steps)[:, None]).all()
        begin += steps


def test_a_code_is_chosen_hard_and_learnt_softly() -> None:
    quantiser = Quantiser(6, groups=2, entries=5, width=8, device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in quantiser.parameters():
        nn.init.normal_(parameter, generator=generator)
    features = torch.randn(3, 6, generator=generator)
    codes, probabilities = quantiser(features, torch.randn(3, 10, generator=generator), torch.full((3,), 2.0))
    for half in range(2):
        entries = quantiser.entry[half].detach()
        assert all((entries == row).all(dim=-1).any() for row in codes[:, 4 * half : 4 * half + 4])
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(3, 2))
    codes.square().sum().backward()
    assert quantiser.choice.weight.grad is not None and quantiser.choice.weight.grad.any()


def test_diversity_loss_counts_idle_entries() -> None:
    even, single = torch.full((4, 2, 8), 1 / 8), torch.zeros(4, 2, 8)
    single[:, :, 3] = 1
    assert diversity_loss(even).item() == pytest.approx(0, abs=1e-6)
    assert diversity_loss(single).item() == pytest.approx(7 / 8)


def test_a_distractor_with_the_same_code_is_left_out() -> None:
    codes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    logits = similarities(torch.tensor([[3.0, 0.0]] * 3), codes, torch.tensor([[1, 2], [0, 2], [0, 1]]), 0.1)
    torch.testing.assert_close(
        logits, torch.tensor([[10.0, -torch.inf, 0.0], [10.0, -torch.inf, 0.0], [0.0, 10.0, 10.0]])
    )


def test_digits_lose_nats_per_clip() -> None:
    task = wav2vec2(TINY)
    model = task.model(seed=0).eval()
    nn.init.zeros_(model.get_parameter("head.weight"))
    batch = Batch(torch.randn(3, 3000), torch.tensor([[3000, 1, 0, 5], [2500, 2, 1, 0], [2000, 3, 2, 9]]), tokens=3)
    assert task.loss(model, batch).item() == pytest.approx(log(10), rel=1e-5)


@pytest.mark.parametrize(
    ("path", "letters"), [([0, 3, 3, 0, 3, 5, 5], [3, 3, 5]), ([0, 0], []), ([], [])], ids=["path", "blanks", "empty"]
)
def test_a_ctc_path_collapses(path: list[int], letters: list[int]) -> None:
    assert collapse(path) == letters


@given(st.text("abc", max_size=7), st.text("abc", max_size=7))
def test_edits_are_a_distance(one: str, other: str) -> None:
    heard, said = [ord(letter) for letter in one], [ord(letter) for letter in other]
    distance = edits(heard, said)
    assert distance == edits(said, heard) and (distance == 0) == (one == other)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
    assert edits([*heard, 1], [*said, 1]) == distance
    assert edits([ord(letter) for letter in "kitten"], [ord(letter) for letter in "sitting"]) == 3


@pytest.mark.parametrize("way", ["settings", "share.json"])
def test_a_site_has_speakers_of_its_own(way: str, tones: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, settings = tones, {**TINY, "augment": False}
    if way == "settings":
        settings["speakers"] = ["bo"]
    else:
        folder = tmp_path_factory.mktemp("site")
        (folder / "share.json").write_text(json.dumps({"of": str(tones), "speakers": ["bo"]}))
    task = wav2vec2(settings)
    model = task.model(seed=0)
    one = task.loader(folder, seed=1).batch(20, model)
    both = wav2vec2({**TINY, "augment": False}).loader(tones, seed=1).batch(40, model)
    assert len({tuple(row) for row in one.inputs.tolist()}) == 20
    assert len({tuple(row) for row in both.inputs.tolist()}) == 40
    assert task.evaluate(model, folder).samples == 40, "evaluation hears everybody"


def test_a_speaker_who_is_not_there(tones: Path) -> None:
    with pytest.raises(DataError, match=r"no speaker 'eve' in .*; there are ada, bo"):
        wav2vec2({**TINY, "speakers": ["eve"]}).loader(tones, seed=0)


@pytest.mark.parametrize("held_out", [True, False])
def test_a_part_without_clips(held_out: bool, tones: Path) -> None:
    for path in tones.iterdir():
        if (int(path.stem.split("_")[2]) < 5) != held_out:
            path.unlink()
    task = wav2vec2(TINY)
    if held_out:
        with pytest.raises(DataError, match=r"every clip in .* is held out"):
            task.loader(tones, seed=0)
    else:
        with pytest.raises(DataError, match=r"no clip in .* is held out"):
            task.evaluate(task.model(seed=0), tones)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"preset": "huge"}, "unknown preset 'huge'; known are small, base, large"),
        ({"depth": 3}, "depth: unknown setting; known are preset, objective, sample_rate"),
        ({"objective": "words"}, "objective: Input should be 'contrastive', 'ctc' or 'digits'"),
        ({"kernels": [10, 3]}, "2 kernels go with 4 strides"),
        ({"kernels": [10, 3, "3", 3]}, r"kernels\.2: Input should be a valid integer"),
        ({"heads": 7}, "width 96 is no multiple of 7 heads"),
        ({"code_width": 65}, "code_width 65 is no multiple of 2 code_groups"),
    ],
    ids=json.dumps,
)
def test_wrong_settings_are_refused_in_one_line(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        wav2vec2(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_base_preset_takes_a_step() -> None:
    task = wav2vec2({"preset": "base"})
    model = task.model(seed=0)
    sounds = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    batch = Batch(sounds, torch.tensor([[4000, 1, 0]]), tokens=1)
    optimizer = task.optimizer(model)
    loss = task.loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    assert loss.isfinite() and all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_spoken_digits_of_unseen_takes_are_recognised(spoken_digits: Path) -> None:
    task = wav2vec2({"preset": "small"})
    # One in ten is right by chance.
    samples, least = (36_000, 0.85) if os.environ.get("WINDFALL_PRESETS") else (3_200, 0.5)
    assert _train(task, task.model(seed=0), spoken_digits, steps=samples // 8, size=8).value > least


@pytest.fixture
def spoken_digits() -> Path:
    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("WINDFALL_DATA", root.parent / "shared" / "data")) / "audio" / "fsdd" / "recordings"
    if not folder.is_dir():
        pytest.skip(f"no spoken digits in {folder}; WINDFALL_DATA names the folder of data")
    return folder


def _train(task: Wav2vec2Task, model: nn.Module, folder: Path, steps: int, size: int) -> Evaluation:
    optimizer, loader = task.optimizer(model), task.loader(folder, seed=1)
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = task.settings.learning_rate * task.rate(loader.cursor)
        optimizer.zero_grad()
        task.loss(model, loader.batch(size, model)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), task.gradient_norm)
        optimizer.step()
    return task.evaluate(model, folder)
