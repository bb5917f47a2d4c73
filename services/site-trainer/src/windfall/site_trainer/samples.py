"""What an engine trains on: the site's own data from a cursor on, or the rows of a shared corpus that it is given."""

from pathlib import Path

from windfall.tasks.ranges import NONE, Ranges, minus
from windfall.tasks.rows import RowLoader
from windfall.tasks.task import Loader, Task


class Samples:
    """Opens the loader that the next step draws from.

    Args:
        folder: the site's own data.
        rows: the site's copy of a shared corpus; none for its own data.

    Raises:
        DataError: the folder holds nothing to train on.
    """

    def __init__(self, task: Task, folder: Path, seed: int, rows: RowLoader | None) -> None:
        self._task, self._folder, self._seed = task, folder, seed
        self._rows, self._given = rows, NONE
        self.open(0)

    def open(self, cursor: int) -> None:
        """Go on at this sample: of the site's own data, or of the rows that were given."""
        self.loader: Loader
        if self._rows is None:
            self.loader = self._task.loader(self._folder, self._seed, cursor)
        else:
            self.loader = self._rows.over(minus(self._given, ((0, cursor),)))

    def give(self, rows: Ranges) -> None:
        """The next step is on these rows.

        Raises:
            RuntimeError: there is no shared corpus.
        """
        if self._rows is None:
            raise RuntimeError("there is no shared corpus")
        self._given = rows
        self.open(0)

    @property
    def drawn(self) -> int:
        """Samples of the site's own data that were drawn so far."""
        return self.loader.cursor if self._rows is None else 0
