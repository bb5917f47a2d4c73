"""A model's tensors as Flower's ``ArrayRecord`` and back: the same names, order, shapes, dtypes and bits.

Every dtype has one encoding, named by the array's ``stype``:

``numpy.ndarray``
    Flower's own, for what NumPy knows: the npy format, version 1.0. Stock strategies average these.
``windfall.little-endian``
    Ours, for bfloat16 and float8, which NumPy does not know: ``data`` is the elements alone, row-major and
    little-endian, ``dtype`` is torch's name. Stock strategies read arrays with ``Array.numpy()``, which refuses any
    ``stype`` but Flower's; a :class:`NarrowArray` answers it in float32, exactly, so that they average these as well.

What is read was written by somebody else. Nothing of it is evaluated or unpickled: an npy header must be the one that
belongs to the dtype and shape which Flower's ``Array`` states, and the bytes must be as many as those say. Flower's
legacy ``Parameters`` state neither; they are completed by who sends them (:func:`stated`).
"""

import sys
from collections.abc import Mapping
from io import BytesIO
from math import prod

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from torch import Tensor

NUMPY = "numpy.ndarray"
LITTLE_ENDIAN = "windfall.little-endian"

_WHOLE = {"uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"}
_KNOWN_TO_NUMPY = {"bool", *_WHOLE, "float16", "float32", "float64", "complex64", "complex128"}
_CARRIERS = {"bfloat16": torch.int16, "float8_e4m3fn": torch.int8, "float8_e5m2": torch.int8}
"""Integers as wide as the dtypes that NumPy does not know."""

_NPY_MAGIC = b"\x93NUMPY\x01\x00"
_MOST_DIMENSIONS = 64
_STRETCH = 1 << 20
"""Elements that are looked at together."""


class NarrowArray(Array):
    """Floats of 16 or 8 bits that NumPy does not know, in our own encoding; strategies read them as float32.

    Every bfloat16 and float8 is a float32, so reading loses nothing. What a strategy makes of them is float32, and is
    rounded to their own type again before it travels (see ``windfall.flower_adapter.types_kept``).
    """

    def numpy(self) -> np.ndarray:
        """The elements in float32, in memory of their own.

        Raises:
            ValueError: as ``from_record``.
        """
        return _decode("", self).to(torch.float32).numpy()


NarrowArray.__qualname__ = Array.__qualname__  # by which Flower names an object that it takes apart


