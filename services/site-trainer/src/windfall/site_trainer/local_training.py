"""The span of local training: from the first step after a synchronisation to the contribution that tells of it."""

import time

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.telemetry import Attribute, past


class LocalTraining:
    """Steps come one by one between whatever else a session does, so that no block of code is the span."""

    def __init__(self) -> None:
        self._since_ns: int | None = None

    def step(self) -> None:
        """A step begins."""
        if self._since_ns is None:
            self._since_ns = time.time_ns()

    def told(self, manifest: pb.Manifest) -> None:
        """What was trained is about to be told. Nothing, where it was taken up from a trainer before us."""
        if self._since_ns is not None:
            attributes: dict[str, Attribute] = {
                "windfall.round": manifest.key.round,
                "windfall.site": manifest.key.site,
                "windfall.tokens": manifest.tokens,
                "windfall.steps": manifest.steps,
            }
            past("train", self._since_ns, attributes)
        self._since_ns = None

    def begun_anew(self) -> None:
        """Another base is loaded; steps from the last one that were not told never will be."""
        self._since_ns = None
