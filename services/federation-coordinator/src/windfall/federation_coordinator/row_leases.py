"""The ledger of a shared corpus in the live federation: who asks gets rows, who brings them is held against it.

What follows from rounds and memberships lies in the journal with the decision that it follows from, so that a crash
leaves both or neither.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel

from windfall.contracts.message import Message
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.corpus import MOST_RANGES, Corpus, heard, release, take
from windfall.federation_coordinator.federation import Federation, Member
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal
from windfall.tasks.ranges import NONE, Ranges, common, minus, size, sound

if TYPE_CHECKING:
    from windfall.tasks.task import Task

_STATE: Final = "corpus"
_MOST_BLOCK: Final = 1024


class RowLeases:
    """One federation's shared corpus; or none, where every site trains its own data.

    Args:
        journal: of the coordinator.
        corpus: where its rows stand.
        block: rows that are leased at least; none follows the corpus.
    """

    def __init__(self, journal: Journal | None = None, corpus: Corpus | None = None, block: int | None = None) -> None:
        self._journal = journal
        self.corpus = corpus
        self._block = block

    @property
    def terms(self) -> pb.Corpus | None:
        """What a site is told when it joins."""
        return None if self.corpus is None else pb.Corpus(rows=self.corpus.rows, seed=self.corpus.seed)

    @property
    def rule(self) -> str:
        """Whose rows are trained, as part of the rule that members know: when it changes, they join anew."""
        return "" if self.corpus is None else f" on {self.corpus.rows} shared rows, seed {self.corpus.seed}"

    def lease(self, request: pb.RowsRequest, members: Mapping[str, Member]) -> Ranges:
        """All that a member holds, after it got what it asked for.

        Raises:
            Refusal: it is no member, holds an older lease, or there is no shared corpus.
        """
        if self.corpus is None or self._journal is None:
            raise Refusal("rows", "every site trains its own data here")
        member = members.get(request.site)
        if member is None or member.attempt != request.attempt:
            raise Refusal("member", f"{request.site[:60]!r} is not a member under attempt {request.attempt}")
        if request.lease_token != member.lease_token:
            raise Refusal("lease", f"lease {request.lease_token} is not the member's {member.lease_token}")
        block = self._block or min(_MOST_BLOCK, max(1, self.corpus.rows // 256))
        after = take(self.corpus, request.site, request.hold, block)
        if after != self.corpus:
            self._journal.commit(state={_STATE: after})
            self.corpus = after
        return after.held.get(request.site, NONE)

    def check(self, manifest: pb.Manifest) -> None:
        """Hold a manifest against what its site holds.

        Raises:
            Refusal: it names rows that the site does not hold, or none where rows are shared, or some where they are
                not.
        """
        named = ranges_of(manifest.rows)
        if self.corpus is None:
            if named:
                raise Refusal("rows", "it names rows, but every site trains its own data")
            return
        if not named:
            raise Refusal("rows", "it names no rows, but the corpus is shared")
        if len(named) > MOST_RANGES or not sound(named):
            raise Refusal("rows", f"its {len(named)} ranges are not in order and apart, or above {MOST_RANGES}")
        if strange := minus(named, self.corpus.held.get(manifest.key.site, NONE)):
            raise Refusal("rows", f"{size(strange)} of its {size(named)} rows are not the site's, from {strange[0][0]}")
        if size(named) < manifest.steps + manifest.skipped:
            raise Refusal("rows", f"{manifest.steps + manifest.skipped} steps cannot have seen {size(named)} rows")

    def returning(self, manifest: pb.Manifest, members: Mapping[str, Member]) -> Ranges:
        """Which rows of a refused contribution go back to the pool: what its site holds of them, when it is the
        member's own."""
        member, named = members.get(manifest.key.site), ranges_of(manifest.rows)
        said = manifest.key.attempt, manifest.lease_token
        own = member is not None and (member.attempt, member.lease_token) == said
        if self.corpus is None or not own or len(named) > MOST_RANGES or not sound(named):
            return NONE
        return common(named, self.corpus.held.get(manifest.key.site, NONE))[:MOST_RANGES]

    def overhear(self, said: Sequence[Message]) -> tuple[dict[str, BaseModel], tuple[Message, ...]]:
        """What follows from a decision: the state to commit with it, and what is to be said with it."""
        if self.corpus is None:
            return {}, ()
        corpus, follows = self.corpus, list[Message]()
        for message in said:
            corpus, completed = heard(corpus, message)
            follows.extend(completed)
        if corpus == self.corpus:
            return {}, ()
        self.corpus = corpus
        return {_STATE: corpus}, tuple(follows)


def shared(
    journal: Journal, task: "Task", folder: Path | None, rows: int | None, seed: int, block: int | None
) -> RowLeases:
    """Leases of the task's rows: of those that lie in the folder, or of so many as are told.

    Raises:
        Mistake: the task's data cannot be shared, the folder holds none, or the journal knows another corpus.
    """
    # It needs torch, which a coordinator without a shared corpus does not wait for.
    from windfall.tasks.rows import sharing

    try:
        source = sharing(task)
        count = source.rows(folder, seed).rows if folder is not None else rows or 0
    except ValueError as error:
        raise Mistake(f"no corpus to share: {error}", "Mend WINDFALL_CORPUS_DIR or WINDFALL_TASK") from error
    return RowLeases(journal, opened(journal, count, seed), block)


def opened(journal: Journal, rows: int, seed: int) -> Corpus:
    """Where the rows of a corpus stand: as journaled, or none leased yet.

    Raises:
        Mistake: the journal knows another corpus.
    """
    corpus = journal.load(_STATE, Corpus)
    if corpus is None:
        return Corpus(rows=rows, seed=seed)
    if corpus.rows != rows:
        raise Mistake(
            f"the corpus has {rows} rows, and had {corpus.rows} when its first row was leased",
            "Bring back the corpus as it was, or set WINDFALL_STATE_DIR to another folder to start afresh",
            ExitCode.RESOURCE,
        )
    # While sites trained their own data nobody followed who came and went.
    federation = journal.load("federation", Federation)
    for site in set(corpus.held) - set(federation.members if federation is not None else ()):
        corpus = release(corpus, site, hoped_for=True)
    return corpus


def ranges_of(rows: Iterable[pb.RowRange]) -> Ranges:
    """As they came: perhaps not sound."""
    return tuple((one.begin, one.end) for one in rows)
