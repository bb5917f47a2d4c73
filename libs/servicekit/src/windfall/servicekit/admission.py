"""Whom a gRPC server lets in beyond what TLS itself checks: nobody whose certificate was revoked, and nobody who speaks
for another site.

An enrolled site's certificate names it by a SPIFFE ID, ``spiffe://windfall/site/<site>/<service>``. A certificate
without one (``windfall keys``, cert-manager) says that its holder belongs to the fleet, and no more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

if TYPE_CHECKING:
    from cryptography import x509

_SPIFFE: Final = "spiffe://windfall/site/"
_REVOKED: Final = "this certificate was revoked; ask whoever runs the hub for a token, and join again"
_PARTS: Final = ("key", "manifest", "head")
"""Where a message does not name its site itself, what in it does."""


def identity(site: str, service: str) -> str:
    """The SPIFFE ID of one service of a site."""
    return f"{_SPIFFE}{site}/{service}"


def site_shown(context: Any) -> str:
    """The site that a caller's certificate names; empty: none, or there is no certificate."""
    shown = context.auth_context().get("x509_pem_cert")
    return _holder(shown[0])[1] if shown else ""


class Revoked:
    """Serials in a file, one a line in hexadecimal. Whoever writes it replaces it as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._serials: frozenset[str] = frozenset()

    def __contains__(self, serial: str) -> bool:
        """
        Raises:
            OSError: the file is not there: nobody can say who is revoked, so nobody is let in.
        """
        found = self._path.stat()
        stamp = (found.st_ino, found.st_mtime_ns)
        if stamp != self._stamp:
            self._serials = frozenset(self._path.read_text(encoding="ascii").split())
            self._stamp = stamp
        return serial in self._serials


class Admission(grpc.aio.ServerInterceptor):
    """See the module.

    Args:
        revoked: serials; none: nobody is.
    """

    def __init__(self, revoked: Revoked | None) -> None:
        self._revoked = revoked

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        return handler and self._watched(handler)

    def _watched(self, handler: Any) -> Any:
        coded = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:

            async def one(request: Any, context: Any) -> Any:
                await self._admit(context, request)
                return await handler.unary_unary(request, context)

            return grpc.unary_unary_rpc_method_handler(one, **coded)
        if handler.unary_stream:

            async def many(request: Any, context: Any) -> AsyncIterator[Any]:
                await self._admit(context, request)
                async for answer in handler.unary_stream(request, context):
                    await self._admit(context)
                    yield answer

            return grpc.unary_stream_rpc_method_handler(many, **coded)
        if handler.stream_unary:

            async def last(requests: AsyncIterator[Any], context: Any) -> Any:
                heard = _Heard(self, requests, context)
                answer = await handler.stream_unary(heard, context)
                await heard.hold()
                return answer

            return grpc.stream_unary_rpc_method_handler(last, **coded)

        async def session(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
            heard = _Heard(self, requests, context)
            async for answer in heard.beside(aiter(handler.stream_stream(heard, context))):
                yield answer

        return grpc.stream_stream_rpc_method_handler(session, **coded)

    async def _admit(self, context: Any, request: Any = None) -> None:
        if refusal := self.refusal(context, request):
            await context.abort(*refusal)

    def refusal(self, context: Any, request: Any) -> tuple[grpc.StatusCode, str] | None:
        """Why this caller may not say this, if so."""
        shown = context.auth_context().get("x509_pem_cert")
        if not shown:
            return None
        serial, site = _holder(shown[0])
        if self._revoked is not None and serial in self._revoked:
            return grpc.StatusCode.UNAUTHENTICATED, _REVOKED
        meant = _site_of(request)
        if site and meant and meant != site:
            return grpc.StatusCode.PERMISSION_DENIED, f"the certificate is {site}'s, which may not speak for {meant}"
        return None


class _Heard:
    """A caller's stream, which ends when the caller is not to be heard any longer."""

    def __init__(self, admission: Admission, requests: AsyncIterator[Any], context: Any) -> None:
        self._admission, self._requests, self._context = admission, aiter(requests), context
        self._refusal: tuple[grpc.StatusCode, str] | None = None
        self._refused = asyncio.Event()

    def __aiter__(self) -> "_Heard":
        return self

    async def __anext__(self) -> Any:
        if self._refusal is not None:
            raise StopAsyncIteration
        request = await anext(self._requests)
        self._refusal = self._admission.refusal(self._context, request)
        if self._refusal is not None:
            # Who listens hears an end; the call itself is ended with the reason.
            self._refused.set()
            raise StopAsyncIteration
        return request

    async def beside(self, answers: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The answers, until the caller is not to be heard any longer; that ends the call at once."""
        refused = asyncio.ensure_future(self._refused.wait())
        coming: asyncio.Future[Any] | None = None
        try:
            while True:
                coming = asyncio.ensure_future(_next(answers))
                await asyncio.wait((coming, refused), return_when=asyncio.FIRST_COMPLETED)
                await self.hold()
                if (answer := await coming) is _END:
                    return
                yield answer
        finally:
            refused.cancel()
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def hold(self) -> None:
        """End the call if its caller may not go on."""
        self._refusal = self._refusal or self._admission.refusal(self._context, None)
        if self._refusal is not None:
            await self._context.abort(*self._refusal)


_END: Final = object()


async def _next(answers: AsyncIterator[Any]) -> Any:
    return await anext(answers, _END)


@lru_cache(maxsize=1024)
def _holder(pem: bytes) -> tuple[str, str]:
    """The serial of a certificate, and the site that it names; empty: none."""
    # Imported here: without TLS nobody needs it.
    from cryptography import x509

    found = x509.load_pem_x509_certificate(pem)
    return f"{found.serial_number:x}", site_named(found)


def site_named(certificate: "x509.Certificate") -> str:
    """The site that a certificate names; empty: none."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    ids = [one for one in names.get_values_for_type(x509.UniformResourceIdentifier) if one.startswith(_SPIFFE)]
    return ids[0].removeprefix(_SPIFFE).partition("/")[0] if ids else ""


def _site_of(request: Any) -> str:
    """The site that a request names, itself or in its key; empty: none."""
    if not hasattr(request, "DESCRIPTOR"):
        # Bytes of a stream whose first message said whose it is.
        return ""
    if site := getattr(request, "site", ""):
        return str(site)
    for part in _PARTS:
        if part in request.DESCRIPTOR.fields_by_name and request.HasField(part):
            return _site_of(getattr(request, part))
    return ""
