"""How many bytes have crossed between sites and hub since this process began, by direction and by codec."""

from collections import Counter
from typing import Final, Literal

from opentelemetry.metrics import MeterProvider

from windfall.servicekit import metrics
from windfall.servicekit.instruments import TRANSFERRED

IN_FULL: Final = "fp32"
"""The codec of a model that goes down in full."""

Direction = Literal["up", "down"]


class Transferred:
    """Of one federation. Up counts what was accepted, down what was sent."""

    def __init__(self, federation: str) -> None:
        self._federation = federation
        self._sums: Counter[tuple[Direction, str]] = Counter()

    def add(self, direction: Direction, codec: str, nbytes: int) -> None:
        self._sums[direction, codec] += nbytes

    def show(self, source: MeterProvider | None = None) -> None:
        """Let metrics be collected of it, where ``source`` or the process's own settings say."""
        metrics.observe(TRANSFERRED, self.read, source)

    def read(self) -> list[tuple[float, metrics.Attributes]]:
        """Each sum in bytes, with its attributes. Another thread may ask while this one counts."""
        return [
            (
                nbytes,
                {"windfall.federation": self._federation, "windfall.direction": direction, "windfall.codec": codec},
            )
            for (direction, codec), nbytes in list(self._sums.items())
        ]
