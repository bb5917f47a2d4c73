import hashlib
import struct

import pytest
import torch
from torch import nn

from windfall.lowcomm.layout import (
    FLOATS,
    INTEGERS,
    Layout,
    Split,
    TensorSpec,
    digest,
    flatten,
    layout_of,
    layout_of_model,
    restore,
    unflatten,
)


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


class Odd(nn.Module):
    """Tied weights, a buffer in the middle, an integer, a scalar, and two halves."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__()
        self.first = nn.Linear(2, 3, bias=False, device=device)
        self.norm = nn.BatchNorm1d(3, device=device)
        self.short = nn.Linear(3, 1, dtype=torch.bfloat16, device=device)
        self.last = nn.Linear(2, 3, bias=False, device=device)
        self.last.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64, device=device))


def test_what_gradients_move_lies_first_and_what_must_arrive_as_it_is_last() -> None:
    layout = layout_of_model(Odd())
    assert layout.tensors == (
        TensorSpec("scale", (), "float64"),
        TensorSpec("first.weight", (3, 2)),
        TensorSpec("norm.weight", (3,)),
        TensorSpec("norm.bias", (3,)),
        TensorSpec("short.weight", (1, 3), "bfloat16"),
        TensorSpec("short.bias", (1,), "bfloat16"),
        TensorSpec("norm.running_mean", (3,), exact=True),
        TensorSpec("norm.running_var", (3,), exact=True),
        TensorSpec("norm.num_batches_tracked", (), "int64", exact=True),
    )
    assert layout.tied == (("last.weight", "first.weight"),)
    assert layout.split == Split(17, 7, (1, 6, 3, 3, 3, 1))
    assert layout_of_model(Odd("meta")) == layout


def test_a_state_comes_back_in_its_own_dtypes() -> None:
    model, other = Odd(), Odd()
    with torch.no_grad():
        model.norm(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
        model.short.weight.fill_(0.1)
    layout = layout_of_model(model)
    state = restore(flatten(model.state_dict(), layout), layout)
    assert state["last.weight"].data_ptr() == state["first.weight"].data_ptr()
    other.load_state_dict(state)
    for name, tensor in model.state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(other.state_dict()[name], tensor), name


def test_restored_float32_tensors_are_views_and_so_are_all_unflattened_ones() -> None:
    layout = layout_of_model(Odd())
    flat = flatten(Odd().state_dict(), layout)
    restore(flat, layout)["norm.bias"].fill_(7)
    views = unflatten(flat, layout)
    assert views["norm.bias"].tolist() == [7, 7, 7]
    views["last.weight"].fill_(5)
    views["norm.num_batches_tracked"].fill_(3)
    assert set(views) == set(Odd().state_dict())
    assert views["first.weight"].tolist() == [[5, 5]] * 3 and flat[-1] == 3
    assert {view.dtype for view in views.values()} == {torch.float32}


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_rounded_half_to_even_and_stay_in_their_dtype(dtype: str) -> None:
    layout = Layout((TensorSpec("n", (5,), dtype, exact=True),))
    found = restore(torch.tensor([0.5, 1.5, 2.5, 1e30, -1e30]), layout)["n"]
    kind = getattr(torch, dtype)
    if dtype == "bool":
        assert found.tolist() == [False, True, True, True, True]
        return
    info = torch.iinfo(kind)
    assert found.tolist() == [0, 2, 2, min(info.max, 2**24), max(info.min, -(2**24))]
    assert found.dtype == kind


def test_a_half_does_not_overflow_and_what_was_infinite_stays_so() -> None:
    layout = Layout((TensorSpec("w", (3,), "float16"),))
    assert restore(torch.tensor([1e6, -1e6, float("inf")]), layout)["w"].tolist() == [65504, -65504, float("inf")]


@pytest.mark.parametrize("value", [2**24, -(2**24), 2**62])
def test_an_integer_that_fp32_cannot_count_is_refused_by_name(value: int) -> None:
    state = {"w": torch.zeros(1), "seen": torch.tensor([0, value])}
    with pytest.raises(ValueError, match=f"'seen' holds {value}; integers travel as fp32, below 16777216"):
        flatten(state, layout_of(state))
    state["seen"][1] = (2**24 - 1) * (1 if value > 0 else -1)
    layout = layout_of(state)
    assert torch.equal(restore(flatten(state, layout), layout)["seen"], state["seen"])


def test_a_dtype_that_cannot_travel_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'phase' is complex64; only float16, bfloat16, float32, float64, bool"):
        layout_of({"phase": torch.zeros(2, dtype=torch.complex64)})


def test_tied_weights_travel_once() -> None:
    weight = torch.arange(4.0)
    state = {"a": weight, "b": weight, "none": torch.empty(0), "nothing": torch.empty(0)}
    layout = layout_of(state)
    assert layout.elements == 4 and layout.tied == (("b", "a"),)
    apart = state | {"b": weight.clone()}
    assert torch.equal(flatten(apart, layout), weight)
    with pytest.raises(ValueError, match="'b' and 'a' are tied in the layout and differ"):
        flatten(apart | {"b": weight + 1}, layout)
    with pytest.raises(ValueError, match="'b' is missing"):
        flatten({name: tensor for name, tensor in state.items() if name != "b"}, layout)


def test_a_tied_tensor_is_exact_when_all_of_its_names_are() -> None:
    weight = torch.zeros(2)
    assert not layout_of({"a": weight, "b": weight}, {"a"}).tensors[0].exact
    assert layout_of({"a": weight, "b": weight}, {"a", "b"}).tensors[0].exact


def test_shared_memory_of_another_form_is_refused() -> None:
    weight = torch.zeros(3, 3)
    with pytest.raises(ValueError, match="'a' and 'b' share their memory but not their form"):
        layout_of({"a": weight, "b": weight.t()})


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


@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_every_dtype_that_travels_is_one_of_torch(dtype: str) -> None:
    state = {"w": torch.tensor([[0, 1]], dtype=getattr(torch, dtype))}
    layout = layout_of(state, {"w"})
    assert layout.tensors == (TensorSpec("w", (1, 2), dtype, exact=True),)
    assert torch.equal(restore(flatten(state, layout), layout)["w"], state["w"])


def test_integers_must_be_exact_and_exact_tensors_last() -> None:
    with pytest.raises(ValueError, match="'n' is int64, which no gradient moves: it must be exact"):
        TensorSpec("n", (), "int64")
    with pytest.raises(ValueError, match="'n' is exact and must lie behind 'w'"):
        Layout((TensorSpec("n", (), exact=True), TensorSpec("w", ())))
    with pytest.raises(ValueError, match="'b' is tied to 'a', which does not travel"):
        Layout((TensorSpec("w", ()),), (("b", "a"),))


def test_a_split_says_where_its_parts_and_its_tensors_lie() -> None:
    assert Split(5, 2, (1, 0, 4)).parts == (slice(0, 5), slice(5, 7))
    assert Split(5, 2, (1, 0, 4)).spans == (slice(0, 1), slice(1, 5))
    assert Split(5).spans == Split(5).parts == (slice(0, 5),)
    assert Split(0, 2).parts == (slice(0, 2),) and Split(0, 2).spans == Split(0).parts == ()
    with pytest.raises(ValueError, match="no vector has -1"):
        Split(-1)
    with pytest.raises(ValueError, match="tensors of 3 elements are not the 5"):
        Split(5, 0, (1, 2))


def test_a_layout_names_each_tensor_once() -> None:
    with pytest.raises(ValueError, match="'w' is named 2 times"):
        Layout((TensorSpec("w", (1,)), TensorSpec("w", (2,))))
    assert Layout(()).elements == 0
