import hashlib
import struct

import pytest
import torch
from torch import nn

from windfall.lowcomm.layout import Layout, TensorSpec, digest, flatten, layout_of, unflatten


def test_a_model_round_trips_through_one_vector() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.Linear(5, 2))
    state = model.state_dict()
    layout = layout_of(state)
    flat = flatten(state, layout)
    assert layout.elements == flat.numel() == 42
    assert layout.nbytes == 4 * 42
    assert flat.is_contiguous() and flat.dtype == torch.float32
    back = unflatten(flat, layout)
    assert list(back) == list(state)
    for name, tensor in state.items():
        torch.testing.assert_close(back[name], tensor, rtol=0, atol=0)


def test_unflatten_gives_views() -> None:
    layout = Layout((TensorSpec("scalar", ()), TensorSpec("matrix", (2, 3)), TensorSpec("empty", (0, 4))))
    flat = torch.zeros(layout.elements)
    tensors = unflatten(flat, layout)
    tensors["matrix"].fill_(1)
    tensors["scalar"].fill_(2)
    assert flat.tolist() == [2, 1, 1, 1, 1, 1, 1]
    assert tensors["empty"].shape == (0, 4)


def test_flatten_copes_with_strided_tensors() -> None:
    matrix = torch.arange(6.0).view(2, 3)
    layout = Layout((TensorSpec("w", (3, 2)),))
    assert flatten({"w": matrix.t()}, layout).tolist() == [0, 3, 1, 4, 2, 5]


def test_digest_is_sha256_of_little_endian_floats() -> None:
    values = [0.0, -0.0, 1.5, float("inf"), 1e-40]
    assert digest(torch.tensor(values)) == hashlib.sha256(struct.pack("<5f", *values)).hexdigest()
    assert digest(torch.empty(0)) == hashlib.sha256(b"").hexdigest()


def test_what_cannot_travel_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'1.num_batches_tracked' is int64; only float32"):
        layout_of(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict())
    with pytest.raises(ValueError, match="'weight' is bfloat16; only float32"):
        layout_of(nn.Linear(2, 2, dtype=torch.bfloat16).state_dict())


def test_tied_weights_are_refused() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    with pytest.raises(ValueError, match=r"'0.weight' and '1.weight' share"):
        layout_of(nn.Sequential(first, second).state_dict())


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "'w' is missing"),
        ({"w": torch.zeros(2), "x": torch.zeros(1)}, "'x' is not part"),
        ({"w": torch.zeros(3)}, r"'w' is float32\[3\], the layout says float32\[2\]"),
        ({"w": torch.zeros(2, dtype=torch.float64)}, r"'w' is float64\[2\]"),
    ],
    ids=["missing", "unknown", "shape", "dtype"],
)
def test_a_state_that_does_not_fit_is_refused(state: dict[str, torch.Tensor], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        flatten(state, Layout((TensorSpec("w", (2,)),)))


@pytest.mark.parametrize(
    "flat",
    [torch.zeros(3), torch.zeros(2, 1), torch.zeros(2, dtype=torch.float64), torch.zeros(4)[::2]],
    ids=["length", "rank", "dtype", "strided"],
)
def test_a_vector_that_does_not_fit_is_refused(flat: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        unflatten(flat, Layout((TensorSpec("w", (2,)),)))


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [("", (1,), "float32"), ("w", (-1,), "float32"), ("w", (1,), "int8")],
    ids=["name", "shape", "dtype"],
)
def test_a_foreign_spec_is_refused(name: str, shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match="tensor"):
        TensorSpec(name, shape, dtype)


def test_a_layout_names_each_tensor_once() -> None:
    with pytest.raises(ValueError, match="'w' is named 2 times"):
        Layout((TensorSpec("w", (1,)), TensorSpec("w", (2,))))
    assert Layout(()).elements == 0
