import sys
from pathlib import Path
from typing import Any

import pytest

from windfall.tasks.gpt_neox import gpt_neox
from windfall.tasks.hub_datasets import read_data_set
from windfall.tasks.task import DataError

SMALLEST = {"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5}
OF_THE_LIBRARY = pytest.mark.filterwarnings("ignore")
"""Writing a data set warns of what its own dependencies do."""
ROWS = {"text": ["the wind", "blows", "where it will"], "label": [1, 2, 3]}


def rows_of(datasets: Any) -> Any:
    # With a fingerprint of its own: some versions of the library cannot take one of what lies in memory.
    return datasets.Dataset(datasets.table.InMemoryTable.from_pydict(ROWS), fingerprint="wind")


def test_a_library_that_is_missing_is_one_line_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"pip install 'windfall-tasks\[datasets\]'") as caught:
        gpt_neox(SMALLEST).loader(tmp_path, seed=1)
    assert "\n" not in str(caught.value)


@OF_THE_LIBRARY
def test_a_saved_data_set_is_a_folder_of_text(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows_of(datasets).save_to_disk(str(tmp_path))
    assert read_data_set(tmp_path) == b"the wind\nblows\nwhere it will\n"
    task = gpt_neox(SMALLEST)
    assert task.evaluate(task.model(0), tmp_path).metric == "nats per byte"
    with pytest.raises(DataError, match="no column 'words' but text, label"):
        read_data_set(tmp_path, "words")


@OF_THE_LIBRARY
def test_splits_are_folders_of_their_own(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = rows_of(datasets)
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(str(tmp_path))
    with pytest.raises(DataError, match="holds the splits train, test"):
        read_data_set(tmp_path)
    assert read_data_set(tmp_path / "test") == read_data_set(tmp_path / "train")


@OF_THE_LIBRARY
def test_a_damaged_data_set_is_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows_of(datasets).save_to_disk(str(tmp_path))
    (arrow,) = tmp_path.glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot read the data set"):
        read_data_set(tmp_path)
