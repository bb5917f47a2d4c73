from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from windfall.tasks.task import Batch, DataError
from windfall.tasks.text import Corpus, TextLoader, random_start, read_text, spread_starts
from windfall.tasks.tokens import read_corpus

NOBODY = nn.Module()


def corpus_of(folder: Path, context: int) -> Corpus:
    return read_corpus(folder, context, 256, None, "")


def loader_of(folder: Path, context: int, seed: int, cursor: int = 0) -> TextLoader:
    return TextLoader(corpus_of(folder, context), seed, cursor)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.txt").write_bytes(bytes(range(100, 200)))
    (tmp_path / "a.txt").write_bytes(bytes(range(100)))
    (tmp_path / "notes.md").write_text("not text to train on")
    (tmp_path / "folder.txt").mkdir()
    return tmp_path


def test_files_are_read_in_the_order_of_their_names(folder: Path) -> None:
    assert read_text(folder) == bytes(range(200))


def test_any_byte_is_a_token(tmp_path: Path) -> None:
    text = "žák 風".encode() + b"\xff\x00"
    (tmp_path / "wind.txt").write_bytes(text)
    (stretch,) = corpus_of(tmp_path, context=1).stretches
    assert stretch.tolist() == list(text)


def test_a_target_is_the_byte_after_its_input(folder: Path) -> None:
    batch = corpus_of(folder, context=4).windows([0, 150, 195])
    assert batch.inputs.tolist() == [[0, 1, 2, 3], [150, 151, 152, 153], [195, 196, 197, 198]]
    assert torch.equal(batch.targets, batch.inputs + 1)
    assert batch.tokens == 12
    assert batch.inputs.dtype == torch.int64


def test_no_window_crosses_from_one_stretch_to_the_next() -> None:
    stretches = tuple(np.arange(begin, begin + length, dtype=np.uint16) for begin, length in ((0, 4), (10, 3), (20, 6)))
    corpus = Corpus(stretches, context=2, octets=None)
    assert corpus.starts == 2 + 1 + 4
    assert corpus.windows(range(corpus.starts)).inputs[:, 0].tolist() == [0, 1, 10, 20, 21, 22, 23]
    assert corpus.windows([1, 2, 6]).targets.tolist() == [[2, 3], [11, 12], [24, 25]]


def test_a_sample_depends_on_seed_and_cursor_alone(folder: Path) -> None:
    whole = loader_of(folder, context=8, seed=5).batch(12, NOBODY)
    loader = loader_of(folder, context=8, seed=5)
    parts = [loader.batch(size, NOBODY) for size in (1, 4, 7)]
    assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
    assert loader.cursor == 12


@pytest.mark.parametrize("cursor", [0, 1, 7, 10**12], ids=str)
def test_a_loader_resumes_at_any_cursor(folder: Path, cursor: int) -> None:
    loader = loader_of(folder, context=8, seed=5, cursor=cursor)
    first, second = loader.batch(3, NOBODY), loader.batch(3, NOBODY)
    again = loader_of(folder, context=8, seed=5, cursor=cursor + 3).batch(3, NOBODY)
    assert _same(second, again) and not _same(first, second)


def test_seeds_give_different_windows(folder: Path) -> None:
    one, other = (loader_of(folder, 8, seed).batch(8, NOBODY) for seed in (1, 2))
    assert not _same(one, other)


def test_windows_reach_both_ends_of_the_text() -> None:
    """The shortest text that fits has one window; random ones cover all beginnings about evenly."""
    assert random_start(seed=1, index=9, starts=1) == 0
    counts = torch.bincount(torch.tensor([random_start(3, index, 10) for index in range(5000)]), minlength=10)
    assert counts.min() > 400 and counts.max() < 600


def test_the_generator_is_part_of_what_a_checkpoint_means() -> None:
    assert [random_start(1, index, 1000) for index in range(5)] == [306, 47, 338, 638, 647]


@pytest.mark.parametrize(
    ("count", "starts", "expected"),
    [(4, 100, [0, 25, 50, 75]), (8, 3, [0, 1, 2]), (1, 9, [0]), (3, 10, [0, 3, 6])],
    ids=["spread", "fewer", "one", "uneven"],
)
def test_evaluation_windows_spread_over_the_text(count: int, starts: int, expected: list[int]) -> None:
    assert spread_starts(count, starts) == expected


def test_a_text_of_one_window_is_enough(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_bytes(b"123456789")
    assert loader_of(tmp_path, context=8, seed=0).batch(2, NOBODY).inputs.shape == (2, 8)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read text from '.*nowhere': No such file or directory\. Name"):
        corpus_of(tmp_path / "nowhere", context=8)


def test_a_file_for_a_folder(folder: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read text from '.*a\.txt': Not a directory"):
        corpus_of(folder / "a.txt", context=8)


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"secret")
    with pytest.raises(DataError, match=r"no \*\.txt and no \*\.bin file in .*\. Put text"):
        corpus_of(tmp_path, context=8)


@pytest.mark.parametrize("text", [b"", b"secret12"], ids=["empty", "one short"])
def test_too_little_text_is_refused_without_showing_it(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(text)
    with pytest.raises(DataError, match=rf"has {len(text)} tokens, one window needs 9\. Add") as caught:
        corpus_of(tmp_path, context=8)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def _same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)
