"""Liveness and readiness over HTTP on loopback, answered by a thread: a stuck event loop cannot say so itself.

A process that stands by is live and not ready, and says ``standby``; one that is not ready says what it lacks.
"""

import asyncio
import errno
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from windfall.servicekit.errors import ExitCode, Mistake

log = logging.getLogger(__name__)

_BEAT_S = 1.0
_STUCK_AFTER_S = 10.0
_LOOK_S = 0.1
"""How often the thread looks whether it should end."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        error = sys.exception()
        if isinstance(error, ConnectionError):
            log.debug("who asked how it is did not wait for the answer: %s", error)
        else:
            log.error("a question for its health went wrong", exc_info=error)


class Health:
    """Serves ``/livez`` (the event loop turns) and ``/readyz`` (the service can do its work).

    Args:
        port: loopback port; 0 takes a free one.
        folder: where ``health.json`` says which port and process it is.
        lacking: asked at every ``/readyz``, from another thread: what it cannot work without, or nothing.
        name: of that file, where several processes share the folder.

    Raises:
        Mistake: the port is in use, or the folder cannot be written.
    """

    def __init__(self, port: int, folder: Path, lacking: Callable[[], str], name: str = "health.json") -> None:
        self.lacking = lacking
        self.standing_by = False
        """Ready to take over, and not to be asked for anything."""
        self._last_beat = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        health = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                ask = {"/livez": health.why_not_live, "/readyz": health.why_not_ready}.get(self.path)
                said = "not known" if ask is None else ask()
                self.send_response(404 if ask is None else 503 if said else 200)
                body = f"{said or 'ok'}\n".encode()
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Probes are not news."""

        try:
            self._server = _Server(("127.0.0.1", port), Answer)
        except OSError as error:
            raise Mistake(
                f"port {port} for health checks is in use ({error.strerror})",
                "Set WINDFALL_HEALTH_PORT to a free one, or 0",
                ExitCode.RESOURCE,
            ) from error
        self.port: int = self._server.server_address[1]
        self._file = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file.write_text(json.dumps({"port": self.port, "pid": os.getpid()}))
        except OSError as error:
            self._server.server_close()
            full = error.errno == errno.ENOSPC
            raise Mistake(
                f"cannot write {self._file} ({error.strerror})",
                "Free space" if full else "Set WINDFALL_STATE_DIR to a folder that this user may write",
                ExitCode.DISK_FULL if full else ExitCode.RESOURCE,
            ) from error
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK_S,), name="health", daemon=True)
        self._thread.start()

    def why_not_live(self) -> str:
        """Empty where the event loop has turned lately."""
        silent_s = time.monotonic() - self._last_beat
        return "" if silent_s < _STUCK_AFTER_S else f"its event loop has not turned for {silent_s:.0f} s"

    def stand_by(self, holder: str) -> None:
        """Another process works; this one waits for it."""
        self.standing_by = True
        log.info("stands by for %s", holder)

    def why_not_ready(self) -> str:
        """Empty where it lives and can do its work."""
        return self.why_not_live() or ("standby" if self.standing_by else self.lacking())

    def beat(self) -> None:
        """Begin to beat on the running loop."""
        self._last_beat = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(_BEAT_S, self.beat)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._file.unlink(missing_ok=True)
