"""Asking a provider by HTTP: bounded in time, size, pace and repetition; what goes wrong has a cause and a cure.

Tries, pauses and timeouts are wall time. A redirect is not followed, so that a credential goes to nobody else.
"""

import asyncio
import json
import ssl
import zlib
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from pydantic import SecretStr

from windfall.energy.quotes import Unbelievable
from windfall.energy_watcher.pacing import TokenBucket, backoff_s, retry_after
from windfall.energy_watcher.section import HttpSection, Means
from windfall.servicekit.errors import ExitCode, Mistake, Transient

if TYPE_CHECKING:
    # Loaded by the first client: a site that replays a trace asks nobody, and the library is a fifth of a second.
    import httpx

_AGAIN: Final = frozenset({408, 425, 429})
_GZIP: Final = 31
"""The window size that tells zlib to expect gzip's own header (zlib manual, ``inflateInit2``)."""
_MOST_SAID: Final = 200
"""Characters of a provider's own words in an error."""
_SHORTEST_HIDDEN: Final = 4
"""A shorter credential is no secret, and hiding it would blank out ordinary words."""


@dataclass(frozen=True)
class Request:
    """What is asked; equal ones have equal answers for as long as those are fresh."""

    path: str
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    """A JSON object, or the word that the last one still holds (``body`` is none)."""

    body: Mapping[str, Any] | None
    etag: str | None


class Denied(Mistake):
    """An HTTP status that asking again will not change."""

    def __init__(self, path: str, status: int, said: str, is_json: bool, mistake: Mistake) -> None:
        super().__init__(mistake.cause, mistake.cure, mistake.exit_code)
        self.path = path
        self.status = status
        self.said = said
        """The provider's own words, one line."""
        self.is_json = is_json


@dataclass(frozen=True)
class Cures:
    """What a person can do about a refusal."""

    credential: str
    """After 401 and 403."""
    request: str
    """After anything else, most of all 400 and 404."""


