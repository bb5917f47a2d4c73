from io import BytesIO
from math import prod

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from windfall.flower_adapter.arrays import LITTLE_ENDIAN, NUMPY, from_record, to_record

BY_NUMPY = [
    torch.bool,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]
BY_US = [torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """NaN equals NaN here, and 0 differs from −0."""
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any bits of any dtype, in any order of strides."""
    dtype, shape = draw(st.sampled_from(BY_NUMPY + BY_US)), draw(shapes)
    count = prod(shape) * dtype.itemsize
    values = draw(st.binary(min_size=count, max_size=count))
    elements = torch.tensor([byte & 1 if dtype == torch.bool else byte for byte in values], dtype=torch.uint8)
    axes = draw(st.permutations(range(len(shape))))
    return elements.view(dtype).reshape(shape).permute(axes)


@settings(deadline=None)
@given(st.dictionaries(st.text(), tensors(), max_size=4))
def test_names_order_shapes_dtypes_and_bits_come_back(state: dict[str, Tensor]) -> None:
    record = to_record(state)
    back = from_record(record)
    assert list(back) == list(state)
    for name, tensor in state.items():
        assert same_bits(back[name], tensor)
        assert back[name].is_contiguous()
    assert to_record(back) == record  # the same bytes, whatever the strides were
    for tensor in back.values():
        tensor.zero_()  # its own memory, not the record's
    assert to_record(state) == record


@settings(deadline=None)
@given(tensors().filter(lambda tensor: tensor.dtype in BY_NUMPY))
def test_what_flowers_own_apps_send_is_read(tensor: Tensor) -> None:
    """Flower keeps strides: a transposed matrix comes in Fortran's order."""
    (back,) = from_record(ArrayRecord({"w": tensor})).values()
    assert same_bits(back, tensor)


@settings(deadline=None)
@given(tensors())
def test_a_record_survives_flowers_way_of_travelling(tensor: Tensor) -> None:
    """Flower takes a record apart into objects, named by their hash, and puts it together at the other end."""
    record = to_record({"w": tensor, "again": tensor})
    arrays = {name: Array.inflate(array.deflate(), array.children) for name, array in record.children.items()}
    arrived = ArrayRecord.inflate(record.deflate(), dict(arrays))
    assert list(arrived) == ["w", "again"]
    assert all(same_bits(back, tensor) for back in from_record(arrived).values())


def test_a_model_comes_back() -> None:
    model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2, dtype=torch.bfloat16))
    back = from_record(to_record(model.state_dict()))
    assert back["1.num_batches_tracked"].dtype == torch.int64 and back["1.num_batches_tracked"].shape == ()
    model.load_state_dict(back)


@pytest.mark.parametrize("dtype", BY_NUMPY + BY_US, ids=str)
def test_stock_code_reads_every_dtype(dtype: torch.dtype) -> None:
    (array,) = to_record({"w": torch.tensor([[0, 1]]).to(dtype)}).values()
    if dtype in BY_NUMPY:
        assert array.stype == NUMPY
        assert array.numpy().tolist() == [[0, 1]]
    else:
        assert array.stype == LITTLE_ENDIAN
        assert (array.numpy().dtype, array.numpy().tolist()) == (np.float32, [[0, 1]])


def test_our_own_encoding_is_the_bytes_alone() -> None:
    (array,) = to_record({"w": torch.tensor([[1.0, -2.0]], dtype=torch.bfloat16)}).values()
    assert (array.dtype, array.shape, array.data) == ("bfloat16", (1, 2), b"\x80\x3f\x00\xc0")


def test_what_has_no_encoding_is_not_written() -> None:
    with pytest.raises(ValueError, match="'w' is float8_e5m2fnuz, which has no encoding"):
        to_record({"w": torch.zeros(1, dtype=torch.float8_e5m2fnuz)})


def npy(values: np.ndarray, allow_pickle: bool = False) -> bytes:
    file = BytesIO()
    np.save(file, values, allow_pickle=allow_pickle)
    return file.getvalue()


FLOATS = npy(np.arange(6, dtype=np.float32).reshape(2, 3))
PICKLE = npy(np.array([{}], dtype=object), allow_pickle=True)
ARCHIVE = BytesIO()
np.savez(ARCHIVE, np.zeros(6, np.float32))


