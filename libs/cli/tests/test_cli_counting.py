"""One round is no rounds."""

import pytest

from windfall.cli.counting import counted


@pytest.mark.parametrize(
    ("count", "what", "said"),
    [
        (1, "rounds", "1 round"),
        (0, "rounds", "0 rounds"),
        (12_000, "tokens", "12,000 tokens"),
        (1, "entries", "1 entry"),
        (2, "entries", "2 entries"),
        (1, "more sites", "1 more site"),
        (1, "messages", "1 message"),
        (1, "switches", "1 switch"),
    ],
)
def test_a_number_of_things(count: int, what: str, said: str) -> None:
    assert counted(count, what) == said
