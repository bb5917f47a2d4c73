"""A service's own memory: its state, what it has heard, and what it has still to say, in one SQLite file.

Write-ahead log with ``synchronous=FULL``: when :meth:`Journal.commit` returns, a power cut keeps it. State, outbox and
inbox change in one transaction, so that a crash leaves all of a decision or none. Everything ever said stays in the
outbox table: a bus that lost its store can be told again.
"""

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from windfall.contracts.envelope import Letter, seal
from windfall.contracts.message import Message
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake, deposed
from windfall.servicekit.telemetry import outgoing_trace
from windfall.servicekit.told import measure

V = TypeVar("V", bound=BaseModel)

_ROOM_BYTES = 64 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outbox (
    position INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    subject TEXT NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    said INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS unsaid ON outbox (position) WHERE said = 0;
CREATE TABLE IF NOT EXISTS fence (one INTEGER PRIMARY KEY CHECK (one = 1), token INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class Unsaid:
    """A letter that waits in the outbox."""

    position: int
    letter: Letter


class Journal:
    """One service's journal. Calls are synchronous: a commit is one small fsync.

    Args:
        path: the file; its folder is created. ``None`` keeps the journal in memory (a double for virtual-time fleets).
        source: CloudEvents source of what is said from here, like ``/windfall/energy-watcher/site-a``.
        shared: other processes may open the file too, on this machine or another. It then has a rollback journal
            (``journal_mode=DELETE``), because a write-ahead log needs memory that all of them share.

    Raises:
        Mistake: the folder cannot be written, the file is not a journal, or the disk is full.
    """

    def __init__(self, path: Path | None, source: str, *, shared: bool = False) -> None:
        self._source = source
        self._shared = shared
        self._token: int | None = None
        self._path = path
        self._name = str(path) if path else "memory"
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
        except OSError as error:
            raise Mistake(
                f"cannot write the folder of {self._name} ({error.strerror})",
                "Set WINDFALL_STATE_DIR to a folder that this user may write",
                ExitCode.RESOURCE,
            ) from error
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error
        try:
            self._prepare(path)
        except Mistake:
            self._db.close()
            raise

    def load(self, key: str, kind: type[V]) -> V | None:
        """The state last committed under a key; none when there never was one.

        Raises:
            Mistake: what stands there is not of this kind (written by another version, or damaged).
        """
        rows = self._read("SELECT value FROM state WHERE key = ?", key)
        if not rows:
            return None
        try:
            return kind.model_validate_json(rows[0][0])
        except ValidationError as error:
            raise Mistake(
                f"the journal {self._name} holds a {key!r} that this version cannot read",
                "Run the version that wrote it, or move the journal away to start afresh",
                ExitCode.RESOURCE,
            ) from error

    def commit(
        self,
        *,
        state: Mapping[str, BaseModel] | None = None,
        say: Sequence[Message] = (),
        heard: UUID | None = None,
    ) -> None:
        """Keep a decision: new state, what follows to be said, and the message that was its cause. All or nothing.

        A sentence whose id is in the outbox already is not said again. The current span's trace context goes along.

        Raises:
            Mistake: the disk is full or the file is damaged; nothing was kept.
        """
        trace = outgoing_trace()
        letters = [seal(message, self._source, trace) for message in say]
        with self._transaction():
            for key, value in (state or {}).items():
                self._db.execute(
                    "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    (key, value.model_dump_json()),
                )
            new = [message for message, letter in zip(say, letters, strict=True) if self._lay_out(letter)]
            if heard is not None:
                self._db.execute("INSERT OR IGNORE INTO inbox VALUES (?)", (str(heard),))
            reach("journal.written")
        reach("journal.committed")
        for message in new:
            measure(message)

    def _lay_out(self, letter: Letter) -> bool:
        """Put a letter into the outbox; false when it lies there already."""
        row = (letter.id, letter.subject, json.dumps(dict(letter.headers)), letter.body)
        laid = self._db.execute("INSERT OR IGNORE INTO outbox (id, subject, headers, body) VALUES (?, ?, ?, ?)", row)
        return laid.rowcount == 1

    def heard(self, message_id: UUID) -> bool:
        """Whether a message was already the cause of a commit."""
        return bool(self._read("SELECT 1 FROM inbox WHERE id = ?", str(message_id)))

    def unsaid(self, limit: int = 100) -> tuple[Unsaid, ...]:
        """What is still to be said, oldest first.

        Raises:
            Mistake: the file is damaged.
        """
        rows = self._read(
            "SELECT position, subject, headers, body FROM outbox WHERE said = 0 ORDER BY position LIMIT ?", limit
        )
        return tuple(
            Unsaid(position, Letter(subject, self._headers(text), body)) for position, subject, text, body in rows
        )

    def _headers(self, text: str) -> dict[str, str]:
        try:
            found = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise self._explained(sqlite3.DatabaseError("a sentence in its outbox is damaged")) from error
        if not isinstance(found, dict):
            raise self._explained(sqlite3.DatabaseError("a sentence in its outbox is damaged"))
        return {str(name): str(value) for name, value in found.items()}

    def count_unsaid(self) -> int:
        """How many sentences are still to be said."""
        return int(self._read("SELECT count(*) FROM outbox WHERE said = 0")[0][0])

    def mark_said(self, positions: Sequence[int]) -> None:
        """The bus has acknowledged these. A power cut may forget it: they are said again then, under ids that listeners
        know, and so it need not wait for the disk."""
        with self._without_waiting(), self._transaction():
            self._db.executemany("UPDATE outbox SET said = 1 WHERE position = ?", [(place,) for place in positions])

    def unsay_all(self) -> int:
        """Say everything again: the bus lost its store. Listeners know the ids and take each once.

        Returns:
            The position of the last that had been said; 0 when nothing had.
        """
        with self._transaction():
            last = int(self._read("SELECT coalesce(max(position), 0) FROM outbox WHERE said = 1")[0][0])
            self._db.execute("UPDATE outbox SET said = 0")
        return last

    @property
    def fenced_at(self) -> int:
        """The highest token that any process has worked under; 0 when none ever had one."""
        rows = self._read("SELECT token FROM fence")
        return int(rows[0][0]) if rows else 0

    def fence(self, token: int) -> None:
        """Work under this token from now on, and let nobody commit who works under a lower one.

        Raises:
            Mistake: another process works under this token or a higher one.
        """
        with self._transaction():
            if token <= self.fenced_at:
                raise deposed()
            self._db.execute("INSERT OR REPLACE INTO fence VALUES (1, ?)", (token,))
        self._token = token

    def trouble(self) -> str:
        """Why the next decision could not be kept, seen from outside; empty when nothing speaks against it. Another
        thread may ask while this one writes."""
        if self._path is None:
            return ""
        if not self._path.exists():
            return f"the journal {self._path} is gone"
        if not os.access(self._path, os.W_OK):
            return f"the journal {self._path} cannot be written"
        return f"the disk under {self._path} is full" if self._no_room() else ""

    def close(self) -> None:
        """Release the file. Uncommitted work does not exist, so nothing is lost."""
        self._db.close()

    def _prepare(self, path: Path | None) -> None:
        try:
            if path is not None:
                self._db.execute(f"PRAGMA journal_mode={'DELETE' if self._shared else 'WAL'}")
            # Without a write-ahead log, full durability takes the folder's fsync as well.
            self._db.execute(f"PRAGMA synchronous={'EXTRA' if self._shared else 'FULL'}")
            self._db.executescript(_SCHEMA)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise self._explained(error) from error
        # A damaged file must not be found out in the middle of a decision.
        ((verdict,),) = self._read("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise self._explained(sqlite3.DatabaseError(verdict.splitlines()[0]))

    def _read(self, query: str, *values: str | int) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            # UnicodeDecodeError: SQLite's own words about a damaged file quote it.
            raise self._explained(error) from error

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            # Within the transaction: whoever slept through its lease finds out before anything is kept.
            if self._token is not None and self.fenced_at != self._token:
                raise deposed()
            yield
            self._db.execute("COMMIT")
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            self._undo()
            raise self._explained(error) from error
        except BaseException:
            self._undo()
            raise

    @contextmanager
    def _without_waiting(self) -> Iterator[None]:
        """What is committed here reaches the disk with the next commit. A rollback journal has no such order, and
        memory no disk."""
        if self._shared or self._path is None:
            yield
            return
        self._read("PRAGMA synchronous=NORMAL")
        try:
            yield
        finally:
            self._read("PRAGMA synchronous=FULL")

    def _undo(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _no_room(self) -> bool:
        return self._path is not None and shutil.disk_usage(self._path.parent).free < _ROOM_BYTES

    def _explained(self, error: sqlite3.DatabaseError | UnicodeDecodeError) -> Mistake:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        # Without room for its shared memory SQLite speaks of an I/O error.
        if code == sqlite3.SQLITE_FULL or (code & 0xFF == sqlite3.SQLITE_IOERR and self._no_room()):
            return Mistake(
                f"the disk under {self._name} is full; the last decision was not kept and will be taken again",
                "Free space and start again",
                ExitCode.DISK_FULL,
            )
        return Mistake(
            f"the journal {self._name} cannot be used ({error})",
            "Check the disk; move the file away to start afresh: the bus still holds what was said",
            ExitCode.RESOURCE,
        )
