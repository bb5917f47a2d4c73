"""What a site waits for others: from the receipt of its contribution to the opening of its next round."""

from dataclasses import replace

from windfall.site_trainer.barrier import Barrier
from windfall.site_trainer.session import Session

TRAINS = Session(attempt=1, round=3, base_digest="a", loaded="a")
DELIVERED = replace(TRAINS, pushed=True)
NEXT = replace(TRAINS, round=4, base_digest="b")


def waits(*moves: tuple[Session, float]) -> list[float | None]:
    barrier, before, found = Barrier(), TRAINS, []
    for after, at_s in moves:
        found.append(barrier.passed(before, after, at_s))
        before = after
    return found


def test_a_wait_lasts_from_the_receipt_to_the_next_round() -> None:
    assert waits((DELIVERED, 10.0), (replace(DELIVERED, tokens=1), 11.0), (NEXT, 12.5)) == [None, None, 2.5]


def test_each_wait_is_told_once() -> None:
    again = replace(NEXT, pushed=True)
    assert waits((DELIVERED, 1.0), (NEXT, 2.0), (again, 5.0), (replace(NEXT, round=5), 9.0)) == [None, 1.0, None, 4.0]


def test_who_leaves_or_joins_anew_has_waited_for_nothing() -> None:
    for end in (replace(DELIVERED, stopping="asked"), replace(DELIVERED, left=True), replace(DELIVERED, attempt=None)):
        assert waits((DELIVERED, 1.0), (end, 2.0), (NEXT, 3.0)) == [None, None, None]
