"""Who asks, by bearer token, and what they may do, by the roles that are bound to them (RBAC)."""

import base64
import hmac
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.store import Key, Store

MASTERS: Final = "system:masters"
_RBAC: Final = "rbac.authorization.k8s.io"
_KEY: Final = b"a double has no secrets"
_EVERYTHING: Final[Object] = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_GIVEN: Final[Mapping[str, list[Object]]] = {"cluster-admin": [_EVERYTHING]}
"""Cluster roles that are there from the beginning."""


@dataclass(frozen=True)
class Identity:
    """Who a token stands for."""

    user: str
    groups: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Attempt:
    """What somebody wants to do to which resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    @property
    def what(self) -> str:
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass
class Tokens:
    """Static tokens, as in a token file, and those of service accounts."""

    known: dict[str, Identity] = field(
        default_factory=lambda: {
            "admintoken": Identity("admin", (MASTERS,)),
            "viewtoken": Identity("viewer", ("viewers",)),
        }
    )

    def identity(self, token: str, now: datetime) -> Identity | None:
        """None: nobody, or not any more."""
        found = self.known.get(token) or _account(token)
        if found is None or (found.expires_at is not None and found.expires_at <= now):
            return None
        return found


def mint(namespace: str, name: str, expires_at: datetime) -> str:
    """A token of a service account. It holds across restarts, because it says itself whose it is."""
    said = base64.urlsafe_b64encode(json.dumps([namespace, name, expires_at.isoformat()]).encode()).decode()
    return f"{said}.{_seal(said)}"


def _account(token: str) -> Identity | None:
    said, _, seal = token.partition(".")
    if not hmac.compare_digest(seal, _seal(said)):
        return None
    namespace, name, expires_at = json.loads(base64.urlsafe_b64decode(said))
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated")
    user = f"system:serviceaccount:{namespace}:{name}"
    return Identity(user, groups, datetime.fromisoformat(expires_at))


def _seal(said: str) -> str:
    return hmac.new(_KEY, said.encode(), "sha256").hexdigest()


def allowed(identity: Identity, attempt: Attempt, store: Store) -> bool:
    """Whether a role that is bound to them, here or everywhere, has a rule for it."""
    if MASTERS in identity.groups:
        return True
    return any(_permits(rule, attempt) for rule in _rules(identity, attempt.namespace, store))


def _rules(identity: Identity, namespace: str, store: Store) -> Iterator[Object]:
    for binding in store.all(_RBAC, "clusterrolebindings"):
        if _binds(binding, identity):
            yield from _role(binding["roleRef"], "", store)
    if namespace:
        for binding in store.all(_RBAC, "rolebindings", namespace):
            if _binds(binding, identity):
                yield from _role(binding["roleRef"], namespace, store)


def _binds(binding: Object, identity: Identity) -> bool:
    space = binding["metadata"].get("namespace", "")
    names = {
        "User": (identity.user,),
        "Group": (*identity.groups, "system:authenticated"),
    }
    for subject in binding.get("subjects") or ():
        if subject["kind"] == "ServiceAccount":
            if identity.user == f"system:serviceaccount:{subject.get('namespace') or space}:{subject['name']}":
                return True
        elif subject["name"] in names.get(subject["kind"], ()):
            return True
    return False


def _role(ref: Object, namespace: str, store: Store) -> list[Object]:
    if ref["kind"] == "Role":
        found = store.get(Key(_RBAC, "roles", namespace, ref["name"]))
    else:
        found = store.get(Key(_RBAC, "clusterroles", "", ref["name"]))
    return list(found.get("rules") or ()) if found else _GIVEN.get(ref["name"], [])


def _permits(rule: Object, attempt: Attempt) -> bool:
    def has(field: str, *values: str) -> bool:
        said = rule.get(field) or ()
        return "*" in said or any(value in said for value in values)

    named = rule.get("resourceNames")
    resources = (attempt.what, f"*/{attempt.subresource}") if attempt.subresource else (attempt.what,)
    return (
        has("verbs", attempt.verb)
        and has("apiGroups", attempt.group)
        and has("resources", *resources)
        and (not named or attempt.name in named)
    )
