"""Questions about who may do what, and tokens for service accounts."""

from datetime import datetime, timedelta

from windfall.servicekit.kube.kinds import Kind, Object
from windfall.servicekit.testing.kube_api.authorizing import Attempt, Identity, Tokens, allowed, mint
from windfall.servicekit.testing.kube_api.lifecycle import instant
from windfall.servicekit.testing.kube_api.store import Store


def reviewed(kind: Kind, body: Object, caller: Identity, tokens: Tokens, store: Store, now: datetime) -> Object:
    """The question with its answer."""
    spec = body.get("spec") or {}
    if kind.plural == "tokenreviews":
        found = tokens.identity(spec.get("token", ""), now)
        status: Object = {"authenticated": found is not None}
        if found is not None:
            status["user"] = {"username": found.user, "groups": list(found.groups)}
    else:
        who = caller
        if kind.plural == "subjectaccessreviews":
            who = Identity(spec.get("user", ""), tuple(spec.get("groups") or ()))
        status = {"allowed": allowed(who, _attempt(spec.get("resourceAttributes") or {}), store)}
    return {**body, "apiVersion": kind.api_version, "kind": kind.kind, "status": status}


def _attempt(attributes: Object) -> Attempt:
    names = ("verb", "group", "resource", "subresource", "namespace", "name")
    return Attempt(**{name: attributes.get(name, "") for name in names})


def token_requested(account: Object, body: Object, now: datetime) -> Object:
    """A token of a service account, for as long as was asked for."""
    metadata = account["metadata"]
    spec = {"expirationSeconds": 3600} | (body.get("spec") or {})
    expires_at = now + timedelta(seconds=spec["expirationSeconds"])
    token = mint(metadata["namespace"], metadata["name"], expires_at)
    status = {"token": token, "expirationTimestamp": instant(expires_at)}
    return {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec, "status": status}
