"""``windfall logs``: what is typed, what is understood, and what is shown."""

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest

from tests.commanded import ran
from windfall.cli.logs.addressing import Addressee, addressees
from windfall.cli.logs.hearing import Heard, complaint, dropping, told, unanswered
from windfall.cli.logs.showing import Told, in_order, line, shown
from windfall.cli.logs.wishing import wish
from windfall.contracts.logs import LogLine, LogTold
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import ExitCode, Mistake

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)


def written(number: int, message: str = "said", second: int = 0, **more: str) -> LogLine:
    at = NOW + timedelta(seconds=second)
    return LogLine(
        number=number, at=at, severity="INFO", severity_number=20, logger="windfall.x", message=message, **more
    )


def batch(*lines: LogLine, process: str = "p", whole: bool = True, **more: object) -> LogTold:
    until = lines[-1].number if lines else 0
    made = {"process": process, "service": "profiler", "whom": "site-a", "until": until, "whole": whole, **more}
    return LogTold.model_validate({**made, "lines": lines})


@pytest.mark.parametrize(
    ("texts", "domain", "found"),
    [
        (["profiler"], "site-a", [Addressee("profiler")]),
        (["profiler@site-a", "profiler@site-a"], "site-a", [Addressee("profiler", "site-a")]),
        (["federation-coordinator@demo"], HUB, [Addressee("federation-coordinator", "demo")]),
        ([], HUB, [Addressee("federation-coordinator")]),
        (
            ["profiler@any", "federation-coordinator"],
            "",
            [Addressee("profiler", "any"), Addressee("federation-coordinator")],
        ),
    ],
)
def test_whose_log_is_meant(texts: list[str], domain: str, found: list[Addressee]) -> None:
    assert list(addressees(texts, domain)) == found


@pytest.mark.parametrize(
    ("text", "domain", "why"),
    [
        ("trainer", "site-a", "no service 'trainer' tells its log. Did you mean site-trainer?"),
        ("profiler@", "site-a", "'profiler@' names no site. Write profiler@SITE, or profiler alone"),
        ("profiler@site-b", HUB, "the log of profiler stays at site-b, and this is the server of the hub. Ask"),
        ("profiler@site-aa", "site-a", "this is the server of site-a. Did you mean site-a?"),
        ("federation-coordinator", "site-a", "stands at the hub, and this is the server of site-a. Ask the hub's"),
    ],
)
def test_what_cannot_be_had_here_is_a_line_with_its_cure(text: str, domain: str, why: str) -> None:
    with pytest.raises(Mistake) as refusal:
        addressees([text], domain)
    assert why in str(refusal.value)


def test_which_lines_are_wished_for() -> None:
    made = wish("1h30m", "warning", "00AB", NOW)
    assert (made.since, made.severity, made.trace) == (NOW - timedelta(minutes=90), logging.WARNING, "00ab")
    assert wish("2026-01-01T00:00:00+00:00", "info", None, NOW).since == datetime(2026, 1, 1, tzinfo=UTC)
    for since in ("soon", "10", "2026-01-01T00:00:00", "99999999999d"):
        with pytest.raises(Mistake, match="--since"):
            wish(since, "info", None, NOW)
    with pytest.raises(Mistake, match="is no trace id"):
        wish(None, "info", "xyz", NOW)


def test_what_was_told_before_is_not_shown_again_and_what_is_gone_is_counted() -> None:
    heard, new = told(Heard(), batch(written(1), written(2), whole=False))
    assert [one.number for one in new] == [1, 2] and not heard.settled
    heard, new = told(heard, batch(written(2), written(5), dropped=2))
    assert [one.number for one in new] == [5] and heard.settled and heard.seen == {"p": 5}
    # Another process of the service, which began after the first.
    heard, new = told(heard, batch(written(1), process="q"))
    assert [one.number for one in new] == [1] and heard.seen == {"p": 5, "q": 1}
    assert dropping(batch(dropped=2)).startswith("2 lines of profiler@site-a went before") and not dropping(batch())


def test_who_does_not_answer_is_told_with_cause_and_cure() -> None:
    whom = Addressee("profiler", "site-a")
    assert complaint(told(Heard(), batch())[0], whom, "site-a", 5) is None
    silent = complaint(Heard(), whom, "site-a", 5)
    assert silent is not None and str(silent).startswith("profiler@site-a did not tell its log within 5 s. It hangs")
    half = complaint(told(Heard(), batch(written(1), whole=False))[0], whom, "site-a", 5)
    assert half is not None and "the rest of its log" in str(half)
    away = complaint(unanswered(Heard()), whom, "site-a", 5)
    assert away is not None and away.exit_code is ExitCode.SERVER and "no profiler answers at site-a" in str(away)
    full = complaint(told(Heard(), batch(refused="16 others follow it already"))[0], whom, "site-a", 5)
    assert full is not None and "16 others follow it already" in str(full)


def test_lines_are_shown_in_order_of_time_for_people_and_for_machines() -> None:
    one = Told(written(1, "late", 2, trace_id="ab" * 16, stack="Traceback\n  boom"), "profiler", "site-a", "p")
    two = Told(written(7, "early \x1b[2J", 1), "provisioner", "site-a", "q")
    assert shown(in_order([one, two]), "plain") == (
        "2026-01-02T12:00:01.000Z INFO    provisioner@site-a early \\x1b[2J\n"
        f"2026-01-02T12:00:02.000Z INFO    profiler@site-a late trace={'ab' * 16}\nTraceback\n  boom"
    )
    document = json.loads(shown([one], "json"))
    assert (document["apiVersion"], document["kind"]) == ("windfall.dev/cli/v1", "LogLineList")
    assert document["items"][0]["trace_id"] == "ab" * 16
    assert json.loads(line(two, "jsonl"))["message"] == "early \x1b[2J"


async def test_what_is_typed_is_completed_and_what_has_no_end_is_refused() -> None:
    asked = {"_WINDFALL_COMPLETE": "bash_complete", "COMP_WORDS": "windfall logs p", "COMP_CWORD": "2"}
    assert (await ran(**asked))[1].split() == ["plain,provisioner", "plain,profiler"]
    code, _, err = await ran("logs", "-f", "-o", "json")
    assert code == ExitCode.USAGE and "say -o jsonl" in err
