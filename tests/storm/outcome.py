"""What came of a storm."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from tests.storm import leases
from tests.storm.plan import Storm


@dataclass
class Outcome:
    """What came of a storm."""

    storm: Storm
    kills: Counter[str] = field(default_factory=Counter)
    ends: leases.Ends = field(default_factory=leases.Ends)
    faults: list[str] = field(default_factory=list)
    """What should hold and does not."""
    sentences: int = 0
    """That were given to the bus, copies included."""
    changes: int = 0
    orphans: int = 0
    rewritten: int = 0
    """Changes to objects that were as they should be: writes without a difference, and writes in the quiet."""
    took: timedelta = timedelta(0)
