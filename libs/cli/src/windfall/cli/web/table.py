"""Rows of the page by name, which remember what has changed since they were last asked."""

from collections.abc import Mapping

from windfall.cli.resources.resource import Row, record


class Table(dict[str, Row]):
    """Rows of one kind; a fold writes into it as into any dictionary.

    Args:
        most: rows that are kept; the oldest go first. None: all.
    """

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self._most = most
        self._touched: dict[str, None] = {}

    def __setitem__(self, name: str, row: Row) -> None:
        if self.get(name) != row:
            self._touched[name] = None
            super().__setitem__(name, row)
            while self._most is not None and len(self) > self._most:
                self.drop(next(iter(self)))

    def drop(self, name: str) -> None:
        """Forget a row; one that there is not is no matter."""
        if name in self:
            self._touched[name] = None
            del self[name]

    def taken(self) -> Mapping[str, object]:
        """What has changed: a record, or none where the row is gone."""
        changed = {name: short(self[name]) if name in self else None for name in self._touched}
        self._touched.clear()
        return changed

    def records(self) -> Mapping[str, object]:
        """Every row."""
        return {name: short(row) for name, row in self.items()}


def short(row: Row) -> Mapping[str, object]:
    """A record without what is not known: a thousand sites are told at once."""
    return {name: value for name, value in record(row).items() if value not in (None, "", [])}
