"""``windfall checkpoint export``: a model as a file of a person's own, whole or not at all."""

import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from windfall.cli.checkpoints.fetching import fetch
from windfall.cli.checkpoints.listing import Checkpoint, listed, meant
from windfall.cli.checkpoints.tensors import data_start, header
from windfall.contracts.v1 import checkpoints_pb2 as pb
from windfall.servicekit.errors import ExitCode, Mistake

_BLOCK: Final = 1024 * 1024


class Part:
    """What has arrived of a model, beside the file that it becomes. It stays when the command ends early, and the next
    one for the same model goes on from there.

    Raises:
        Mistake: another command writes it.
    """

    def __init__(self, target: Path, wanted: Checkpoint) -> None:
        self._wanted = wanted
        # Another model has another part: none is ever continued with the other's bytes.
        self.path = target.with_name(f".{target.name}.{wanted.digest[:12]}.part")
        self._target = target
        self._sha = hashlib.sha256()
        self._start = 0

    def __enter__(self) -> Self:
        self._file = self.path.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise Mistake(f"another command writes {self._target}", "Wait for it", ExitCode.RESOURCE) from error
        if not self.path.exists() or not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
            self._file.close()
            raise Mistake(f"another command has just written {self._target}", "Look at it", ExitCode.RESOURCE)
        self._start = data_start(self.path)
        if self.offset() > self._wanted.bytes_model:
            self._start = 0
        if self._start:
            self._file.seek(self._start)
            while block := self._file.read(_BLOCK):
                self._sha.update(block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def offset(self) -> int:
        """Bytes of its tensors that are there."""
        return self.path.stat().st_size - self._start if self._start else 0

    def begin(self, head: pb.CheckpointHead) -> bool:
        """Write the header, or see that the one that is there is the same."""
        due = header(head, self._wanted.federation, self._wanted.name.rpartition("/")[2])
        if self._start:
            self._file.seek(0)
            if self._file.read(self._start) == due:
                return True
        again, self._start = bool(self.offset()), 0
        self._file.truncate(0)
        self._sha = hashlib.sha256()
        if again:
            return False
        self._file.write(due)
        self._start = len(due)
        return True

    def take(self, data: bytes) -> None:
        """The next bytes."""
        rest = memoryview(data)
        while rest:
            count = self._file.write(rest)
            assert count is not None, "a file blocks"
            self._sha.update(rest[:count])
            rest = rest[count:]

    def become(self, *, force: bool) -> None:
        """Be the file, on disk, under its name.

        Args:
            force: what stands there may go.

        Raises:
            Mistake: the bytes are not those of the model, and are gone now; or something has come to stand there.
        """
        if self._sha.hexdigest() != self._wanted.digest:
            self.path.unlink()
            raise Mistake(
                f"what arrived is not {self._wanted.name}: its digest is {self._sha.hexdigest()},"
                f" and {self._wanted.digest} was promised. Nothing was written",
                "Export it again; if it is so again, the coordinator's file is damaged: it mends it when it starts",
                ExitCode.DIFFERENT,
            )
        os.fsync(self._file.fileno())
        if not force:
            _untaken(self._target)
        self.path.replace(self._target)
        folder = os.open(self._target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


async def exported(
    target: str, federation: str, wish: str, file: Path, tell: Callable[[str], None], *, force: bool
) -> Checkpoint:
    """Write the model that a person means to a file.

    Args:
        target: ``host:port`` of the coordinator.
        federation: its federation; empty for whichever it serves.
        wish: a round's number, ``best`` or ``newest``.
        tell: takes what is said meanwhile.
        force: what stands there may go.

    Raises:
        Mistake: the file stands already or cannot be written, or the model cannot be had as it was promised.
    """
    if file.is_dir():
        raise Mistake(f"{file} is a folder", "Name a file with -o")
    if not force:
        _untaken(file)
    if not file.absolute().parent.is_dir():
        raise Mistake(f"there is no folder {file.parent}", "Make it, or name another file with -o", ExitCode.RESOURCE)
    wanted = meant(await listed(target, federation), wish)
    with Part(file.absolute(), wanted) as part:
        await fetch(target, wanted, part, tell)
        part.become(force=force)
    return wanted


def _untaken(file: Path) -> None:
    if file.exists():
        raise Mistake(f"{file} stands already", "Name another with -o, or say --force")