def to_record(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Copy tensors, wherever they are, into a record.

    Raises:
        ValueError: a tensor has a dtype without an encoding (a quantized one, say).
    """
    return recorded({name: _encode(name, tensor) for name, tensor in state.items()})


def recorded(arrays: Mapping[str, Array]) -> ArrayRecord:
    """A record of these very arrays: Flower's own constructor makes plain ones of them."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def from_record(record: ArrayRecord) -> dict[str, Tensor]:
    """Copy a record, ours or a stock Flower app's, into contiguous tensors on the CPU.

    Raises:
        ValueError: an array has an unknown encoding or dtype, an impossible shape, or bytes that belong to another
            dtype or shape than the one it states.
    """
    return {name: _decode(name, stated(name, array)) for name, array in record.items()}


def stated(name: str, array: Array) -> Array:
    """The same array with its dtype and shape, where it leaves them to its npy header as ``Parameters`` do.

    Raises:
        ValueError: its header cannot be read.
    """
    if array.stype != NUMPY or array.dtype:
        return array
    with BytesIO(array.data) as file:
        if npy.read_magic(file) != (1, 0):
            raise ValueError(f"array {name!r} is in a version of the npy format that is not read")
        shape, _, dtype = npy.read_array_header_1_0(file)
    return Array(dtype=dtype.name, shape=shape, stype=NUMPY, data=array.data)


def _encode(name: str, tensor: Tensor) -> Array:
    dtype = str(tensor.dtype).removeprefix("torch.")
    tensor = tensor.detach().contiguous()  # so that equal tensors are equal bytes, whatever their strides
    if dtype in _KNOWN_TO_NUMPY:
        return Array(tensor.numpy(force=True))
    if dtype in _CARRIERS:
        bits = tensor.view(_CARRIERS[dtype]).numpy(force=True)
        data = bits.astype(bits.dtype.newbyteorder("<"), copy=False).tobytes()
        return NarrowArray(dtype=dtype, shape=tuple(tensor.shape), stype=LITTLE_ENDIAN, data=data)
    raise ValueError(f"tensor {name!r} is {dtype}, which has no encoding in a record")


def check(name: str, array: Array) -> None:
    """Look whether an array is what it says, without copying it; an ``stype`` of somebody else's own is not looked at.

    Raises:
        ValueError: as ``from_record``.
    """
    if array.stype in (NUMPY, LITTLE_ENDIAN):
        _read(name, array)


def finite(array: Array) -> bool:
    """Whether no element is infinite or not a number; true of what holds no floats, or that we cannot read."""
    if array.stype == LITTLE_ENDIAN:
        tensor = _decode("", array)
        return bool(torch.isfinite(tensor.float()).all())
    if array.stype != NUMPY or not array.dtype.startswith(("float", "complex")):
        return True
    elements = _read("", array)[0].reshape(-1)
    stretches = range(0, elements.size, _STRETCH)
    return all(bool(np.isfinite(elements[start : start + _STRETCH]).all()) for start in stretches)


def _decode(name: str, array: Array) -> Tensor:
    elements, target = _read(name, array)
    tensor = torch.empty(array.shape, dtype=target, device="cpu")
    np.copyto(tensor.view(_CARRIERS.get(array.dtype, target)).numpy(), elements, casting="unsafe")
    return tensor


def _read(name: str, array: Array) -> tuple[np.ndarray, torch.dtype]:
    """The elements where they lie, as NumPy or a carrier has them, and the type that they are of."""
    known = {NUMPY: _KNOWN_TO_NUMPY, LITTLE_ENDIAN: _CARRIERS.keys()}.get(array.stype)
    if known is None:
        raise ValueError(f"array {name!r} is encoded as {array.stype!r}; only {NUMPY} and {LITTLE_ENDIAN} are read")
    if array.dtype not in known:
        raise ValueError(f"array {name!r} is {array.dtype!r}, a dtype that {array.stype} does not carry here")

    target: torch.dtype = getattr(torch, array.dtype)
    stored = np.dtype(array.dtype if array.stype == NUMPY else f"i{target.itemsize}").newbyteorder("<")
    _check_shape(name, array.shape, stored.itemsize)
    begin, fortran = _npy_body(name, array, stored) if array.stype == NUMPY else (0, False)
    body, expected = memoryview(array.data)[begin:], prod(array.shape) * stored.itemsize
    if len(body) != expected:
        raise ValueError(f"array {name!r} has {len(body)} bytes; {array.dtype}{list(array.shape)} has {expected}")

    if target == torch.bool:
        stored = np.dtype(np.uint8)  # a byte other than 0 and 1 becomes true, as NumPy has it, not an undefined bool
    return np.frombuffer(body, stored).reshape(array.shape, order="F" if fortran else "C"), target


def _check_shape(name: str, shape: tuple[int, ...], itemsize: int) -> None:
    impossible = len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape)
    if impossible or prod(max(size, 1) for size in shape) * itemsize > sys.maxsize:
        raise ValueError(f"array {name!r} has a shape that no tensor has: {str(shape)[:80]}")


def _npy_body(name: str, array: Array, stored: np.dtype) -> tuple[int, bool]:
    """Where the elements begin, and whether they lie column by column (Fortran's order).

    The header is compared instead of parsed. NumPy pads it with blanks, more or fewer from version to version, so
    blanks do not count: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    magic, length = len(_NPY_MAGIC), 2
    begin = magic + length + int.from_bytes(array.data[magic : magic + length], "little")
    header = array.data[magic + length : begin].decode("latin-1").strip()
    for fortran in (False, True):
        expected = f"{{'descr': '{stored.str}', 'fortran_order': {fortran}, 'shape': {array.shape}, }}"
        if array.data.startswith(_NPY_MAGIC) and header.replace(" ", "") == expected.replace(" ", ""):
            return begin, fortran
    raise ValueError(f"array {name!r} says {array.dtype}{list(array.shape)}, its npy header does not: {header[:80]!r}")