class HttpClient:
    """One provider's connections."""

    def __init__(
        self,
        provider: str,
        told: HttpSection,
        means: Means,
        cures: Cures,
        buckets: Mapping[str, TokenBucket] | None = None,
    ) -> None:
        """``buckets`` limit the pace by the beginning of the path; the longest beginning counts."""
        import httpx

        self._provider = provider
        self._told = told
        self._means = means
        self._cures = cures
        self._buckets = dict(buckets or {})
        self._hidden: set[str] = set()
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(told.read_timeout.total_seconds(), connect=told.connect_timeout.total_seconds()),
            follow_redirects=False,
            verify=_trusted(),
            # A proxy of the environment is for the outside only.
            trust_env=not told.loopback,
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": "windfall-energy-watcher",
            },
        )

    def hide(self, secret: SecretStr) -> None:
        """Never let this appear in an error, even when the provider repeats it."""
        self._hidden.add(secret.get_secret_value())

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, request: Request, headers: Mapping[str, str] | None = None) -> Answer:
        """The answer, after as many tries as the settings allow.

        Raises:
            Transient: nobody there, too slow, 408, 425, 429 or 5xx until the last try, or a wait that is too long.
            Denied: any other status that is not a success.
            Unbelievable: a success that is not a JSON object, or is too large.
        """
        for tried in range(self._told.retries + 1):
            await self._pace(request)
            try:
                return await self._once(request, headers or {})
            except Transient as failed:
                longest_s = self._told.longest_wait.total_seconds()
                asked_s = failed.retry_after.total_seconds() if failed.retry_after else 0.0
                if tried == self._told.retries or asked_s > longest_s:
                    raise
                await self._means.sleep(asked_s or backoff_s(tried, longest_s, self._means.random))
        raise AssertionError("the last try returns or raises")

    async def _pace(self, request: Request) -> None:
        name = max((name for name in self._buckets if request.path.startswith(name)), key=len, default=None)
        if name is None:
            return
        self._buckets[name], wait_s = self._buckets[name].take(asyncio.get_running_loop().time())
        if wait_s > 0.0:
            await self._means.sleep(wait_s)

    async def _once(self, request: Request, headers: Mapping[str, str]) -> Answer:
        import httpx

        deadline_s = (self._told.connect_timeout + self._told.read_timeout).total_seconds()
        url = self._told.url.rstrip("/") + request.path
        try:
            # The client's own timeouts are for each read; a server that drips must not hold us for ever.
            async with (
                asyncio.timeout(deadline_s),
                self._client.stream("GET", url, params=request.params, headers=headers) as response,
            ):
                content = await self._content(response)
        except TimeoutError as error:
            raise Transient(f"{self._provider} has not answered within {deadline_s:g} s") from error
        except httpx.TransportError as error:
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
                raise self._untrusted() from None
            raise Transient(f"{self._provider} cannot be asked: {self._clean(_name(error))}") from None
        return self._judge(request, response, content)

    async def _content(self, response: "httpx.Response") -> bytes:
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > self._told.most_bytes:
                raise self._too_large()
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding == "identity" or not content:
            return bytes(content)
        if encoding != "gzip":
            said = self._clean(encoding)
            raise Unbelievable("unreadable", f"{self._provider} answers in {said}, which was not asked for")
        return self._unpacked(content)

    def _unpacked(self, content: bytearray) -> bytes:
        """Never more than the bound: a few hundred bytes can hold gigabytes, and httpx unpacks whatever comes."""
        unpacking = zlib.decompressobj(_GZIP)
        try:
            unpacked = unpacking.decompress(content, self._told.most_bytes + 1)
        except zlib.error as error:
            raise Unbelievable("unreadable", f"{self._provider}: {self._clean(str(error))}") from None
        if len(unpacked) > self._told.most_bytes:
            raise self._too_large()
        if not unpacking.eof:
            raise Unbelievable("unreadable", f"{self._provider} answers with half of a gzip file")
        return unpacked

    def _too_large(self) -> Unbelievable:
        return Unbelievable("unreadable", f"{self._provider} answers with over {self._told.most_bytes} bytes")

    def _judge(self, request: Request, response: "httpx.Response", content: bytes) -> Answer:
        status, body = response.status_code, _json(content)
        if status == HTTPStatus.NOT_MODIFIED:
            return Answer(None, _etag(response))
        if response.is_success:
            if not isinstance(body, dict):
                raise Unbelievable("unreadable", f"{self._provider} answers with {_form(content)}, not a JSON object")
            return Answer(body, _etag(response))
        said = self._clean(_words(body) if body is not None else _form(content))
        if status in _AGAIN or response.is_server_error:
            wait = retry_after(response.headers.get("Retry-After"), response.headers.get("Date"), datetime.now(UTC))
            raise Transient(f"{self._provider} answers with HTTP {status} ({said})", wait)
        raise self._denied(request, response, body is not None, said)

    def _denied(self, request: Request, response: "httpx.Response", is_json: bool, said: str) -> Denied:
        status = response.status_code
        cause, cure, code = f"{self._provider} refuses {request.path} (HTTP {status}: {said})", "", ExitCode.USAGE
        if response.is_redirect:
            cause = f"{self._provider} answers {request.path} with a redirect, which is not followed"
            cure = "Set url to where it is now"
        elif status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            cure, code = self._cures.credential, ExitCode.SERVER
        return Denied(request.path, status, said, is_json, Mistake(cause, cure or self._cures.request, code))

    def _untrusted(self) -> Mistake:
        return Mistake(
            f"the certificate of {self._provider} is not trusted",
            "Set SSL_CERT_FILE to the authority that signed it, and see that the machine's clock is right",
            ExitCode.SERVER,
        )

    def _clean(self, text: str) -> str:
        """One line of bounded length in which nothing that is hidden can be seen."""
        for secret in sorted(self._hidden, key=len, reverse=True):
            if len(secret) >= _SHORTEST_HIDDEN:
                text = text.replace(secret, "***")
        line = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
        return line if len(line) <= _MOST_SAID else line[:_MOST_SAID] + "…"


def basic(username: SecretStr, password: SecretStr) -> SecretStr:
    """The ``Authorization`` of HTTP Basic (RFC 7617)."""
    pair = f"{username.get_secret_value()}:{password.get_secret_value()}"
    return SecretStr("Basic " + b64encode(pair.encode()).decode())


def bearer(token: SecretStr) -> SecretStr:
    """The ``Authorization`` of a bearer token (RFC 6750)."""
    return SecretStr("Bearer " + token.get_secret_value())


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that the machine trusts, read once: it takes tens of milliseconds."""
    import httpx

    return httpx.create_ssl_context()


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _etag(response: "httpx.Response") -> str | None:
    """The entity tag, if it can be sent back: RFC 9110 lets it hold bytes that are no ASCII, and httpx does not."""
    etag = response.headers.get("ETag", "")
    return etag if etag and etag.isascii() and etag.isprintable() else None


def _json(content: bytes) -> Any:
    """The parsed body; none when it is not JSON. ``NaN`` passes here and is refused as a value."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _form(content: bytes) -> str:
    if not content.strip():
        return "nothing"
    return "an HTML page" if content.lstrip()[:1] == b"<" else "something that is not JSON"


def _words(body: Any) -> str:
    """What a provider says in an error: all known ones use one of these fields, some nest it once."""
    if not isinstance(body, dict):
        return "no reason given"
    said = body.get("error", body)
    found = said if isinstance(said, dict) else body
    words = [found[name] for name in ("error", "message", "detail") if isinstance(found.get(name), str)]
    return ": ".join(words) or "no reason given"
