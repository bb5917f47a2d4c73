"""Whose word decides how a step is passed through."""

import pytest

from windfall.site_trainer import session as sessions
from windfall.site_trainer.session import Opening, Session
from windfall.site_trainer.tuning import MOST_PARTS, Owner, Tuning, tuned


@pytest.mark.parametrize(
    ("owner", "accumulation", "precision", "expected"),
    [
        (Owner(), 0, "", Tuning()),
        (Owner(), 4, "bf16", Tuning(4, "bf16")),
        (Owner(accumulation=2), 4, "bf16", Tuning(2, "bf16")),
        (Owner(precision="fp32"), 4, "bf16", Tuning(4, "fp32")),
        (Owner(precision="fp16"), 0, "", Tuning(1, "fp16")),
        (Owner(), 10**9, "fp4", Tuning(MOST_PARTS, "fp32")),
    ],
)
def test_the_owner_goes_first_and_then_the_coordinator(
    owner: Owner, accumulation: int, precision: str, expected: Tuning
) -> None:
    opening = Opening(3, "a" * 64, 64, 0, 4, accumulation=accumulation, precision=precision)
    assert tuned(owner, sessions.opened(sessions.joined(Session(), 1), opening)) == expected


def test_a_round_that_is_opened_again_may_say_something_else() -> None:
    first = sessions.opened(sessions.joined(Session(), 1), Opening(3, "a" * 64, 64, 0, 4))
    again = sessions.opened(first, Opening(3, "a" * 64, 64, 0, 4, accumulation=2, precision="bf16"))
    assert tuned(Owner(), again) == Tuning(2, "bf16")
