import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from torch import nn

from windfall.flower_adapter.arrays import to_record
from windfall.flower_adapter.flat import from_flat, layout_of_record, to_flat
from windfall.lowcomm.layout import Layout, TensorSpec, flatten, layout_of


def test_a_record_and_its_vector_say_the_same() -> None:
    state = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2)).state_dict()
    record, layout = to_record(state), layout_of(state)
    assert layout_of_record(record) == layout
    flat = to_flat(record, layout)
    assert torch.equal(flat, flatten(state, layout))
    assert from_flat(flat, layout) == record


def test_arrays_are_found_by_name() -> None:
    layout = Layout((TensorSpec("a", ()), TensorSpec("b", (2,)), TensorSpec("none", (0, 3))))
    state = {"none": torch.zeros(0, 3), "b": torch.tensor([2.0, 3.0]), "a": torch.tensor(1.0)}
    record = to_record(state)
    assert to_flat(record, layout).tolist() == [1, 2, 3]
    assert [spec.name for spec in layout_of_record(record).tensors] == ["none", "b", "a"]


def test_what_flower_wrote_travels_too() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3).T
    record = ArrayRecord({"w": Array(matrix)})
    assert to_flat(record, layout_of_record(record)).tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (torch.int64, r"\Aarray 'w' is int64, only float32 travels; keep counters at the site.*float64\Z"),
        (torch.float64, r"\Aarray 'w' is float64, only float32 travels; keep counters at the site.*float64\Z"),
        (torch.bfloat16, r"\Aarray 'w' is bfloat16, only float32 travels\Z"),
        (torch.float16, r"\Aarray 'w' is float16, only float32 travels\Z"),
    ],
    ids=["whole", "drifted", "brain", "half"],
)
def test_only_float32_travels(dtype: torch.dtype, text: str) -> None:
    record, layout = to_record({"w": torch.zeros(2, dtype=dtype)}), Layout((TensorSpec("w", (2,)),))
    with pytest.raises(ValueError, match=text):
        to_flat(record, layout)
    with pytest.raises(ValueError, match=text):
        layout_of_record(record)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "'w' is missing"),
        ({"w": torch.zeros(2), "x": torch.zeros(1)}, "'x' is not part"),
        ({"w": torch.zeros(3)}, r"'w' is float32\[3\], the layout says float32\[2\]"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_a_record_that_does_not_fit_is_refused(state: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        to_flat(to_record(state), Layout((TensorSpec("w", (2,)),)))


def test_a_vector_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 elements, got 3"):
        from_flat(torch.zeros(3), Layout((TensorSpec("w", (2,)),)))
