"""What time does to a contribution, and what a site still has to say when it comes back.

A contribution names the base that it started from. One that arrives τ rounds late points from where the model no
longer is: it weighs e^(−τ/2) of its tokens, and one more than four rounds late is refused.

A site that leaves forgets its error feedback, and one that rejoins starts without: the unsent rest belongs to a model
that has moved on. Keeping it cost 0.02 nats under churn in our measurements, and sending it whole 0.65. Its inner
optimizer's state stays, on its own disk. It takes the newest model as a snapshot, or, when that is shorter, replays
the outer log on the base that it still holds (``windfall.lowcomm.outerlog``); both give the same bits.
"""

from dataclasses import dataclass
from typing import Final

from windfall.lowcomm.compressor import Compressor, State

FACTORS: Final = (1.0, 0.6065306597126334, 0.36787944117144233, 0.22313016014842982, 0.1353352832366127)
"""e^(−τ/2) by rounds late. Written out, because libraries differ in the last bit of an exponential, and whoever takes
the outer step must find the same weight."""

MOST_ROUNDS_LATE: Final = len(FACTORS) - 1


def weight(tokens: float, rounds_late: int) -> float:
    """What a contribution weighs in the mean, in tokens.

    Args:
        rounds_late: the round that runs, less the round whose base it started from.

    Raises:
        ValueError: it is more than ``MOST_ROUNDS_LATE`` late, starts from a base to come, or has no tokens.
    """
    if not tokens > 0:
        raise ValueError(f"a contribution weighs a positive number of tokens, not {tokens}")
    if rounds_late < 0:
        raise ValueError(f"a contribution starts from a base that is {-rounds_late} rounds ahead")
    if rounds_late > MOST_ROUNDS_LATE:
        raise ValueError(f"a contribution is {rounds_late} rounds late; at most {MOST_ROUNDS_LATE} are taken")
    return tokens * FACTORS[rounds_late]


@dataclass(frozen=True, eq=False)
class Site:
    """What a site holds that it has not said, and the membership to which that belongs. Joining again, after a leave
    or a crash, makes another membership: another attempt."""

    federation: str
    attempt: int
    unsaid: State


def unsaid(held: Site | None, federation: str, attempt: int, codec: Compressor, elements: int) -> State:
    """The compressor's state to go on with: the one held when it belongs to this membership and has the shape of this
    model, else that of a site that has just joined.

    Args:
        held: from before, across a restart of the process, say; none when there is nothing.
        elements: that the codec sees: ``Split.trained``.
    """
    if held is None or (held.federation, held.attempt) != (federation, attempt):
        return codec.init(elements)
    fits = len(held.unsaid) == codec.slots and all(vector.numel() == elements for vector in held.unsaid)
    return held.unsaid if fits else codec.init(elements)
