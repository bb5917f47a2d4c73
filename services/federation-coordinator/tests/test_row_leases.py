"""The ledger of rows beside the rounds: who may have them, and what of a contribution is held against it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from windfall.contracts.events import ContributionAccepted, ContributionRefused, EpochCompleted, SiteJoined, SiteLeft
from windfall.contracts.message import Message
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.corpus import MOST_RANGES, Corpus, take
from windfall.federation_coordinator.federation import Federation, Member
from windfall.federation_coordinator.row_leases import RowLeases, opened, shared
from windfall.federation_coordinator.settings import CoordinatorSettings
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.tasks.ranges import Ranges
from windfall.tasks.registry import load_task

AT = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = UUID(int=7)
MEMBERS = {
    site: Member(site=site, attempt=2, lease_token=5, window_id=WINDOW, since=0) for site in ("site-a", "site-b")
}


@pytest.fixture
def journal() -> Journal:
    return Journal(None, "/windfall/test")


@pytest.fixture
def leases(journal: Journal) -> RowLeases:
    return RowLeases(journal, Corpus(rows=20, seed=0), block=10)


def asks(site: str = "site-a", attempt: int = 2, lease_token: int = 5, hold: int = 1) -> pb.RowsRequest:
    return pb.RowsRequest(federation="f", site=site, attempt=attempt, lease_token=lease_token, hold=hold)


def brings(
    *ranges: tuple[int, int], site: str = "site-a", attempt: int = 2, steps: int = 1, lease_token: int = 5
) -> pb.Manifest:
    key = pb.ContributionKey(federation="f", site=site, round=0, attempt=attempt)
    rows = [pb.RowRange(begin=begin, end=end) for begin, end in ranges]
    return pb.Manifest(key=key, rows=rows, steps=steps, lease_token=lease_token)


def joined(site: str) -> SiteJoined:
    return SiteJoined(id=WINDOW, at=AT, site=site, federation="f", window_id=WINDOW, lease_token=5, attempt=2, round=0)


def left(site: str) -> SiteLeft:
    return SiteLeft(id=WINDOW, at=AT, site=site, federation="f", attempt=2, reason="silent")


def counts(site: str, rows: Ranges) -> ContributionAccepted:
    return ContributionAccepted(
        id=WINDOW,
        at=AT,
        site=site,
        federation="f",
        round=3,
        attempt=2,
        tokens=1,
        steps=1,
        loss_nats=1,
        bytes_up=1,
        partial=False,
        rows=rows,
    )


def refused(site: str, rows: Ranges) -> ContributionRefused:
    return ContributionRefused(
        id=WINDOW, at=AT, site=site, federation="f", round=3, attempt=2, reason="rows", detail="", rows=rows
    )


def test_a_lease_is_on_disk_when_the_site_hears_of_it(journal: Journal, leases: RowLeases) -> None:
    assert leases.lease(asks(), MEMBERS) == ((0, 10),)
    journal.commit(state={"federation": Federation(name="f", base_digest="0" * 64, members=MEMBERS)})
    assert opened(journal, 20, 0) == leases.corpus


@pytest.mark.parametrize(
    ("request_", "reason"),
    [(asks(site="site-x"), "member"), (asks(attempt=1), "member"), (asks(lease_token=4), "lease")],
)
def test_only_a_member_gets_rows(leases: RowLeases, request_: pb.RowsRequest, reason: str) -> None:
    with pytest.raises(Refusal) as refusal:
        leases.lease(request_, MEMBERS)
    assert refusal.value.reason == reason
    assert leases.corpus == Corpus(rows=20, seed=0)


def test_where_sites_train_their_own_data_there_are_no_rows() -> None:
    sovereign = RowLeases()
    assert sovereign.terms is None
    assert sovereign.rule == ""
    assert sovereign.overhear([joined("site-a"), counts("site-a", ())]) == ({}, ())
    sovereign.check(brings())
    with pytest.raises(Refusal, match="every site trains its own data"):
        sovereign.check(brings((0, 1)))
    with pytest.raises(Refusal, match="every site trains its own data"):
        sovereign.lease(asks(), MEMBERS)


@pytest.mark.parametrize(
    ("manifest", "detail"),
    [
        (brings(), "names no rows"),
        (brings((4, 2)), "not in order and apart"),
        (brings((0, 2), (2, 4)), "not in order and apart"),
        (brings((0, 2**64 - 1)), "18446744073709551605 of its 18446744073709551615 rows are not the site's, from 10"),
        (brings((8, 12)), "2 of its 4 rows are not the site's, from 10"),
        (brings((0, 1), site="site-b"), "1 of its 1 rows are not the site's"),
        (brings((0, 3), steps=4), "4 steps cannot have seen 3 rows"),
        (brings(*((at, at + 1) for at in range(0, 2 * MOST_RANGES + 2, 2))), "1025 ranges"),
    ],
)
def test_a_contribution_names_rows_that_its_site_holds(leases: RowLeases, manifest: pb.Manifest, detail: str) -> None:
    leases.lease(asks(), MEMBERS)
    with pytest.raises(Refusal, match=detail) as refusal:
        leases.check(manifest)
    assert refusal.value.reason == "rows"
    leases.check(brings((0, 3), (5, 10), steps=8))


def test_what_is_accepted_is_counted_and_completes_an_epoch(leases: RowLeases) -> None:
    for site in MEMBERS:
        leases.lease(asks(site), MEMBERS)
    assert leases.overhear([counts("site-a", ((0, 10),))])[1] == ()
    states, (said,) = leases.overhear([counts("site-b", ((10, 20),))])
    assert states == {"corpus": leases.corpus}
    assert isinstance(said, EpochCompleted)
    assert (said.epoch, said.rows, said.round) == (0, 20, 3)
    assert said.rows_by_site == {"site-a": 10, "site-b": 10}


def test_what_changes_nothing_is_not_journaled(leases: RowLeases) -> None:
    assert leases.overhear([joined("site-a"), left("site-b")]) == ({}, ())


def test_a_trainer_that_takes_the_place_of_another_holds_what_it_held(leases: RowLeases) -> None:
    leases.lease(asks(), MEMBERS)
    assert leases.overhear([left("site-a"), joined("site-a")]) == ({}, ())
    assert leases.lease(asks(), MEMBERS) == ((0, 10),)


def test_rows_of_a_refused_contribution_go_back_when_it_is_the_members_own(leases: RowLeases) -> None:
    leases.lease(asks(), MEMBERS)
    assert leases.returning(brings((0, 4), (15, 18)), MEMBERS) == ((0, 4),)
    assert leases.returning(brings((0, 4), attempt=1), MEMBERS) == (), "it may come again under this membership"
    assert leases.returning(brings((0, 4), lease_token=4), MEMBERS) == (), "somebody else says that it is the site's"
    assert leases.returning(brings((4, 0)), MEMBERS) == ()
    leases.overhear([refused("site-a", ((0, 4),))])
    assert leases.corpus is not None
    assert leases.corpus.returned == ((0, 4),)


def test_another_corpus_under_the_same_journal_is_a_mistake(journal: Journal) -> None:
    journal.commit(state={"corpus": Corpus(rows=20, seed=0, frontier=3)})
    with pytest.raises(Mistake, match="has 21 rows, and had 20"):
        opened(journal, 21, 0)
    assert opened(journal, 20, seed=9).seed == 0, "the order of an epoch does not change in its middle"


def test_who_is_gone_when_leasing_goes_on_holds_nothing(journal: Journal) -> None:
    journal.commit(state={"corpus": take(take(Corpus(rows=20, seed=0), "site-a", 1, 5), "site-b", 1, 5)})
    federation = Federation(name="f", base_digest="0" * 64, members={"site-b": MEMBERS["site-b"]})
    journal.commit(state={"federation": federation})
    corpus = opened(journal, 20, 0)
    assert corpus.held == {"site-b": ((5, 10),)}
    assert corpus.returned == ((0, 5),)


def test_messages_of_other_kinds_are_no_business_of_rows(leases: RowLeases) -> None:
    other: Message = EpochCompleted(id=WINDOW, at=AT, federation="f", epoch=0, rows=1, round=0)
    assert leases.overhear([other]) == ({}, ())


def test_the_rows_of_a_corpus_are_counted_at_the_hub_or_told(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(bytes(range(202)))
    task = load_task("gpt-neox", '{"context": 8}')
    counted = shared(journal, task, tmp_path, None, seed=3, block=None)
    assert counted.terms == pb.Corpus(rows=25, seed=3)
    assert counted.lease(asks(hold=1), MEMBERS) == ((0, 1),), "a block is a 256th of the corpus, and a row at least"
    told = shared(Journal(None, "/windfall/test"), task, None, 10**9, seed=3, block=None)
    assert told.terms == pb.Corpus(rows=10**9, seed=3)
    assert told.lease(asks(hold=1), MEMBERS) == ((0, 1024),)


def test_what_cannot_be_shared_is_said_in_one_line(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no corpus to share: task 'ppo' has no rows"):
        shared(journal, load_task("ppo"), None, 100, seed=0, block=None)
    with pytest.raises(Mistake, match=r"no corpus to share: no \*.txt"):
        shared(journal, load_task("gpt-neox"), tmp_path, None, seed=0, block=None)


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ({"corpus": "shared"}, "needs WINDFALL_CORPUS_DIR or WINDFALL_CORPUS_ROWS"),
        ({"corpus": "shared", "corpus_rows": 5, "corpus_dir": "x"}, "and not both"),
        ({"corpus_rows": 5}, "go with WINDFALL_CORPUS=shared"),
    ],
)
def test_settings_of_a_corpus_go_together(told: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        CoordinatorSettings(state_dir=Path("x"), **told)
    assert CoordinatorSettings(state_dir=Path("x"), corpus="shared", corpus_rows=5).corpus_rows == 5
