"""Another process's journal, looked at and not touched."""

import sqlite3
from contextlib import closing
from pathlib import Path

from windfall.servicekit.errors import ExitCode, Mistake


def kept(path: Path, prefix: str) -> tuple[str, ...]:
    """The state under every key that begins so, in the order of the keys, as JSON. Its service may run meanwhile.

    Raises:
        Mistake: the file is not there, or is no journal.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as journal:
            # Beyond every key that begins so.
            until = prefix[:-1] + chr(ord(prefix[-1]) + 1)
            query = "SELECT value FROM state WHERE key >= ? AND key < ? ORDER BY key"
            return tuple(row[0] for row in journal.execute(query, (prefix, until)))
    except sqlite3.DatabaseError as error:
        raise Mistake(
            f"cannot read the journal {path} ({error})",
            "Name the folder of a service, as WINDFALL_STATE_DIR has it, and read it as a user who may",
            ExitCode.RESOURCE,
        ) from error
