"""How an API server says no: a ``Status`` object, in the words that the real one uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from windfall.servicekit.kube.kinds import Kind, Object


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong with an object."""

    reason: str
    message: str
    field: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    def object(self) -> Object:
        return {"reason": self.reason, "message": self.message, "field": self.field}


class Refused(Exception):
    """One request is not served."""

    def __init__(
        self, code: int, reason: str, message: str, details: Object | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = dict(details or {})
        if retry_after_s is not None:
            self.details["retryAfterSeconds"] = retry_after_s
        self.retry_after_s = retry_after_s

    def status(self) -> Object:
        said: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        said |= {"message": str(self), "reason": self.reason, "code": self.code}
        return said | ({"details": self.details} if self.details else {})


def success(details: Object | None = None, code: int = HTTPStatus.OK) -> Object:
    """The ``Status`` of what was done and has no object to show."""
    said: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return said | ({"details": details} if details else {}) | ({"code": code} if code != HTTPStatus.OK else {})


def _named(kind: Kind, name: str) -> Object:
    return {"name": name, "kind": kind.plural} | ({"group": kind.group} if kind.group else {})


def not_found(kind: Kind, name: str) -> Refused:
    return Refused(404, "NotFound", f'{kind} "{name}" not found', _named(kind, name))


def already_exists(kind: Kind, name: str) -> Refused:
    return Refused(409, "AlreadyExists", f'{kind} "{name}" already exists', _named(kind, name))


def conflict(kind: Kind, name: str, why: str) -> Refused:
    message = f'Operation cannot be fulfilled on {kind} "{name}": {why}'
    return Refused(409, "Conflict", message, _named(kind, name))


def stale(kind: Kind, name: str) -> Refused:
    return conflict(
        kind,
        name,
        "the object has been modified; please apply your changes to the latest version and try again",
    )


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> Refused:
    whose = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    lines = ", ".join(str(cause) for cause in causes)
    details: Object = {"name": name, "kind": kind.kind} | ({"group": kind.group} if kind.group else {})
    details["causes"] = [cause.object() for cause in causes]
    text = lines if len(causes) == 1 else f"[{lines}]"
    return Refused(422, "Invalid", f'{whose} "{name}" is invalid: {text}', details)


def bad_request(message: str) -> Refused:
    return Refused(400, "BadRequest", message)


def forbidden(kind: Kind, name: str, why: str, causes: Sequence[Object] = ()) -> Refused:
    details = _named(kind, name) | ({"causes": list(causes)} if causes else {})
    return Refused(403, "Forbidden", f'{kind} "{name}" is forbidden: {why}', details)


def expired(message: str) -> Refused:
    return Refused(410, "Expired", message)
