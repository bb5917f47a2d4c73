"""How a ledger begins, and how it is taken up after a crash: what journal, file and key say together.

The journal is the truth as long as it is there; lines that it holds and the file lacks are appended. Where the file
goes further the journal was lost, and the chain goes on from the file. Anything else does not belong together.
"""

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict

from windfall.energy import book as account
from windfall.energy.book import Book
from windfall.energy.chain import Entry, Genesis, Verified, public_key_of, seal, unseal, verify
from windfall.energy.ledger import Node
from windfall.energy.statement import statement
from windfall.energy_watcher.ledger_file import LedgerFile
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal

log = logging.getLogger(__name__)

BOOK: Final = "ledger"
"""Key of the journaled :class:`Book`."""
LINES: Final = "ledger-lines"
"""Key of the journaled :class:`Lines`."""


class Lines(BaseModel):
    """The last lines of the ledger as they were committed, for a file that a crash left without them."""

    model_config = ConfigDict(frozen=True)

    lines: tuple[str, ...]


def begun(
    journal: Journal, file: LedgerFile, key: Ed25519PrivateKey, site: str, federation: str, since: datetime
) -> Book:
    """The book of a new ledger."""
    genesis = Genesis(site=site, federation=federation, public_key=public_key_of(key), created_at=since)
    sealed = seal(genesis, key)
    book = account.begin(genesis, sealed.hash)
    journal.commit(state={BOOK: book, LINES: Lines(lines=(sealed.line,))})
    file.append([sealed.line])
    return book


def taken_up(journal: Journal, file: LedgerFile, key: Ed25519PrivateKey) -> Book | None:
    """The book where the last process left it, and the file with every line; none when there never was one.

    Raises:
        Mistake: journal, file and key do not belong together.
    """
    public_key = public_key_of(key)
    book, last = journal.load(BOOK, Book), file.last()
    if book is None and last is None:
        return None
    written = -1 if last is None else _sequence(file, last, public_key)
    if book is None or written > book.sequence:
        return _from_the_file(file, public_key)
    kept = (journal.load(LINES, Lines) or Lines(lines=())).lines
    lacking = book.sequence - written
    missing: Sequence[str] = kept[len(kept) - lacking :] if lacking else ()
    newest = missing[-1] if missing else last
    if len(missing) != lacking or newest is None or unseal(newest, public_key).hash != book.head:
        raise _estranged(file, "it does not end where the journal does")
    if missing:
        log.warning("%d entries of %s had not reached %s: they do now", lacking, book.site, file.path)
        file.append(missing)
    return book


def _from_the_file(file: LedgerFile, public_key: str) -> Book:
    found = verify(file.lines(), public_key)
    if not isinstance(found, Verified):
        raise _estranged(file, f"it is broken at {found}")
    log.warning("the journal of %s lacks its ledger: it is taken up from %s", found.genesis.site, file.path)
    last = found.entries[-1] if found.entries else None
    return Book(
        site=found.genesis.site,
        since=last.end if last else found.genesis.created_at,
        head=found.head,
        sequence=len(found.entries),
        # What the node did last, until the next event says better.
        node=Node(last.state, window_id=last.window_id, serves=last.window_id) if last else Node(),
        statement=statement(found.entries),
    )


def _sequence(file: LedgerFile, line: str, public_key: str) -> int:
    try:
        record = unseal(line, public_key).record
    except ValueError as error:
        raise _estranged(file, f"of its last line, {error}") from error
    return record.sequence if isinstance(record, Entry) else 0


def _estranged(file: LedgerFile, why: str) -> Mistake:
    return Mistake(
        f"the ledger {file.path} cannot be gone on with: {why}",
        "Restore the whole state folder from one backup, or move ledger, key and journal away to begin a new one",
        ExitCode.RESOURCE,
    )
