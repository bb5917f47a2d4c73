"""What a request asks for: its path, its options, and who is behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from windfall.servicekit.testing.kube_api.authorizing import Attempt
from windfall.servicekit.testing.kube_api.refused import Refused, bad_request, not_found
from windfall.servicekit.testing.kube_api.resources import Catalogue
from windfall.servicekit.testing.kube_api.targets import Manner, Target

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Asked:
    """One request about a resource."""

    verb: str
    target: Target

    @property
    def attempt(self) -> Attempt:
        target, kind = self.target, self.target.resource.kind
        namespace = target.name if kind.plural == "namespaces" and not kind.group else target.namespace
        return Attempt(self.verb, kind.group, kind.plural, target.subresource, namespace, target.name)


def asked(method: str, path: str, query: Mapping[str, str], catalogue: Catalogue) -> Asked:
    """
    Raises:
        Refused: nothing is served there (404), or not that way (405).
    """
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        raise unserved()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and catalogue.find(group, version, rest[2]) is not None:
        namespace, rest = rest[1], rest[2:]
    resource = catalogue.find(group, version, rest[0])
    if resource is None or len(rest) > 3 or (namespace and not resource.kind.namespaced):
        raise unserved()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and subresource not in resource.subresources | _ALWAYS.get(resource.kind.plural, frozenset()):
        raise not_found(resource.kind, name) if resource.custom else unserved()
    verb = _VERBS.get(method, "")
    if not name:
        verb = {"get": "watch" if watches(query) else "list", "delete": "deletecollection"}.get(verb, verb)
    misfit = (verb in ("update", "patch") and not name) or (verb == "create" and bool(name) and not subresource)
    if misfit or verb not in resource.verbs:
        raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    return Asked(verb, Target(resource, namespace, name, subresource))


_ALWAYS = {"namespaces": frozenset({"finalize"})}


def unserved() -> Refused:
    """As the real server says it: with no word of what was missing."""
    return Refused(HTTPStatus.NOT_FOUND, "NotFound", "the server could not find the requested resource")


def watches(query: Mapping[str, str]) -> bool:
    return query.get("watch", "").lower() in ("1", "true")


def manner(query: Mapping[str, str], user_agent: str, *, applying: bool) -> Manner:
    """
    Raises:
        Refused: a dry run of an unknown sort.
    """
    dry = query.get("dryRun", "")
    if dry not in ("", "All"):
        raise bad_request(f'dryRun: Unsupported value: "{dry}": supported values: "All"')
    named = query.get("fieldManager", "")
    manager = named if named or applying else user_agent.partition("/")[0] or "unknown"
    return Manner(manager, bool(dry), query.get("force", "").lower() in ("1", "true"))
