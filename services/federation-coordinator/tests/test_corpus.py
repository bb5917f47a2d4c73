"""The ledger of a shared corpus: every row once per epoch, whatever sites do, in a few ranges."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from windfall.federation_coordinator.corpus import (
    MOST_BLOCKS,
    MOST_RANGES,
    Completed,
    Corpus,
    count,
    give_back,
    regain,
    release,
    take,
)
from windfall.tasks.ranges import NONE, Ranges, common, first, minus, size, sound, union

SITES = ("site-a", "site-b", "site-c")


def test_a_site_gets_whole_blocks_and_asking_again_changes_nothing() -> None:
    one = take(Corpus(rows=100, seed=0), "site-a", hold=3, block=10)
    assert one.held == {"site-a": ((0, 10),)}
    assert take(one, "site-a", hold=3, block=10) == one
    assert take(one, "site-a", hold=10, block=10) == one
    assert take(one, "site-a", hold=11, block=10).held == {"site-a": ((0, 20),)}
    assert take(one, "site-b", hold=1, block=10).held["site-b"] == ((10, 20),)


def test_nobody_gets_the_whole_corpus_at_once_by_asking() -> None:
    greedy = take(Corpus(rows=10**9, seed=0), "site-a", hold=2**62, block=10)
    assert greedy.held["site-a"] == ((0, 10 * MOST_BLOCKS),)


def test_nobody_runs_away_with_the_line_by_asking_again() -> None:
    corpus = Corpus(rows=1000, seed=0)
    for _ in range(1000):
        corpus = take(corpus, "site-a", hold=2**64 - 1, block=10)
    assert 4000 <= size(corpus.held["site-a"]) <= 4000 + 10 * MOST_BLOCKS


def test_an_epoch_is_complete_when_its_last_row_is_counted_and_says_who_trained_it() -> None:
    corpus = take(take(Corpus(rows=20, seed=0), "site-a", 10, 10), "site-b", 10, 10)
    corpus, completed = count(corpus, "site-b", ((10, 20),))
    assert completed == ()
    corpus, completed = count(corpus, "site-a", ((0, 4),))
    assert completed == ()
    corpus, completed = count(corpus, "site-a", ((4, 10),))
    assert completed == (Completed(0, {"site-a": 10, "site-b": 10}),)
    assert corpus == Corpus(rows=20, seed=0, frontier=20)


def test_rows_that_are_out_at_a_straggler_hold_nobody_up() -> None:
    corpus = take(take(Corpus(rows=20, seed=0), "slow", 10, 10), "fast", 10, 10)
    corpus, _ = count(corpus, "fast", ((10, 20),))
    corpus = take(corpus, "fast", 20, 10)
    assert corpus.held["fast"] == ((20, 40),), "the next epoch's"
    corpus, completed = count(corpus, "fast", ((20, 40),))
    assert completed == (Completed(1, {"fast": 20}),), "which may be complete first"
    corpus, completed = count(corpus, "slow", ((0, 10),))
    assert completed == (Completed(0, {"fast": 10, "slow": 10}),)


def test_what_comes_back_goes_out_first() -> None:
    corpus = take(take(Corpus(rows=100, seed=0), "site-a", 10, 10), "site-b", 10, 10)
    corpus = release(corpus, "site-a", hoped_for=False)
    assert take(corpus, "site-c", 10, 10).held["site-c"] == ((0, 10),)


def test_what_a_silent_site_held_goes_out_last_of_its_epoch_and_is_its_own_again_when_it_is_back() -> None:
    corpus = take(Corpus(rows=30, seed=0), "site-a", 10, 10)
    corpus = release(corpus, "site-a", hoped_for=True)
    corpus = take(corpus, "site-b", 10, 10)
    assert corpus.held == {"site-b": ((10, 20),)}
    back = regain(corpus, "site-a")
    assert back.held["site-a"] == ((0, 10),)
    corpus = take(corpus, "site-b", 20, 10)
    assert corpus.held == {"site-b": ((10, 30),)}
    corpus = take(corpus, "site-c", 4, 4)
    assert corpus.held["site-c"] == ((0, 4),), "before the next epoch begins"
    back = regain(corpus, "site-a")
    assert back.held["site-a"] == ((4, 10),), "what nobody has taken since"
    assert back.remembered == {}


def test_rows_of_a_refused_contribution_go_back_and_no_others() -> None:
    corpus = take(take(Corpus(rows=100, seed=0), "site-a", 10, 10), "site-b", 10, 10)
    corpus = give_back(corpus, "site-a", ((3, 5), (12, 14)))
    assert corpus.returned == ((3, 5),)
    assert corpus.held == {"site-a": ((0, 3), (5, 10)), "site-b": ((10, 20),)}


def test_rows_that_the_site_does_not_hold_are_not_counted() -> None:
    corpus = take(Corpus(rows=100, seed=0), "site-a", 10, 10)
    with pytest.raises(ValueError, match="does not hold 2 of the rows"):
        count(corpus, "site-a", ((5, 12),))
    with pytest.raises(ValueError, match="site-b does not hold"):
        count(corpus, "site-b", ((5, 6),))


def test_a_pool_of_crumbs_fills_no_more_ranges_than_a_contribution_can_name() -> None:
    crumbs = tuple((at, at + 1) for at in range(0, 4 * MOST_RANGES, 2))
    corpus = Corpus(rows=10**6, seed=0, frontier=4 * MOST_RANGES, returned=crumbs)
    corpus = take(corpus, "site-a", 10**6, 10**6)
    assert len(corpus.held["site-a"]) == MOST_RANGES
    assert take(corpus, "site-a", 10**6 + 1, 10**6) == corpus, "until it has contributed"
    corpus, _ = count(corpus, "site-a", corpus.held["site-a"])
    assert take(corpus, "site-a", 10**6, 10**6).held["site-a"][0] == crumbs[MOST_RANGES]


def test_a_site_that_trains_for_long_holds_few_ranges() -> None:
    """Three sites take turns, so that blocks of one are never neighbours; nobody contributes for a million rows."""
    corpus = Corpus(rows=10**9, seed=0)
    for _ in range(400):
        for site in SITES:
            corpus = take(corpus, site, size(corpus.held.get(site, NONE)) + 1, 256)
    assert min(size(ranges) for ranges in corpus.held.values()) > 10**6
    assert max(len(ranges) for ranges in corpus.held.values()) < MOST_RANGES


def test_a_billion_rows_are_kept_in_a_few_kilobytes() -> None:
    """50 sites come, go, die and contribute at random for three million leases' worth of rows."""
    dice = random.Random(0)
    corpus = Corpus(rows=10**9, seed=0)
    largest = 0
    for _ in range(4000):
        site = f"site-{dice.randrange(50)}"
        own = corpus.held.get(site, NONE)
        deed = dice.random()
        if deed < 0.5:
            corpus = take(regain(corpus, site), site, size(own) + dice.randrange(1, 4096), 1024)
        elif deed < 0.9:
            corpus, _ = count(corpus, site, first(own, dice.randrange(size(own) + 1)))
        else:
            corpus = release(corpus, site, hoped_for=dice.random() < 0.5)
        largest = max(largest, len(corpus.model_dump_json()))
    assert corpus.counted > 10**6
    assert largest < 16_384, "for 50 sites"
    assert Corpus.model_validate_json(corpus.model_dump_json()) == corpus


