"""Flower's ``ArrayRecord`` and the flat fp32 vector that Pull and Push carry, in the order of a ``Layout``."""

from flwr.app import ArrayRecord
from torch import Tensor

from windfall.flower_adapter.arrays import from_record, to_record
from windfall.lowcomm.layout import Layout, TensorSpec, flatten, unflatten


def layout_of_record(record: ArrayRecord) -> Layout:
    """The layout of a record in its own order, told from what its arrays state; no bytes are read.

    Raises:
        ValueError: an array is not float32, or its name or shape belongs to no tensor.
    """
    _check_float32(record)
    return Layout(tuple(TensorSpec(name, array.shape) for name, array in record.items()))


def to_flat(record: ArrayRecord, layout: Layout) -> Tensor:
    """Copy a record into one vector; arrays are found by name, their order in the record does not matter.

    Returns:
        fp32, contiguous, on the CPU, shape ``[layout.elements]``.

    Raises:
        ValueError: an array is not float32, cannot be read (see ``from_record``), is missing, is unknown to the
            layout, or differs from it in shape.
    """
    _check_float32(record)
    return flatten(from_record(record), layout)


def from_flat(flat: Tensor, layout: Layout) -> ArrayRecord:
    """Copy a vector (fp32 ``[layout.elements]``, contiguous, on the CPU) into a record that stock strategies average.

    Raises:
        ValueError: the vector does not fit the layout.
    """
    return to_record(unflatten(flat, layout))


def _check_float32(record: ArrayRecord) -> None:
    for name, array in record.items():
        if array.dtype != "float32":
            drifts = "int" in array.dtype or array.dtype == "float64"
            cure = "; keep counters at the site, Flower's averaging turns them into float64" if drifts else ""
            raise ValueError(f"array {name!r} is {array.dtype}, only float32 travels{cure}")
