"""Whole numbers stay whole and narrow floats narrow, whatever a stock strategy makes of them.

Averaging turns int64 (the ``num_batches_tracked`` of BatchNorm) and bool into float64, and reads bfloat16 as float32.
What a strategy sends first says of which type each array is; what it sends later is brought back to it: rounded to the
nearest whole number, or to the nearest narrow float, ties to even. An array of another shape or under another name is
another array and stays as it is; so does every other change of type, which the strategy may have meant.
"""

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from windfall.flower_adapter.arrays import NUMPY, recorded, to_record

_WHOLE = ("int", "uint", "bool")
_NARROW = ("bfloat16", "float8")
Key = tuple[str, str]


class TypesKept:
    """Remembers the types of the arrays that a strategy sends, and brings later ones back to them."""

    def __init__(self) -> None:
        self._first: dict[Key, tuple[str, tuple[int, ...]]] = {}

    def kept(self, content: RecordDict) -> RecordDict:
        """The same content with every array in the type of its first sending; itself when nothing drifted."""
        drifted = False
        for name, record in content.array_records.items():
            for key, array in record.items():
                first = self._first.setdefault((name, key), (array.dtype, array.shape))
                drifted = drifted or _drifted(array, first)
        if not drifted:
            return content
        records = {
            name: self.of_record(name, record) if isinstance(record, ArrayRecord) else record
            for name, record in content.items()
        }
        return RecordDict(records)

    def of_record(self, name: str, record: ArrayRecord) -> ArrayRecord:
        """One record of arrays under the name that it is sent by."""
        return recorded({key: self._back(array, self._first.get((name, key))) for key, array in record.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """The names by which records of arrays were sent."""
        return tuple(dict.fromkeys(name for name, _ in self._first))

    def _back(self, array: Array, first: tuple[str, tuple[int, ...]] | None) -> Array:
        if first is None or not _drifted(array, first):
            return array
        dtype = first[0]
        values = array.numpy()
        if dtype.startswith(_NARROW):
            (narrow,) = to_record({"": torch.from_numpy(values).to(getattr(torch, dtype))}).values()
            return narrow
        if dtype == "bool":
            return Array(np.asarray(np.rint(values) != 0))
        limits = np.iinfo(dtype)
        # As floats have it, the largest int64 is one too many: below it lies the next float down.
        top = np.nextafter(float(limits.max), 0) if limits.max > 2**53 else float(limits.max)
        return Array(np.asarray(np.clip(np.rint(values), float(limits.min), top).astype(dtype)))


def _drifted(array: Array, first: tuple[str, tuple[int, ...]]) -> bool:
    dtype, shape = first
    return (
        array.dtype != dtype
        and array.shape == shape
        and array.stype == NUMPY
        and array.dtype.startswith("float")
        and dtype.startswith(_WHOLE + _NARROW)
    )
