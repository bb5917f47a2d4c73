"""Recordings: what is read back is what was written, and a bad line is named."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from windfall.cli.recording import Said, heard, line, read, read_file
from windfall.servicekit.errors import Mistake


def test_every_line_reads_back(recorded: Sequence[Said]) -> None:
    assert [read(line(said)) for said in recorded] == list(recorded)


def test_a_letter_reads_back(recorded: Sequence[Said]) -> None:
    assert [heard(said.letter()) for said in recorded] == list(recorded)


def test_trace_id_is_the_middle_of_traceparent(recorded: Sequence[Said]) -> None:
    assert recorded[-1].trace_id is None
    assert {said.trace_id for said in recorded} - {None} == {f"{number:032x}" for number in range(1, 5)}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "line 2: structured CloudEvent is not JSON"),
        ("[]", "line 2: structured CloudEvent has no data"),
        ('{"specversion": "1.0", "type": "windfall.v1.sun.shone", "data": {}}', "line 2: unknown CloudEvents type"),
    ],
    ids=["no-json", "no-data", "unknown-type"],
)
def test_a_bad_line_is_named(recorded: Sequence[Said], tmp_path: Path, row: str, reason: str) -> None:
    recording = tmp_path / "events.jsonl"
    recording.write_text(f"{line(recorded[0])}\n{row}\n")
    with pytest.raises(Mistake, match=reason):
        list(read_file(recording))


def test_a_missing_recording_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="cannot read"):
        list(read_file(tmp_path / "none.jsonl"))