@pytest.mark.parametrize(
    ("dtype", "shape", "stype", "data", "text"),
    [
        ("float32", (2, 3), "torch.save", FLOATS, "encoded as 'torch.save'; only"),
        ("object", (1,), NUMPY, PICKLE, "is 'object', a dtype"),
        ("float32", (1,), NUMPY, PICKLE, "its npy header does not"),
        ("float32", (6,), NUMPY, ARCHIVE.getvalue(), "its npy header does not"),
        (">f4", (2, 3), NUMPY, FLOATS, "is '>f4', a dtype"),
        ("Tensor", (2, 3), NUMPY, FLOATS, "is 'Tensor', a dtype"),
        ("bfloat16", (2, 3), NUMPY, FLOATS, "is 'bfloat16', a dtype"),
        ("float32", (6,), LITTLE_ENDIAN, bytes(24), "is 'float32', a dtype"),
        ("float32", (3, 2), NUMPY, FLOATS, r"says float32\[3, 2\], its npy header does not"),
        ("float64", (2, 3), NUMPY, FLOATS, r"says float64\[2, 3\], its npy header does not"),
        ("float32", (2, 3), NUMPY, FLOATS[:-1], r"23 bytes; float32\[2, 3\] has 24"),
        ("float32", (2, 3), NUMPY, FLOATS + b"\0", r"25 bytes; float32\[2, 3\] has 24"),
        ("float32", (2, 3), NUMPY, FLOATS[:9], "its npy header does not"),
        ("float32", (2, 3), NUMPY, b"", "its npy header does not"),
        ("float32", (2, 3), NUMPY, FLOATS.replace(b"\x01\x00", b"\x03\x00", 1), "its npy header does not"),
        ("bfloat16", (3,), LITTLE_ENDIAN, bytes(5), r"5 bytes; bfloat16\[3\] has 6"),
        ("bfloat16", (1 << 40,), LITTLE_ENDIAN, bytes(2), "2 bytes"),
        ("bfloat16", (-1, -1), LITTLE_ENDIAN, bytes(2), "no tensor has"),
        ("bfloat16", (0, 1 << 62, 4), LITTLE_ENDIAN, b"", "no tensor has"),
        ("bfloat16", (1,) * 65, LITTLE_ENDIAN, bytes(2), "no tensor has"),
    ],
    ids=[
        "stype",
        "object",
        "pickle",
        "archive",
        "big-endian",
        "no-dtype",
        "wrong-encoding",
        "wrong-encoding-too",
        "other-shape",
        "other-dtype",
        "short",
        "long",
        "cut",
        "empty",
        "npy-version",
        "raw-short",
        "raw-far-too-short",
        "negative",
        "overflow",
        "dimensions",
    ],
)
def test_what_does_not_fit_is_not_read(dtype: str, shape: tuple[int, ...], stype: str, data: bytes, text: str) -> None:
    array = Array(dtype=dtype, shape=shape, stype=stype, data=data)
    with pytest.raises(ValueError, match=rf"\Aarray 'w' .*{text}"):
        from_record(ArrayRecord({"w": array}))


@settings(deadline=None)
@given(
    st.sampled_from([str(dtype).removeprefix("torch.") for dtype in BY_NUMPY + BY_US]),
    st.lists(st.one_of(st.integers(-1, 3), st.integers()), max_size=70).map(tuple),
    st.sampled_from([NUMPY, LITTLE_ENDIAN]),
    st.one_of(st.binary(max_size=16), st.binary(max_size=80).map(FLOATS.__add__), st.just(b"")),
)
def test_whatever_is_sent_is_a_tensor_or_refused(dtype: str, shape: tuple[int, ...], stype: str, data: bytes) -> None:
    try:
        (tensor,) = from_record(ArrayRecord({"w": Array(dtype=dtype, shape=shape, stype=stype, data=data)})).values()
    except ValueError as error:
        assert str(error).startswith("array 'w' ")
    else:
        assert (tensor.dtype, tensor.shape) == (getattr(torch, dtype), shape)


def test_a_bool_is_true_or_false() -> None:
    data = npy(np.zeros(3, bool))[:-3] + b"\x00\x01\x02"
    (back,) = from_record(ArrayRecord({"w": Array(dtype="bool", shape=(3,), stype=NUMPY, data=data)})).values()
    assert back.view(torch.uint8).tolist() == [0, 1, 1]


def test_blanks_in_a_header_do_not_count() -> None:
    """Older NumPy pads otherwise."""
    header = b"{'descr':'<f4','fortran_order':False,'shape':(1,),}\n"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + b"\0\0\x80\x3f"
    (back,) = from_record(ArrayRecord({"w": Array(dtype="float32", shape=(1,), stype=NUMPY, data=data)})).values()
    assert back.tolist() == [1.0]
