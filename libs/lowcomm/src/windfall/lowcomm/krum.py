"""Krum and Multi-Krum: the contributions that lie closest to most others (Blanchard et al. 2017, arXiv 1703.02757)."""

from collections.abc import Callable
from typing import Final

import numpy as np

from windfall.lowcomm.distances import Doubles

Choose = Callable[[Doubles], list[int]]
"""From the squared distances of ``n`` contributions, fp64 ``[n, n]``, to which of them count, in ascending order."""

_TELLS: Final = 3
"""Of one or two contributions, no distance says which is a lie."""


def krum(byzantine: float = 1) -> Choose:
    """The one whose n − f − 2 closest others lie closest to it in sum of squared distances; it comes back as it is.

    It is not weighted: a liar may claim any number of tokens. With n ≥ 2·f + 3 sites of which f lie, what is chosen
    lies about as close to the honest mean as an honest site does (proposition 1); a liar may still be chosen, when it
    says nearly what they do. With fewer sites it looks at n − f − 2 others or at the closest one, and nothing is
    promised; one or two are averaged plainly. Of equals the first by site and attempt is chosen.

    Raises:
        ValueError: ``byzantine``, f, is not a whole number from 0 to 2¹⁶.
    """
    liars = _whole(byzantine)

    def choose(distances: Doubles) -> list[int]:
        if len(distances) < _TELLS:
            return list(range(len(distances)))
        return _ranked(distances, liars)[:1]

    return choose


def multi_krum(byzantine: float = 1) -> Choose:
    """The n − f (at least one) that Krum ranks first; they are averaged plainly. Else as ``krum``.

    It moves less by chance than Krum, as a mean does. A liar counts with 1 / (n − f) when it says nearly what the
    others do, and not at all when it lies further away than every honest site.

    Raises:
        ValueError: as ``krum``.
    """
    liars = _whole(byzantine)

    def choose(distances: Doubles) -> list[int]:
        if len(distances) < _TELLS:
            return list(range(len(distances)))
        return sorted(_ranked(distances, liars)[: max(1, len(distances) - liars)])

    return choose


def _ranked(distances: Doubles, liars: int) -> list[int]:
    count = len(distances)
    others = np.sort(distances + np.diag(np.full(count, np.inf)), axis=1)
    closest = others[:, : max(1, count - liars - 2)]
    # One addition after the other, row by row, for a library's own sum may add in any order.
    scores = np.zeros(count)
    for column in closest.T:
        scores += column
    return [int(one) for one in np.argsort(scores, kind="stable")]


def _whole(byzantine: float) -> int:
    if not (0 <= byzantine <= 2**16 and float(byzantine).is_integer()):
        raise ValueError(f"byzantine is a whole number of sites from 0 to 65536, not {byzantine}")
    return int(byzantine)
