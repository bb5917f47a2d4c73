"""Which images there are, and which of our packages each one holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Image:
    """One image."""

    name: str
    folder: str
    """Where its Dockerfile lies, from the repository's root."""
    packages: tuple[str, ...] = ()
    """Distributions of ours that it starts, with their extras; what they need comes along."""
    torch: bool = False
    """Whether it stands on a base that has torch."""
    kind: Literal["service", "command", "base"] = "service"

    @property
    def dockerfile(self) -> Path:
        return ROOT / self.folder / "Dockerfile"


TORCH: Final = Image("torch", "deploy/images/torch", kind="base")
"""torch on Python, for who names no base that has it."""

IMAGES: Final[Sequence[Image]] = (
    Image("energy-watcher", "services/energy-watcher", ("windfall-energy-watcher[nvml]",)),
    Image("provisioner", "services/provisioner", ("windfall-provisioner",)),
    Image("profiler", "services/profiler", ("windfall-profiler[nvml]",)),
    Image(
        "federation-coordinator", "services/federation-coordinator", ("windfall-federation-coordinator",), torch=True
    ),
    Image("site-trainer", "services/site-trainer", ("windfall-site-trainer",), torch=True),
    Image(
        "site-node",
        "deploy/images/site-node",
        ("windfall-provisioner", "windfall-profiler[nvml,task]", "windfall-site-trainer"),
        torch=True,
    ),
    Image("windfall", "libs/cli", ("windfall-cli",), kind="command"),
)

TORCH_NEEDS: Final = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy", "typing-extensions")
"""What torch imports from others, by its own metadata; the lock pins them."""
