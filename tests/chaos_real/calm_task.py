"""A task whose samples come slowly, as from a tape: what is trained on it leaves the processor to others.

A fleet that others stand beside trains it. It is installed as somebody's package would be: found through its entry
point, by whoever runs with this folder on its path.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import nn

from windfall.tasks.gpt_neox import GptNeoxTask, gpt_neox
from windfall.tasks.registry import GROUP
from windfall.tasks.task import Batch
from windfall.tasks.text import TextLoader

NAME: Final = "calm-text"
_BETWEEN_S: Final = 0.1


class Tape(TextLoader):
    """A loader that is waited for."""

    def batch(self, size: int, model: nn.Module) -> Batch:
        time.sleep(_BETWEEN_S)
        return super().batch(size, model)


@dataclass(frozen=True)
class CalmTask(GptNeoxTask):
    """The shipped task for text, but for how fast its samples come."""

    name: str = NAME

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> Tape:
        return Tape(self._corpus(folder), seed, cursor)


def calm(settings: Mapping[str, object]) -> CalmTask:
    return CalmTask(gpt_neox(settings).settings)


def install(folder: Path) -> Path:
    """Lay the package down where PYTHONPATH may name it; gives that folder."""
    known = folder / f"{NAME.replace('-', '_')}-1.dist-info"
    known.mkdir(parents=True, exist_ok=True)
    (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1\n", encoding="utf-8")
    (known / "entry_points.txt").write_text(f"[{GROUP}]\n{NAME} = calm_task:calm\n", encoding="utf-8")
    (folder / "calm_task.py").write_text(Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    return folder
