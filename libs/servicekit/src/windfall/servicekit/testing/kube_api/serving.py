"""The double's HTTP side: who asks, what for, and the answer."""

import asyncio
import json
import re
from datetime import timedelta
from typing import Any, Final

import yaml
from aiohttp import web

from windfall.servicekit.clock import Clock
from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api import discovery
from windfall.servicekit.testing.kube_api.authorizing import Identity, Tokens, allowed
from windfall.servicekit.testing.kube_api.evicting import eviction_refused
from windfall.servicekit.testing.kube_api.faults import Faults
from windfall.servicekit.testing.kube_api.reading import listed, selection, shown
from windfall.servicekit.testing.kube_api.refused import Refused, bad_request, conflict, expired, forbidden, success
from windfall.servicekit.testing.kube_api.registry import Registry
from windfall.servicekit.testing.kube_api.requests import Asked, asked, manner, unserved
from windfall.servicekit.testing.kube_api.resources import Catalogue
from windfall.servicekit.testing.kube_api.reviews import reviewed, token_requested
from windfall.servicekit.testing.kube_api.scaling import scale_of
from windfall.servicekit.testing.kube_api.store import Store
from windfall.servicekit.testing.kube_api.targets import Target
from windfall.servicekit.testing.kube_api.watching import Watch, events

_REVIEWS: Final = ("tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews")
_FINGER: Final = re.compile(r"[^A-Za-z0-9._/-]")


