"""What each refusal of an API server means to whoever asked."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube.follow import pause
from windfall.servicekit.kube.refusals import Absent, Conflict, Exists, Expired, Unserved, refusal, retry_after

WHAT = "GET /api/v1/namespaces/a/pods/p"


def said(reason: str = "", message: str = "why", **details: object) -> bytes:
    return json.dumps({"kind": "Status", "reason": reason, "message": message, "details": details}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (409, said("Conflict"), Conflict),
        (409, said("AlreadyExists"), Exists),
        (410, said("Expired"), Expired),
        (404, said("NotFound", name="p", kind="pods"), Absent),
        (404, said("NotFound", name="a", kind="namespaces"), Unserved),
        (404, b"404 page not found", Unserved),
        (429, said("TooManyRequests"), Transient),
        (500, said("InternalError"), Transient),
        (500, said(message="failed to create typed patch object: why"), Mistake),
        (500, said(message="failed to convert new object to proper version: why"), Mistake),
        (503, b"<html>", Transient),
        (504, b"", Transient),
        (403, said("Forbidden", causes=[{"reason": "NamespaceTerminating"}]), Transient),
        (403, said("Forbidden"), Mistake),
        (400, said("BadRequest"), Mistake),
        (401, said("Unauthorized"), Mistake),
        (415, said("UnsupportedMediaType"), Mistake),
        (422, said("Invalid"), Mistake),
        (418, b"", Mistake),
    ],
)
def test_the_error_that_an_answer_stands_for(status: int, body: bytes, kind: type[Exception]) -> None:
    error = refusal(status, {}, body, WHAT)
    assert type(error) is kind and WHAT in str(error)
    assert "why" in str(error) or not body.startswith(b"{")


def test_a_person_is_told_what_to_do() -> None:
    error = refusal(403, {}, said("Forbidden"), WHAT)
    assert isinstance(error, Mistake)
    assert error.exit_code is ExitCode.SERVER and "Grant the role" in error.cure
    assert str(error) == f"the API server refuses to {WHAT}: why. {error.cure}"


def test_an_answer_may_be_anything() -> None:
    for body in (b"[]", b'{"kind": "Status", "details": null}', b"\xff", b'{"kind": "Pod"}', b"x" * 10_000):
        assert len(str(refusal(404, {}, body, WHAT))) < 500


def test_how_long_a_server_asks_to_be_left_alone() -> None:
    assert retry_after({"Retry-After": "7"}) == timedelta(seconds=7)
    assert retry_after({}) is None and retry_after({"Retry-After": "soon"}) is None
    soon = retry_after({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)})
    assert soon is not None and timedelta(seconds=50) < soon <= timedelta(seconds=60)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)
    assert retry_after({"Retry-After": past}) == timedelta()
    error = refusal(429, {}, b"", WHAT)
    assert isinstance(error, Transient) and error.retry_after == timedelta(seconds=1)


def test_a_server_that_fails_is_left_alone_for_longer_and_longer() -> None:
    assert pause(0) == timedelta()
    for failures in range(1, 40):
        assert timedelta(milliseconds=25) <= pause(failures) <= timedelta(seconds=5)
    assert pause(40) >= timedelta(seconds=2.5)
