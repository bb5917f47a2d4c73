"""How far contributions lie from each other, to the same bits on every machine, in one walk through them.

Per run of 2¹⁶ elements every contribution is scaled to whole numbers of 18 bits (by a power of two, so that its largest
element uses all of them). Their products and any sum of 2¹⁶ of these stay below 2⁵³, where float64 counts without
rounding: a matrix product gives the same bits in whatever order a processor adds. Inner products err by at most
2⁻¹⁷ of (largest element · 2⁸)² per run; a distance is what they say: |a|² + |b|² − 2·a·b.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.bands import RUN
from windfall.lowcomm.sparse import Contribution, Sparse

Doubles = npt.NDArray[np.float64]

_BITS: Final = 18


def inner_products(contributions: Sequence[Contribution]) -> Iterator[Doubles]:
    """Of every pair, fp64 ``[n, n]``, run by run. What was not sent is zero here: that is how it moves the model.

    Args:
        contributions: of one length; all sparse in one basis (orthonormal, so that it changes no distance) or all
            fp32 vectors. A stretch that begins at a multiple of 2¹⁶ elements gives the whole's runs.
    """
    elements = _elements(contributions[0])
    for begin in range(0, elements, RUN):
        rows = np.zeros((len(contributions), min(RUN, elements - begin)))
        for row, one in zip(rows, contributions, strict=True):
            _fill(row, one, begin)
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        _, exponent = np.frexp(largest)
        rows *= np.ldexp(1.0, _BITS - exponent)[:, None]
        np.rint(rows, out=rows)
        unit = np.ldexp(1.0, exponent - _BITS)
        yield rows @ rows.T * unit * unit[:, None]


def squared_distances(products: Iterable[Doubles]) -> Doubles:
    """Of every pair, fp64 ``[n, n]``, from the inner products of every run, in the order of the runs."""
    total: Doubles = np.zeros((0, 0))
    for one in products:
        total = total + one if len(total) else one
    sizes = np.diagonal(total)
    return np.maximum(sizes[:, None] + sizes[None, :] - 2 * total, 0)


def _elements(one: Contribution) -> int:
    return one.elements if isinstance(one, Sparse) else one.numel()


def _fill(row: Doubles, one: Contribution, begin: int) -> None:
    if isinstance(one, Sparse):
        first, last = np.searchsorted(one.positions, (begin, begin + len(row)))
        row[one.positions[first:last] - begin] = one.values[first:last]
    else:
        row[:] = one.detach().numpy()[begin : begin + len(row)]
