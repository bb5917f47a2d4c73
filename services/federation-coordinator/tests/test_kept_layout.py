"""What is trained is known from the journal, and held against what the task makes."""

from pathlib import Path

import pytest

from windfall.federation_coordinator.kept_layout import hold_against, keep_layout, kept_layout
from windfall.lowcomm.spec import Layout, TensorSpec
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal

LAYOUT = Layout(
    (TensorSpec("w", (3, 4)), TensorSpec("scalar", ()), TensorSpec("count", (2,), "int64", exact=True)),
    (("head", "w"),),
)


def test_a_layout_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite", "/windfall/test")
    assert kept_layout(journal, "line", "{}") is None
    keep_layout(journal, "line", "{}", LAYOUT)
    assert kept_layout(journal, "line", "{}") == LAYOUT
    journal.close()


@pytest.mark.parametrize("other", [("curve", "{}"), ("line", '{"width": 2}')])
def test_that_of_another_task_is_not_believed(tmp_path: Path, other: tuple[str, str]) -> None:
    journal = Journal(tmp_path / "journal.sqlite", "/windfall/test")
    keep_layout(journal, "line", "{}", LAYOUT)
    assert kept_layout(journal, *other) is None
    journal.close()


def test_a_task_whose_code_has_changed_is_said() -> None:
    hold_against(LAYOUT, LAYOUT, "line")
    with pytest.raises(Mistake, match="'line' makes another model"):
        hold_against(LAYOUT, Layout(LAYOUT.tensors[1:]), "line")
