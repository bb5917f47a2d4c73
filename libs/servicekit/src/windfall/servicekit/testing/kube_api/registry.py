"""Every write: create, replace, patch, apply, delete, each with the rules of the API server."""

import json
from collections.abc import Callable
from typing import Any, Final

from windfall.servicekit.clock import Clock
from windfall.servicekit.kube import kinds
from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api import built_in, lifecycle
from windfall.servicekit.testing.kube_api.applying import Owners, applied, managed, updated
from windfall.servicekit.testing.kube_api.definitions import established
from windfall.servicekit.testing.kube_api.lifecycle import CRD_CLEANUP, instant
from windfall.servicekit.testing.kube_api.patching import json_patched, merge_patched, strategically_patched
from windfall.servicekit.testing.kube_api.quotas import quota_refused
from windfall.servicekit.testing.kube_api.refused import (
    Cause,
    Refused,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
    success,
)
from windfall.servicekit.testing.kube_api.resources import Catalogue, Resource
from windfall.servicekit.testing.kube_api.scaling import scale_of, scaled
from windfall.servicekit.testing.kube_api.store import Key, Store
from windfall.servicekit.testing.kube_api.structural import definition_faults
from windfall.servicekit.testing.kube_api.targets import Manner, Target

_NAMESPACES: Final = ("default", "kube-system", "kube-public", "kube-node-lease")


