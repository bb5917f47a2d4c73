"""Every parser that reads the network or a file."""

from typing import Final

from tests.fuzz.target import Target
from tests.fuzz.targets import bus, checkpoints, energy, enrolment, files, kubernetes, providers, tensors, training

TARGETS: Final[tuple[Target, ...]] = (
    *bus.TARGETS,
    *training.TARGETS,
    *tensors.TARGETS,
    *checkpoints.TARGETS,
    *energy.TARGETS,
    *providers.TARGETS,
    *files.TARGETS,
    *kubernetes.TARGETS,
    *enrolment.TARGETS,
)
