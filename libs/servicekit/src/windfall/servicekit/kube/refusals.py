"""What an API server's refusals mean to whoever asked."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from windfall.servicekit.errors import ExitCode, Mistake, Transient


class Conflict(Transient):
    """Somebody else was first: look again, decide again. Waiting alone does not help."""


class Exists(Conflict):
    """What was to be created is there already."""


class Absent(Conflict):
    """What was to be changed is not there, or not any more."""


class Unserved(Mistake):
    """No such kind is served, or no such namespace is there."""


class Expired(Transient):
    """A place in the history that the server has forgotten (410): list anew."""


_MOMENT: Final = timedelta(seconds=1)


def refusal(status: int, headers: Mapping[str, str], body: bytes, what: str) -> Exception:
    """The error that an answer stands for.

    Args:
        status: of the HTTP answer, 400 or more.
        headers: of the answer; ``Retry-After`` is heeded.
        body: a ``Status`` object, or whatever a proxy on the way has said.
        what: what was asked, for the line that a person reads; never the object itself.
    """
    said = _status(body)
    line = f"{what}: {said.get('message') or body[:200].decode(errors='replace').strip() or 'no reason given'}"
    reason = said.get("reason", "")
    match status:
        case 409:
            return Exists(line) if reason == "AlreadyExists" else Conflict(line)
        case 410:
            return Expired(line)
        case 404 if _is_absence(said, what):
            return Absent(line)
        case 429:
            return Transient(line, retry_after(headers) or _MOMENT)
        case 403 if any(cause.get("reason") == "NamespaceTerminating" for cause in _causes(said)):
            return Transient(line)
        case 500 if any(sign in line for sign in _UNREAD):
            return Mistake(f"the API server refuses to {line}", *_CURES[500])
        case _ if status >= 500:
            return Transient(line, retry_after(headers))
        case 404:
            return Unserved(f"the API server knows nothing of {line}", *_CURES[404])
    cure, code = _CURES.get(status, ("Check what is said of it there", ExitCode.FAILED))
    return Mistake(f"the API server refuses to {line}", cure, code)


_CURES: Final = {
    400: ("Check the object's fields", ExitCode.USAGE),
    401: ("Check the kubeconfig's credentials; a token that was renewed is read anew", ExitCode.SERVER),
    403: ("Grant the role that the chart names to this user or service account", ExitCode.SERVER),
    404: ("Install the resource definitions, and check the name of the namespace", ExitCode.SERVER),
    415: ("Use an API server of version 1.20 or newer", ExitCode.SERVER),
    422: ("Check the object's fields", ExitCode.USAGE),
    500: ("Check the object's fields; a server older than Kubernetes 1.28 may not know one", ExitCode.SERVER),
}

_UNREAD: Final = ("failed to create typed patch object", "failed to convert new object to proper version")
"""What older servers say, with status 500, of a field that they do not know: trying again does not help."""


def _is_absence(said: Mapping[str, Any], what: str) -> bool:
    """Whether a 404 speaks of the one object; otherwise nobody serves such a kind, or the namespace is not there."""
    details = said.get("details") or {}
    name = details.get("name")
    return bool(name) and (details.get("kind") != "namespaces" or what.endswith(f"/v1/namespaces/{name}"))


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """How long a server asks to be left alone: seconds or a date, see RFC 9110, 10.2.3."""
    text = headers.get("Retry-After", "").strip()
    if text.isdigit():
        return timedelta(seconds=int(text))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(timedelta(), (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC))


def _status(body: bytes) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) and said.get("kind") == "Status" else {}


def _causes(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    return (said.get("details") or {}).get("causes") or []
