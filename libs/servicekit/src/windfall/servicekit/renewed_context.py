"""A client's TLS context whose files are replaced while we run: whoever connects next shows and believes what lies
there now. For whatever takes a context once and connects with it for ever, as clients of NATS do.
"""

import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from windfall.servicekit.tls import stamp

log = logging.getLogger(__name__)


class RenewedContext(ssl.SSLContext):
    """
    Args:
        files: what is looked at before each handshake.
        made: a context of what lies there now. Raises ``OSError``.

    Raises:
        OSError: a file is not there, or cannot be used.
    """

    def __new__(cls, files: Sequence[Path], made: Callable[[], ssl.SSLContext]) -> Self:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, files: Sequence[Path], made: Callable[[], ssl.SSLContext]) -> None:
        self._files, self._made = tuple(files), made
        # Looked at before it is read: what is replaced in between is seen by the next handshake.
        self._seen = stamp(self._files)
        self._context = made()

    def wrap_bio(self, *arguments: Any, **named: Any) -> ssl.SSLObject:
        """asyncio begins every handshake with this."""
        return self._now().wrap_bio(*arguments, **named)

    def wrap_socket(self, *arguments: Any, **named: Any) -> ssl.SSLSocket:
        return self._now().wrap_socket(*arguments, **named)

    def _now(self) -> ssl.SSLContext:
        try:
            found = stamp(self._files)
            if found != self._seen:
                self._seen = found
                self._context = self._made()
        except OSError as error:
            log.warning("keeps to the certificate before: %s", error)
        return self._context
