"""The state folder of one member, and what the disk says as what a person can mend."""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from windfall.lowcomm.layout import Layout, restore
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.site_trainer.collective import holding as holdings
from windfall.site_trainer.collective.holding import Holding
from windfall.site_trainer.tensor_file import Unusable, write_whole

BOUNDARY: Final = "boundary.safetensors"
"""What the member has at the last boundary."""
CHECKPOINT: Final = "checkpoint.safetensors"
"""The engine's: local steps since that boundary, the inner optimizer's state and the data's cursor."""
MODEL: Final = "model.safetensors"
"""The final model, the same file at every member."""


class Folder:
    """A folder that is created when missing, and that this process holds alone for as long as it lives.

    Args:
        owner: of what run the files are; another's are refused.

    Raises:
        Mistake: another member works there, or the disk does not let us. So does every method.
    """

    def __init__(self, path: Path, owner: Mapping[str, str]) -> None:
        self._path, self._owner = path, owner
        with _explained(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Mistake(
                    f"another member works in {path}", "Give each a --state-dir of its own", ExitCode.RESOURCE
                ) from error

    @property
    def checkpoint(self) -> Path:
        return self._path / CHECKPOINT

    def load(self) -> Holding | None:
        """What the member had at its last boundary; none before the first."""
        path = self._path / BOUNDARY
        try:
            with _explained(path):
                return holdings.load(path, self._owner)
        except Unusable as error:
            raise Mistake(
                f"cannot go on from {path}: {error}",
                "Move it away to follow the other members, or to start afresh alone",
                ExitCode.RESOURCE,
            ) from error

    def save(self, holding: Holding) -> None:
        with _explained(self._path):
            holdings.save(holding, self._path / BOUNDARY, self._owner)

    def save_checkpoint(self, save: Callable[[Path], None]) -> None:
        with _explained(self._path):
            save(self.checkpoint)

    def export(self, holding: Holding, layout: Layout) -> Path:
        """Write the model in its own dtypes. Of tied names, the one that travels stands for all."""
        path = self._path / MODEL
        state = restore(holding.base, layout)
        # One entry: the format keeps several in no order, and the file is to be the same at every member.
        about = json.dumps({"round": holding.round, "tokens": holding.tokens, "digest": holding.model_digest})
        with _explained(path):
            write_whole(path, {spec.name: state[spec.name] for spec in layout.tensors}, {"about": about})
        return path


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Mistake(
            f"cannot use {error.filename or path} ({error.strerror})",
            "Free space, or make it readable and writable, and start again",
            ExitCode.RESOURCE,
        ) from error