class Ledger(RuleBasedStateMachine):
    """Against a model that keeps every row by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.corpus = Corpus(rows=23, seed=0)
        self.trained: dict[int, int] = {}
        self.said: dict[int, dict[str, int]] = {}
        self.by: dict[int, dict[str, int]] = {}

    @rule(site=st.sampled_from(SITES), hold=st.integers(0, 60), block=st.integers(1, 9))
    def ask(self, site: str, hold: int, block: int) -> None:
        before = self.corpus.held.get(site, NONE)
        self.corpus = take(self.corpus, site, hold, block)
        after = self.corpus.held.get(site, NONE)
        assert not minus(before, after)
        assert size(after) >= min(hold, size(before) + 1)

    @rule(site=st.sampled_from(SITES), some=st.sets(st.integers(0, 40)))
    def contribute(self, site: str, some: set[int]) -> None:
        own = [row for begin, end in self.corpus.held.get(site, NONE) for row in range(begin, end)]
        named = union((own[at], own[at] + 1) for at in some if at < len(own))
        self.corpus, completed = count(self.corpus, site, named)
        for begin, end in named:
            for row in range(begin, end):
                self.trained[row] = self.trained.get(row, 0) + 1
                tally = self.by.setdefault(row // 23, {})
                tally[site] = tally.get(site, 0) + 1
        for one in completed:
            assert one.epoch not in self.said, "an epoch is said once"
            self.said[one.epoch] = one.rows_by_site

    @rule(site=st.sampled_from(SITES), some=st.sets(st.integers(0, 120)))
    def be_refused(self, site: str, some: set[int]) -> None:
        self.corpus = give_back(self.corpus, site, union((row, row + 1) for row in some))

    @rule(site=st.sampled_from(SITES), hoped_for=st.booleans())
    def go(self, site: str, hoped_for: bool) -> None:
        self.corpus = release(self.corpus, site, hoped_for=hoped_for)
        assert site not in self.corpus.held

    @rule(site=st.sampled_from(SITES))
    def come_back(self, site: str) -> None:
        self.corpus = regain(self.corpus, site)

    @rule()
    def crash(self) -> None:
        self.corpus = Corpus.model_validate_json(self.corpus.model_dump_json())

    @invariant()
    def every_row_is_in_one_place(self) -> None:
        corpus = self.corpus
        places: list[Ranges] = [corpus.returned, *corpus.held.values()]
        assert all(sound(ranges) for ranges in (*places, *corpus.remembered.values()))
        out = union(*places)
        assert size(out) == sum(size(ranges) for ranges in places), "none in two places"
        counted = minus(((0, corpus.frontier),), out) if corpus.frontier else NONE
        assert {row for begin, end in counted for row in range(begin, end)} == set(self.trained)
        assert set(self.trained.values()) <= {1}, "none trained twice"
        assert corpus.counted == len(self.trained)
        hoped = tuple(corpus.remembered.values())
        assert size(union(*hoped)) == sum(size(ranges) for ranges in hoped)
        assert common(union(*hoped), corpus.returned) == union(*hoped)

    @invariant()
    def an_epoch_is_said_when_it_is_whole(self) -> None:
        whole = {epoch: by for epoch, by in self.by.items() if sum(by.values()) == 23}
        assert self.said == whole
        assert set(self.corpus.tallies) == set(self.by) - set(whole)


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.integers(1, 9), st.integers(0, 200), st.integers(1, 50))
def test_a_lease_that_crosses_epochs_is_counted_in_each(rows: int, frontier: int, taken: int) -> None:
    corpus = take(Corpus(rows=rows, seed=0, frontier=frontier), "site-a", taken, 1)
    assert corpus.held["site-a"] == ((frontier, frontier + taken),)
    after, completed = count(corpus, "site-a", corpus.held["site-a"])
    per_epoch = Counter(position // rows for position in range(frontier, frontier + taken))
    assert {one.epoch: rows for one in completed} | {
        epoch: tally["site-a"] for epoch, tally in after.tallies.items()
    } == per_epoch