class Registry:
    """See the module."""

    def __init__(self, store: Store, catalogue: Catalogue, clock: Clock) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        for crd in store.all(kinds.CRD.group, kinds.CRD.plural):
            catalogue.define(crd)
        spaces = catalogue.find("", "v1", "namespaces")
        assert spaces is not None
        for name in _NAMESPACES:
            if store.get(Key("", "namespaces", "", name)) is None:
                self.create(Target(spaces, name=name), {"metadata": {"name": name}}, Manner("kube-apiserver"))

    def live(self, target: Target) -> Object:
        """
        Raises:
            Refused: there is none (404).
        """
        found = self._store.get(target.key)
        if found is None:
            raise not_found(target.resource.kind, target.name)
        return found

    def create(self, target: Target, body: Any, manner: Manner) -> Object:
        """The object, as it is now there."""
        now = self._clock.now()
        obj = lifecycle.checked(target.resource, body, target.namespace)
        born = lifecycle.begun(target.resource, obj, now)
        born = self._taken(target, None, born)
        if target.resource.kind == kinds.POD and (full := quota_refused(self._store, born)) is not None:
            raise full
        owners = updated(None, born, target.resource.shape, manner.writer(target), instant(now))
        return self._born(target, born, owners, manner)

    def _born(self, target: Target, obj: Object, owners: Owners, manner: Manner) -> Object:
        kind, name = target.resource.kind, obj["metadata"]["name"]
        if kind.namespaced:
            found = self._store.get(Key("", "namespaces", "", target.namespace))
            if (unfit := lifecycle.unfit_namespace(target.resource, name, target.namespace, found)) is not None:
                raise unfit
        key = target.key._replace(name=name)
        if self._store.get(key) is not None:
            raise already_exists(kind, name)
        if kind == kinds.CRD:
            obj = established(obj, instant(self._clock.now()))
        obj = {**obj, "metadata": obj["metadata"] | {"managedFields": managed(owners)}}
        return obj if manner.dry_run else self._put(key, obj)

    def replace(self, target: Target, body: Any, manner: Manner) -> Object:
        live = self.live(target)
        if target.subresource == "scale":
            return self._scale(target, body, manner)
        new = lifecycle.checked(target.resource, body, target.namespace, target.name)
        conditional = target.resource.custom or target.resource.kind == kinds.LEASE
        if conditional and not new["metadata"].get("resourceVersion"):
            text = "Invalid value: 0x0: must be specified for an update"
            raise invalid(
                target.resource.kind, target.name, [Cause("FieldValueInvalid", text, "metadata.resourceVersion")]
            )
        return self._change(target, live, new, manner)

    def patch(self, target: Target, patch: Any, how: str, manner: Manner) -> Object:
        """
        Args:
            how: the media type of the patch, without ``application/``.
        """
        if how == "apply-patch+yaml":
            return self._apply(target, patch, manner)
        live = self.live(target)
        shown = scale_of(target.resource, live) if target.subresource == "scale" else live
        new = _patches(target.resource)[how](shown, patch) if how in _patches(target.resource) else None
        if new is None:
            kinds_of_patch = ", ".join(f"application/{name}" for name in _patches(target.resource))
            text = "the body of the request was in an unknown format - accepted media types include: "
            raise Refused(415, "UnsupportedMediaType", f"{text}{kinds_of_patch}, application/apply-patch+yaml")
        if target.subresource == "scale":
            return self._scale(target, new, manner)
        return self._change(
            target, live, lifecycle.checked(target.resource, new, target.namespace, target.name), manner
        )

    def _apply(self, target: Target, body: Any, manner: Manner) -> Object:
        if not manner.manager:
            raise bad_request("fieldManager is required for apply patch")
        resource, now = target.resource, self._clock.now()
        config = lifecycle.checked(resource, body, target.namespace, target.name)
        if config["metadata"].get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        live = self._store.get(target.key)
        writer = manner.writer(target, "Apply")
        if live is None and target.subresource:
            raise not_found(resource.kind, target.name)
        if live is None:
            if config["metadata"].get("uid") or config["metadata"].get("resourceVersion"):
                raise conflict(resource.kind, target.name, "uid mismatch: no existing object was found")
            _, owners = applied(None, config, resource.shape, writer, force=manner.force, now=instant(now))
            born = self._taken(target, None, lifecycle.begun(resource, config, now))
            return self._born(target, born, owners, manner)
        if target.subresource == "status":
            own = ("apiVersion", "kind", "metadata", "status")
            config = {name: config[name] for name in own if name in config}
            config["metadata"] = {
                name: config["metadata"][name] for name in ("name", "namespace") if name in config["metadata"]
            }
        new, owners = applied(live, config, resource.shape, writer, force=manner.force, now=instant(now))
        return self._change(target, live, new, manner, owners)

    def _scale(self, target: Target, body: Object, manner: Manner) -> Object:
        live = self.live(target)
        new = scaled(target.resource, live, body)
        whole = Target(target.resource, target.namespace, target.name)
        now = instant(self._clock.now())
        owners = updated(live, new, target.resource.shape, manner.writer(target), now)
        return scale_of(target.resource, self._change(whole, live, new, manner, owners))

    def _change(
        self, target: Target, live: Object, new: Object, manner: Manner, owners: Owners | None = None
    ) -> Object:
        resource, now = target.resource, instant(self._clock.now())
        new = lifecycle.revised(resource, live, new, target.subresource)
        new = self._taken(target, live, new)
        if owners is None:
            owners = updated(live, new, resource.shape, manner.writer(target), now)
        new = lifecycle.counted(resource, live, new)
        if resource.kind == kinds.CRD and not target.subresource:
            new = established(new, now)
        new = {**new, "metadata": new["metadata"] | {"managedFields": managed(owners)}}
        if new == live or manner.dry_run:
            return new
        return self.settle(target.key, new)

    def settle(self, key: Key, obj: Object) -> Object:
        """Keep a changed object, or let it go when nothing holds it."""
        stored = self._put(key, obj)
        if not lifecycle.ended(stored):
            return stored
        self._remove(key)
        return stored

    def delete(self, target: Target, options: Object, *, dry_run: bool = False) -> Object:
        """What was deleted: its object while it ends, a ``Status`` when it is gone."""
        live = self.live(target)
        kind, metadata = target.resource.kind, live["metadata"]
        for name, said in (options.get("preconditions") or {}).items():
            if metadata.get(name) != said:
                text = f"the {name} in the precondition ({said}) does not match that in record ({metadata.get(name)})"
                raise conflict(kind, target.name, text)
        pod = kind == kinds.POD
        ending = lifecycle.ending(live, options, self._clock.now(), pod=pod)
        if kind == kinds.NAMESPACE:
            ending = {**ending, "status": {"phase": "Terminating"}}
        if kind == kinds.CRD and CRD_CLEANUP not in (ending["metadata"].get("finalizers") or ()):
            held = [*(ending["metadata"].get("finalizers") or ()), CRD_CLEANUP]
            ending = {**ending, "metadata": ending["metadata"] | {"finalizers": held}}
        if dry_run:
            return ending
        if lifecycle.ended(ending):
            gone = self._remove(target.key)
            details = {"name": target.name, "kind": kind.plural, "uid": metadata["uid"]}
            return gone if pod else success(details | ({"group": kind.group} if kind.group else {}))
        return ending if ending == live else self._put(target.key, ending)

    def _taken(self, target: Target, live: Object | None, obj: Object) -> Object:
        """As the server keeps it.

        Raises:
            Refused: it is invalid (422).
        """
        resource, kind = target.resource, target.resource.kind
        causes: list[Cause] = []
        if resource.schema is not None:
            obj = resource.schema.taken(obj)
            causes = resource.schema.violations(obj)
        else:
            obj = built_in.defaulted(kind.group, kind.plural, obj, has_status="status" in resource.subresources)
            if live is not None and not target.subresource:
                causes = built_in.changes_refused(kind.group, kind.plural, live, obj)
        if kind == kinds.CRD and target.subresource != "status":
            causes = definition_faults(obj)
        if causes:
            raise invalid(kind, obj["metadata"]["name"], causes)
        # What was taken from elsewhere is not shared with it.
        copy: Object = json.loads(json.dumps(obj))
        return copy

    def _put(self, key: Key, obj: Object) -> Object:
        stored = self._store.put(key, obj)
        if key[:2] == (kinds.CRD.group, kinds.CRD.plural):
            self._catalogue.define(stored)
        return stored

    def _remove(self, key: Key) -> Object:
        gone = self._store.remove(key)
        if key[:2] == (kinds.CRD.group, kinds.CRD.plural):
            self._catalogue.withdraw(gone)
        return gone


def _patches(resource: Resource) -> dict[str, Callable[[Object, Any], Object]]:
    known: dict[str, Callable[[Object, Any], Object]] = {
        "json-patch+json": json_patched,
        "merge-patch+json": merge_patched,
    }
    if not resource.custom:
        known["strategic-merge-patch+json"] = lambda live, patch: strategically_patched(live, patch, resource.shape)
    return known
