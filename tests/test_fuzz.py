"""Every parser with some inputs that nobody meant it to read; ``make fuzz`` gives them thousands."""

import gc
from collections.abc import Iterator

import pytest

from tests.fuzz.run import CORPUS, fuzzed, kept, outcome
from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

INPUTS = 30
"""Of each parser, whose seeds are among them."""


@pytest.fixture(scope="module", autouse=True)
def _no_collections() -> Iterator[None]:
    """Looking for cycles among all that was imported would take longer than the parsers do."""
    gc.freeze()
    yield
    gc.unfreeze()


by_parser = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@by_parser
def test_whatever_comes_is_accepted_or_refused(target: Target) -> None:
    found = fuzzed(target, INPUTS, seed=1)
    assert not found.crashes
    assert found.accepted, "no input reached what lies behind the refusals"


@by_parser
def test_what_once_broke_a_parser_does_not_any_more(target: Target) -> None:
    assert not [missed for data in kept(target.name) if (missed := outcome(target, data))]


def test_every_kept_input_belongs_to_a_parser() -> None:
    folders = {path.name for path in CORPUS.iterdir()}
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    assert sum(len(kept(target.name)) for target in TARGETS) == sum(
        len(list((CORPUS / folder).iterdir())) for folder in folders
    )


def test_the_same_seed_is_the_same_inputs() -> None:
    (letters,) = (target for target in TARGETS if target.name == "letter")
    first, second = (fuzzed(letters, 60, seed=3) for _ in range(2))
    assert (first.accepted, first.refused, first.crashes) == (second.accepted, second.refused, second.crashes)


def test_a_parser_that_crashes_or_takes_for_ever_is_found() -> None:
    def broken(data: bytes) -> object:
        if len(data) == 3:
            raise KeyError("three")
        while len(data) == 4:
            pass
        raise ValueError("refused")

    target = Target("broken", lambda: [b"ab"], broken, (ValueError,))
    assert outcome(target, b"abc") == "KeyError : 'three'"
    assert outcome(target, b"ab") == ""
    assert outcome(target, b"abcd").startswith("TooSlow")
