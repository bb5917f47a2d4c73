"""What a watch tells that an answer of the server has overtaken."""

from typing import Any

import pytest

from windfall.provisioner.machines import _overtaken


def found(version: str, uid: str = "a") -> dict[str, Any]:
    return {"metadata": {"name": "m", "uid": uid, "resourceVersion": version}}


@pytest.mark.parametrize(
    ("present", "heard", "known", "overtaken"),
    [
        (True, found("3"), None, False),
        (True, found("3"), found("4"), True),
        (True, found("10"), found("9"), False),
        (True, found("4"), found("4"), False),
        (True, found("x"), found("4"), False),
        (False, found("3"), found("4"), False),
        (False, found("3", "b"), found("4"), True),
    ],
    ids=["new", "older", "newer", "the same", "no number", "gone unseen", "gone before its successor"],
)
def test_what_is_heard_late(present: bool, heard: dict[str, Any], known: dict[str, Any], overtaken: bool) -> None:
    assert _overtaken(present, heard, known) == overtaken
