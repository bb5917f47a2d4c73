"""A corpus that sites share: every row once per epoch, found by its position alone."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from windfall.tasks.registry import load_task
from windfall.tasks.rows import RowLoader, Shuffle, row_loader, rows_of
from windfall.tasks.task import Batch, DataError
from windfall.tasks.text import Corpus, TextRows

NOBODY = nn.Module()


class Numbers:
    """A corpus whose rows are their own numbers, and whose targets are their positions."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def batch(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        return Batch(torch.tensor(numbers), torch.tensor(positions), len(numbers))


def order(seed: int, epoch: int, rows: int) -> list[int]:
    found: list[int] = Shuffle(seed, epoch, rows).at(np.arange(rows, dtype=np.uint64)).tolist()
    return found


@given(st.integers(0, 2**63), st.integers(0, 10**9), st.integers(1, 700))
def test_an_epoch_goes_over_every_row_once(seed: int, epoch: int, rows: int) -> None:
    assert sorted(order(seed, epoch, rows)) == list(range(rows))


def test_every_epoch_and_every_seed_has_another_order() -> None:
    orders = [order(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    for at, one in enumerate(orders):
        for other in orders[at + 1 :]:
            same = sum(a == b for a, b in zip(one, other, strict=True))
            assert same < 12, "as two random orders have"
    assert order(3, 4, 1000) == order(3, 4, 1000)


def test_an_order_is_as_good_as_random() -> None:
    """Neighbouring places are a third of all rows apart on average, and every tenth of the places gets every tenth of
    the rows alike."""
    rows = 20_000
    one = np.array(order(7, 0, rows), dtype=np.int64)
    assert abs(np.diff(one)).mean() == pytest.approx(rows / 3, rel=0.03)
    table, _, _ = np.histogram2d(np.arange(rows), one, bins=10)
    chi_square = ((table - rows / 100) ** 2 / (rows / 100)).sum()
    assert chi_square < 150, "81 degrees of freedom: the mean is 81, and 150 is seen once in 300,000 times"


def test_any_place_of_a_vast_order_is_had_without_the_others() -> None:
    rows = 10**9 + 7
    places = np.array([0, 1, rows - 1, 123_456_789], dtype=np.uint64)
    found = Shuffle(0, 5, rows).at(places)
    assert (found < rows).all()
    assert len(set(found.tolist())) == 4


def test_a_loader_hands_out_what_was_leased_whatever_the_sizes_of_batches() -> None:
    ranges = ((3, 9), (17, 24))
    positions = [*range(3, 9), *range(17, 24)]
    orders = [order(1, epoch, 10) for epoch in range(3)]
    loader = RowLoader(Numbers(10), 1).over(ranges)
    assert loader.cursor == 3
    batches = [loader.batch(size, NOBODY) for size in (1, 6, 4, 2)]
    assert torch.cat([batch.targets for batch in batches]).tolist() == positions
    assert torch.cat([batch.inputs for batch in batches]).tolist() == [orders[at // 10][at % 10] for at in positions]
    with pytest.raises(ValueError, match="1 rows are due, 0 are left"):
        loader.batch(1, NOBODY)


def test_every_byte_of_a_text_is_predicted_once_in_an_epoch(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(bytes(range(202)))
    task = load_task("gpt-neox", json.dumps({"context": 8}))
    loader = row_loader(task, tmp_path, rows=25, seed=3).over(((0, 50),))
    for _ in range(2):
        batch = loader.batch(25, NOBODY)
        assert sorted(batch.targets.flatten().tolist()) == list(range(1, 201)), "one byte is left over"
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert batch.tokens == 200


def test_no_row_of_tokens_crosses_from_one_file_to_the_next() -> None:
    stretches = tuple(
        np.arange(begin, begin + length, dtype=np.uint8) for begin, length in ((0, 9), (50, 4), (100, 14))
    )
    rows = TextRows(Corpus(stretches, 4, None))
    batch = rows.batch(range(rows.rows), range(rows.rows))
    assert batch.inputs[:, 0].tolist() == [0, 4, 100, 104, 108]


def test_another_copy_of_the_corpus_is_refused_before_a_step(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(bytes(range(202)))
    task = load_task("gpt-neox", json.dumps({"context": 8}))
    with pytest.raises(DataError, match=r"has 25 rows, the federation's has 26\. Copy it from there"):
        row_loader(task, tmp_path, rows=26, seed=0)


@pytest.mark.parametrize("name", ["ppo", "gcn", "wav2vec2"])
def test_a_task_without_rows_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"task '{name}' has no rows that sites could share"):
        rows_of(load_task(name), tmp_path, seed=0)


def write_images(folder: Path, count: int) -> None:
    for name, magic, shape, content in (
        ("images-idx3-ubyte", 0x803, (count, 8, 8), b"".join(bytes([index + 1]) * 64 for index in range(count))),
        ("labels-idx1-ubyte", 0x801, (count,), bytes(index % 3 for index in range(count))),
    ):
        header = b"".join(number.to_bytes(4, "big") for number in (magic, *shape))
        (folder / name).write_bytes(header + content)


def test_every_image_is_seen_once_in_an_epoch_and_moved_anew_in_the_next(tmp_path: Path) -> None:
    write_images(tmp_path, 30)
    task = load_task("resnet", json.dumps({"size": 8, "margin": 1, "classes": 3, "holdout": "0/6"}))
    loader = row_loader(task, tmp_path, rows=25, seed=3).over(((0, 50),))
    epochs = [loader.batch(25, NOBODY) for _ in range(2)]
    pixel = [sorted(batch.inputs.amax(dim=(1, 2, 3)).tolist()) for batch in epochs]
    assert pixel[0] == pixel[1]
    assert len(set(pixel[0])) == 25
    assert not torch.equal(epochs[0].inputs, epochs[1].inputs)
    again = row_loader(task, tmp_path, rows=25, seed=3).over(((10, 12),)).batch(2, NOBODY)
    assert torch.equal(again.inputs, epochs[0].inputs[10:12]), "what is seen follows from the position"


def test_a_share_of_a_shared_corpus_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path, 30)
    (tmp_path / "share.json").write_text('{"part": "0/3"}')
    task = load_task("resnet", json.dumps({"size": 8, "margin": 1, "classes": 3}))
    with pytest.raises(DataError, match="names a part, but sites share all rows"):
        rows_of(task, tmp_path, seed=0)
