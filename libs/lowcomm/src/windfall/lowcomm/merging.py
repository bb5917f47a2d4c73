"""How what many sites say becomes one, as a setting: ``mean``, ``rda``, or a rule that a liar cannot move at will."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from windfall.lowcomm.columns import Pick
from windfall.lowcomm.krum import Choose, krum, multi_krum
from windfall.lowcomm.median import median
from windfall.lowcomm.setting import parse_named
from windfall.lowcomm.trimmed import trimmed_mean


@dataclass(frozen=True)
class Merging:
    """One merge with its settings. Without ``pick`` and ``choose`` contributions are averaged and each weighs its
    tokens; with one of them none weighs more than another.

    Every part of a model is merged by itself: what a liar says of the counters is judged by the counters.
    """

    name: str
    pick: Pick | None = None
    """Looks at each coordinate alone."""
    choose: Choose | None = None
    """Looks at whole contributions; those that count are averaged."""

    @property
    def robust(self) -> bool:
        """Whether contributions count alike, whatever was trained for them."""
        return self.pick is not None or self.choose is not None

    @property
    def radial(self) -> bool:
        """Trained tensors are merged by length and direction (``windfall.lowcomm.rda``)."""
        return self.name == "rda"


MERGES: Final[dict[str, Callable[..., Merging]]] = {
    "mean": lambda: Merging("mean"),
    "rda": lambda: Merging("rda"),
    "median": lambda: Merging("median", pick=median),
    "trimmed-mean": lambda share=0.2: Merging("trimmed-mean", pick=trimmed_mean(share)),
    "krum": lambda byzantine=1.0: Merging("krum", choose=krum(byzantine)),
    "multi-krum": lambda byzantine=1.0: Merging("multi-krum", choose=multi_krum(byzantine)),
}
"""Every merge by the name under which a setting asks for it."""


def parse_merging(text: str) -> Merging:
    """Read a setting like ``median`` or ``trimmed-mean:share=0.2``; what is left out has its default.

    Raises:
        ValueError: unknown merge or setting, or a value that is no number or out of range.
    """
    return parse_named("merge", text, MERGES)