class Server:
    """Answers requests."""

    def __init__(
        self, store: Store, catalogue: Catalogue, registry: Registry, tokens: Tokens, faults: Faults, clock: Clock
    ) -> None:
        self.bookmark_every = timedelta(minutes=1)
        self._store = store
        self._catalogue = catalogue
        self._registry = registry
        self._tokens = tokens
        self._faults = faults
        self._clock = clock
        self._watches: set[tuple[web.Request, int]] = set()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=8 * 1024 * 1024)
        application.router.add_route("*", "/{path:.*}", self._serve)
        return application

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        faults = self._faults
        if faults.delay:
            await asyncio.sleep(faults.delay.total_seconds())
        if faults.down:
            return _broken(request)
        try:
            if faults.strikes(faults.throttled):
                message = "the server has received too many requests and has asked us to try again later"
                raise Refused(429, "TooManyRequests", message, retry_after_s=faults.retry_after_s)
            if faults.strikes(faults.failing):
                raise Refused(500, "InternalError", "Internal error occurred: etcdserver: leader changed")
            answer, code = await self._answer(request)
        except Refused as refused:
            answer, code = refused.status(), refused.code
            headers = {"Retry-After": str(refused.retry_after_s)} if refused.retry_after_s is not None else {}
            return web.json_response(answer, status=code, headers=headers)
        if isinstance(answer, web.StreamResponse):
            return answer
        if request.method != "GET" and faults.strikes(faults.deaf):
            return _broken(request)
        return web.json_response(answer, status=code)

    async def _answer(self, request: web.Request) -> tuple[Any, int]:
        identity = self._identity(request)
        if request.path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok"), 200
        if request.path == "/openapi/v2":
            return web.Response(body=discovery.openapi(), content_type="application/octet-stream"), 200
        if (found := self._discovered(request.path)) is not None:
            return found, 200
        ask = asked(request.method, request.path, request.query, self._catalogue)
        if not allowed(identity, ask.attempt, self._store):
            kind = ask.target.resource.kind
            where = f' in the namespace "{ask.target.namespace}"' if ask.target.namespace else " at the cluster scope"
            what = f'User "{identity.user}" cannot {ask.verb} resource "{ask.attempt.what}"'
            raise forbidden(kind, ask.target.name, f'{what} in API group "{kind.group}"{where}')
        if ask.verb == "watch":
            return await self._watch(request, ask.target), 200
        return self._done(ask, request, await _body(request), identity)

    def _identity(self, request: web.Request) -> Identity:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        identity = self._tokens.identity(token.strip(), self._clock.now()) if scheme.lower() == "bearer" else None
        if identity is None:
            raise Refused(401, "Unauthorized", "Unauthorized")
        return identity

    def _discovered(self, path: str) -> Object | None:
        parts = path.strip("/").split("/")
        match parts:
            case ["version"]:
                return discovery.VERSION
            case ["api"]:
                return discovery.core_versions()
            case ["apis"]:
                return discovery.groups(self._catalogue)
            case ["api", version]:
                found = discovery.resources(self._catalogue, "", version)
            case ["apis", group]:
                found = discovery.group(self._catalogue, group)
            case ["apis", group, version]:
                found = discovery.resources(self._catalogue, group, version)
            case ["openapi", "v3"]:
                return {"paths": {}}
            case _:
                return None
        if found is None:
            raise unserved()
        return found

    def _done(self, ask: Asked, request: web.Request, body: Any, identity: Identity) -> tuple[Any, int]:
        target, resource = ask.target, ask.target.resource
        show = shown(resource)
        how = request.content_type.removeprefix("application/")
        wish = manner(request.query, request.headers.get("User-Agent", ""), applying=how == "apply-patch+yaml")
        match ask.verb:
            case "list":
                return listed(self._store, target, request.query), 200
            case "get":
                live = self._registry.live(target)
                return (scale_of(resource, live) if target.subresource == "scale" else show(live)), 200
            case "create" if target.subresource:
                return self._posted(target, body), 201
            case "create" if resource.kind.plural in _REVIEWS:
                return reviewed(resource.kind, body, identity, self._tokens, self._store, self._clock.now()), 201
            case "create":
                return show(self._registry.create(target, body, wish)), 201
            case "update":
                return show(self._registry.replace(target, body, wish)), 200
            case "patch":
                known = self._store.get(target.key) is not None
                return show(self._registry.patch(target, body, how, wish)), 200 if known else 201
            case "delete":
                options = _options(request, body)
                return self._registry.delete(target, options, dry_run=wish.dry_run), 200
            case _:
                items = listed(self._store, target, request.query)["items"]
                for item in items:
                    metadata = item["metadata"]
                    one = Target(resource, metadata.get("namespace", ""), metadata["name"])
                    self._registry.delete(one, _options(request, body), dry_run=wish.dry_run)
                return success(), 200

    def _posted(self, target: Target, body: Object) -> Object:
        """To a subresource of one object."""
        live = self._registry.live(target)
        whole = Target(target.resource, target.namespace, target.name)
        match target.subresource:
            case "eviction":
                if (refused := eviction_refused(self._store, live)) is not None:
                    raise refused
                self._registry.delete(whole, body.get("deleteOptions") or {})
            case "binding":
                if bound := live["spec"].get("nodeName"):
                    why = f"pod {target.name} is already assigned to node {bound!r}"
                    raise conflict(target.resource.kind, target.name, why)
                spec = live["spec"] | {"nodeName": body["target"]["name"]}
                conditions = [
                    *((live.get("status") or {}).get("conditions") or ()),
                    {"type": "PodScheduled", "status": "True"},
                ]
                status = (live.get("status") or {}) | {"conditions": conditions}
                self._registry.settle(target.key, {**live, "spec": spec, "status": status})
            case "token":
                return token_requested(live, body, self._clock.now())
            case _:
                raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the resource")
        return success(code=201)

    async def _watch(self, request: web.Request, target: Target) -> web.StreamResponse:
        query, resource = request.query, target.resource
        if self._faults.unwatchable:
            raise Refused(403, "Forbidden", "watching is not allowed")
        version = query.get("resourceVersion", "")
        if version and not version.isdigit():
            raise bad_request(f"invalid resource version {version!r}")
        seconds = query.get("timeoutSeconds")
        matches = selection(target, query)
        if target.name:
            matches = _only(target.name, matches)
        watch = Watch(
            resource,
            target.namespace,
            matches,
            int(version) if version not in ("", "0") else None,
            query.get("allowWatchBookmarks", "").lower() in ("1", "true"),
            timedelta(seconds=int(seconds)) if seconds else None,
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if self._faults.gone:
            # Whoever was let in to watch is told everything as an event.
            error = {"type": "ERROR", "object": expired("too old resource version").status()}
            await response.write(json.dumps(error).encode() + b"\n")
            return response
        cuts = self._faults.cuts
        stream = events(self._store, watch, shown(resource), self.bookmark_every)
        try:
            async for event in stream:
                if self._faults.cuts != cuts or self._faults.down:
                    # In the middle of a line, as a connection breaks.
                    await response.write(json.dumps(event).encode()[:20])
                    return _broken(request, response)
                await response.write(json.dumps(event, separators=(",", ":")).encode() + b"\n")
        except ConnectionResetError:
            return response
        finally:
            await stream.aclose()
        await response.write_eof()
        return response


def _only(name: str, matches: Any) -> Any:
    return lambda obj: obj["metadata"]["name"] == name and matches(obj)


async def _body(request: web.Request) -> Any:
    raw = await request.read()
    if not raw:
        return {}
    try:
        return yaml.safe_load(raw) if "yaml" in request.content_type and raw[:1] != b"{" else json.loads(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"the body of the request is no object: {error}") from error


def _options(request: web.Request, body: Any) -> Object:
    options = dict(body) if isinstance(body, dict) else {}
    query = request.query
    for name in ("propagationPolicy", "gracePeriodSeconds", "orphanDependents"):
        if name in query:
            value = query[name]
            options[name] = int(value) if value.isdigit() else value == "true" if value in ("true", "false") else value
    return options


def _broken(request: web.Request, response: web.StreamResponse | None = None) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return response or web.Response(status=500)
