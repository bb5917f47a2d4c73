"""Terminals in which a page's snippets are typed: one that the reader works in, and others in which something runs on.

What a snippet exports, and where it goes, holds for the next one in the same terminal, as it does for a person. Others
begin afresh. Nothing outlives the page.
"""

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_PATIENCE_S: Final = 330.0
"""How long what is typed may take to end, or to print what it should."""
_GOODBYE_S: Final = 60.0
_GO_ON: Final = """set -euo pipefail
. {kept}/exports
cd "$(cat {kept}/folder)"
trap 'export -p > {kept}/exports; pwd > {kept}/folder' EXIT
"""


class Differs(AssertionError):
    """A snippet does not do what the page says."""


class Printed:
    """What a program prints, as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._news:
                    self.lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def until(self, wanted: Sequence[str]) -> str | None:
        """Wait until these lines have come, in order; the first one that has not when there will be no more."""
        with self._news:
            self._news.wait_for(lambda: self._ended or missing(self.lines, wanted) is None, _PATIENCE_S)
            return missing(self.lines, wanted)

    def whole(self) -> str:
        """All of it, once the program has closed its end."""
        self._reader.join(_PATIENCE_S)
        return "\n".join(self.lines)


def missing(lines: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first wanted line that does not come after the ones before it; none when all do."""
    left = iter(lines)
    for line in wanted:
        pattern = ".*".join(re.escape(" ".join(part.split())) for part in line.split("…"))
        if not any(re.fullmatch(pattern, " ".join(found.split())) for found in left):
            return line
    return None


class Desk:
    """A folder and the terminals that are open in it.

    Args:
        folder: where the reader stands; empty at first.
        environ: what every terminal begins with.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self._environ = dict(environ)
        self._kept = folder.parent / "terminal"
        self._others: list[tuple[subprocess.Popen[str], Printed]] = []

    def __enter__(self) -> Self:
        self.folder.mkdir()
        self._kept.mkdir()
        (self._kept / "exports").touch()
        (self._kept / "folder").write_text(f"{self.folder}\n", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process, _ in reversed(self._others):
            _end(process, signal.SIGTERM)
        for process, printed in reversed(self._others):
            try:
                process.wait(_GOODBYE_S)
            except subprocess.TimeoutExpired:
                _end(process, signal.SIGKILL)
                process.wait()
            printed.whole()
        left = list(self._left())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if left and error is None:
            raise Differs(f"{len(left)} processes go on running when the page's terminals are closed")

    def write(self, name: str, text: str) -> None:
        """Save a file as the page has it."""
        path = self._here() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def type(self, text: str, ends: int = 0) -> Printed:
        """Type something and wait for its end.

        Raises:
            Differs: it ends otherwise than it should.
        """
        script = _GO_ON.format(kept=self._kept) + text
        process, printed = self._begun(script, self.folder)
        try:
            ended = process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            _end(process, signal.SIGKILL)
            raise Differs(f"it does not end in {_PATIENCE_S:.0f} s:\n{printed.whole()}") from None
        if ended != ends:
            raise Differs(f"it ends with {ended} instead of {ends}:\n{printed.whole()}")
        printed.whole()
        return printed

    def open(self, text: str) -> Printed:
        """Type something in a terminal of its own, and leave it running."""
        begun = self._begun(f"set -euo pipefail\n{text}", self.folder)
        self._others.append(begun)
        return begun[1]

    def others(self) -> str:
        """What the other terminals show, for whoever looks for the reason of a failure."""
        return "\n".join(
            f"--- {process.args!r:.200}\n" + "\n".join(printed.lines[-30:]) for process, printed in self._others
        )

    def _begun(self, script: str, folder: Path) -> tuple[subprocess.Popen[str], Printed]:
        process = subprocess.Popen(
            ["bash", "-c", script],
            cwd=folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return process, Printed(process)

    def _here(self) -> Path:
        return Path((self._kept / "folder").read_text(encoding="utf-8").strip())

    def _left(self) -> Iterator[int]:
        """Processes that were born here and still run."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                about = (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(self._kept.parent).encode() in about:
                yield int(entry.name)


def _end(process: subprocess.Popen[str], how: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, how)
