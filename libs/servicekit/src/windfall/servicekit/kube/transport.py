"""One request to an API server: its deadline, its credentials, and what its failure means."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp

from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube.connection import Access
from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.kube.refusals import refusal

DEADLINE: Final = timedelta(seconds=30)
"""Wall time that an answer may take."""
_CONNECT: Final = timedelta(seconds=10)

JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"


class Transport:
    """Speaks HTTP with an API server; foreign errors end here."""

    def __init__(self, access: Access, deadline: timedelta = DEADLINE) -> None:
        self._access = access
        self._deadline = deadline

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
    ) -> Object:
        """One answer, whole.

        Raises:
            Transient, Conflict, Mistake: see :func:`~windfall.servicekit.kube.refusals.refusal`; ``Transient`` as
                well when the server cannot be reached or takes too long.
        """
        timeout = aiohttp.ClientTimeout(
            total=self._deadline.total_seconds(), sock_connect=min(self._deadline, _CONNECT).total_seconds()
        )
        async with self._answer(method, path, query, body, content_type, timeout) as response:
            text = await response.read()
        try:
            answer: Object = json.loads(text)
        except ValueError as error:
            raise Transient(f"{method} {path}: what answered is no API server ({text[:80]!r})") from error
        return answer

    @asynccontextmanager
    async def lines(
        self, path: str, query: Mapping[str, str], silence: timedelta
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """The lines of an answer that goes on, until the server ends it or says nothing for ``silence``."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT.total_seconds(), sock_read=silence.total_seconds()
        )
        async with self._answer("GET", path, query, None, JSON, timeout) as response:
            yield _lines(response)

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            response = await self._send(method, path, query, body, content_type, timeout)
            try:
                if response.status >= 400:
                    text = await response.read()
                    raise refusal(response.status, response.headers, text, f"{method} {path}")
                yield response
            finally:
                _let_go(response)
        except aiohttp.ClientConnectorCertificateError as error:
            raise Mistake(
                f"the API server's certificate is not trusted: {error.certificate_error}",
                "Name its authority in the kubeconfig",
                ExitCode.SERVER,
            ) from error
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise Transient(f"{method} {path}: {str(error) or type(error).__name__}") from error

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Any,
        content_type: str,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        again = True
        while True:
            client = await self._access.client()
            reads = self._access.reads
            headers = {"Accept": JSON, "Content-Type": content_type, **client.default_headers}
            for auth in (await client.configuration.auth_settings()).values():
                headers["Authorization"] = str(auth["value"])
            url = client.configuration.host + path + (f"?{urlencode(query)}" if query else "")
            answer = await client.rest_client.request(method, url, headers, body, _request_timeout=timeout)
            response: aiohttp.ClientResponse = answer.response
            if response.status != 401 or not again:
                return response
            # A token may have been replaced since it was read, or revoked before its time.
            again = False
            response.release()
            await self._access.read_again(reads)


def _let_go(response: aiohttp.ClientResponse) -> None:
    """What was not read to its end cannot be used for the next request. Nobody waits for a farewell on such a link,
    which a loop that ends would not hear any more."""
    if response.content.at_eof():
        response.release()
        return
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()
    response.close()


async def _lines(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Whole ones only, however long; what a cut has left of one is none."""
    rest = b""
    async for chunk in response.content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line.strip():
                yield line
