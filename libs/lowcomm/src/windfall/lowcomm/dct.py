"""An orthonormal DCT-II over runs of 64 elements, to the same bits on every machine and number of threads.

A run ``x`` of 64 becomes ``D x`` with ``D[f, t] = sqrt((1 or 2) / 64) · cos(π (2t + 1) f / 128)``; the coefficients of
even frequencies come first, then those of odd ones. The last ``elements mod 64`` elements stay what they are, so a
vector of any length keeps its length.

Matrix products add up in an order that depends on processor and threads, which replicas that must agree to the last
bit cannot have. So the products here are exact: a run is scaled to integers of 24 bits (by a power of two, so that its
largest element uses all of them), the matrix to integers of at most 23 bits, and every partial sum of 64 products and
the sum of two such stays below 2⁵³, where float64 counts without rounding in whatever order. The result is rounded
once, to fp32. Errors are at most 2⁻¹⁸ of the largest element of the run.

The symmetry of the cosine halves the work: even frequencies see only ``x[t] + x[63 − t]``, odd ones the difference.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

RUN: Final = 64
_HALF: Final = RUN // 2
_BATCH: Final = 256
_MATRIX_BITS: Final = 24
_RUN_BITS: Final = 23


def _matrices() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    frequency, time = np.arange(RUN)[:, None], np.arange(_HALF)[None, :]
    # The angle modulo a full turn in integers, so that the cosine is taken of a small number.
    turns = ((2 * time + 1) * frequency) % (4 * RUN) / (2 * RUN)
    matrix = np.sqrt(np.where(frequency == 0, 1.0, 2.0) / RUN) * np.cos(np.pi * turns)
    exact = np.rint(np.ldexp(matrix, _MATRIX_BITS))
    return np.ascontiguousarray(exact[0::2]), np.ascontiguousarray(exact[1::2])


_EVEN, _ODD = _matrices()


def forward_dct(flat: Floats) -> Floats:
    """Coefficients, fp32 ``[n]``, of a finite fp32 vector ``[n]``."""
    out = np.empty_like(flat)
    for source, target in _batches(flat, out):
        integers, unit = _integers(source)
        mirrored = integers[:, : _HALF - 1 : -1]
        even = (integers[:, :_HALF] + mirrored) @ _EVEN.T
        odd = (integers[:, :_HALF] - mirrored) @ _ODD.T
        np.multiply(even, unit, out=target[:, :_HALF], casting="same_kind")
        np.multiply(odd, unit, out=target[:, _HALF:], casting="same_kind")
    return out


def inverse_dct(coefficients: Floats, out: Floats | None = None) -> Floats:
    """The vector, fp32 ``[n]``, of finite coefficients ``[n]``; ``out`` may be where they lie."""
    out = np.empty_like(coefficients) if out is None else out
    for source, target in _batches(coefficients, out):
        integers, unit = _integers(source)
        integers *= unit
        even = integers[:, :_HALF] @ _EVEN
        odd = integers[:, _HALF:] @ _ODD
        np.add(even, odd, out=target[:, :_HALF], casting="same_kind")
        np.subtract(even, odd, out=target[:, : _HALF - 1 : -1], casting="same_kind")
    return out


def _batches(source: Floats, target: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Whole runs of both as rows; what is left over is copied."""
    whole = len(source) // RUN * RUN
    target[whole:] = source[whole:]
    for begin in range(0, whole, _BATCH * RUN):
        span = slice(begin, min(begin + _BATCH * RUN, whole))
        yield source[span].reshape(-1, RUN), target[span].reshape(-1, RUN)


def _integers(rows: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Rows as whole numbers, and what a product with the whole-numbered matrix is to be multiplied by (per row)."""
    largest = np.maximum(rows.max(axis=1, keepdims=True), -rows.min(axis=1, keepdims=True))
    _, exponent = np.frexp(largest)
    integers = rows * np.ldexp(1.0, _RUN_BITS - exponent)
    return np.rint(integers, out=integers), np.ldexp(1.0, exponent - _RUN_BITS - _MATRIX_BITS)
